"""`ganexport replay`: what it says, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport

from ganexport.bundling import Exported


@pytest.fixture
def shards(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> Path:
    answer = ganexport(
        *("generate", exported_once.path, "-n", 30, "--seed", 7, "--first", 5, "-o", tmp_path / "shards"),
        *("--format", "tar", "--shard-images", 20, "--device", "cpu", "--backend", "onnxruntime"),
    )
    assert answer.code == 0, answer.err
    return tmp_path / "shards"


def test_an_image_of_a_shard_is_identical(ganexport: Ganexport, shards: Path, tmp_path: Path) -> None:
    for words in (
        [shards, "--index", 17],
        [shards / "shard-000000.tar", "--index", 17],
        [shards / "shard-000000.tar", "--member", "seed7-00000017.png"],
    ):
        answer = ganexport("replay", *words, "-o", tmp_path / "again.png")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == "identical: seed 7 index 17, 16 × 16 × 1, all pixels\n"
    assert np.asarray(PIL.Image.open(tmp_path / "again.png")).shape == (16, 16)


def test_another_batch_size_is_named_with_the_contract(ganexport: Ganexport, shards: Path) -> None:
    answer = ganexport("replay", shards, "--index", 5, "--bucket", 3)
    assert "bucket: 16 then, 3 now" in answer.out
    assert "identity is promised for the same graph, backend, device, batch size and threads" in answer.out
    assert "within" in answer.out or answer.code == 0
    data = json.loads(ganexport("replay", shards, "--index", 5, "--bucket", 3, "--json").out)
    assert data["differences"] == ["bucket: 16 then, 3 now"]
    assert data["identical"] == (answer.code == 0)
    assert data["within_bound"] is True


def test_an_image_that_was_changed_is_not_identical(
    ganexport: Ganexport, exported_once: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    assert ganexport("generate", exported_once.path, "-n", 3, "--seed", 7, "-o", folder).code == 0
    path = folder / "seed7-00000001.png"
    assert ganexport("replay", path).code == 0
    pixels = np.asarray(PIL.Image.open(path)).copy()
    pixels[0, 0] ^= 8
    PIL.Image.fromarray(pixels).save(path)
    answer = ganexport("replay", path)
    assert answer.code == 1
    assert answer.out.startswith("not identical: seed 7 index 1")
    assert "largest difference 8 level(s)" in answer.out
    assert "PSNR 54.2 dB" in answer.out  # 10 · log10(255² / (64 / 256))
    data = json.loads(ganexport("replay", path, "--json").out)
    assert (data["identical"], data["levels"], data["bound"], data["differences"]) == (False, 8, None, [])


def test_a_picture_of_another_size_is_said(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    assert ganexport("generate", exported_once.path, "-n", 1, "-o", folder).code == 0
    PIL.Image.new("L", (9, 9)).save(folder / "seed0-00000000.png")
    answer = ganexport("replay", folder, "--index", 0)
    assert answer.code == 1
    assert "the picture has another size" in answer.out


def test_what_cannot_be_replayed_is_an_error(ganexport: Ganexport, shards: Path, tmp_path: Path) -> None:
    for words, problem in (
        ([tmp_path / "none.json"], "does not exist"),
        ([shards], "which image?"),
        ([shards, "--index", 99], "has no image of index 99"),
        ([shards, "--index", 17, "-o", tmp_path / "a.jpg"], "is not a name for a PNG"),
        ([shards, "--index", 17, "--bundle", tmp_path / "none.gan"], "no bundle at"),
        ([shards, "--index", 17, "--precision", "int8"], "no onnx variant 'int8'"),
    ):
        answer = ganexport("replay", *words)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("error: ")
        assert problem in answer.err
