"""`ganexport invert`: from a picture to a latent that draws it from the bundle, and every wrong picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport

from ganexport.bundling import Exported
from ganruntime.generator import load

QUICK = ("--steps", 60, "--restarts", 2, "--candidates", 64)


@pytest.fixture
def own_picture(exported_once: Exported, tmp_path: Path) -> Path:
    """An image of the generator itself, twice as large and in colour, as a camera would give it."""
    with load(exported_once.path) as generator:
        (image,) = generator.generate(1, seed=5, first=3)  # uint8 [16, 16, 1]
    path = tmp_path / "own.png"
    PIL.Image.fromarray(image[..., 0]).convert("RGB").resize((32, 32), PIL.Image.Resampling.NEAREST).save(path)
    return path


def test_a_latent_is_found_that_draws_the_picture_from_the_bundle(
    ganexport: Ganexport, own_picture: Path, checkpoint_once: Path, exported_once: Exported, tmp_path: Path
) -> None:
    found = tmp_path / "found.npz"
    answer = ganexport("invert", own_picture, checkpoint_once, "-o", found, *QUICK)
    assert (answer.code, answer.err) == (0, "")
    said = re.match(
        r"PSNR (\d+\.\d) dB, the other descents (\d+\.\d); the best of 64 latents drawn had (\d+\.\d)", answer.out
    )
    assert said is not None, answer.out
    best, other, start = map(float, said.groups())
    assert best >= other
    assert best > start + 3.0
    with np.load(found) as arrays:
        assert {name: arrays[name].shape for name in arrays} == {"z": (1, 16)}
    assert (
        ganexport("generate", exported_once.path, "-n", 1, "--input", f"z={found}", "-o", tmp_path / "a.npy").code == 0
    )
    (image,) = np.load(tmp_path / "a.npy")
    pair = np.asarray(PIL.Image.open(tmp_path / "found-pair.png"))
    assert pair.shape == (256 + 8, 512 + 12)
    target, drawn = pair[4:260:16, 4:260:16], pair[4:260:16, 264:520:16]
    assert np.abs(image[..., 0].astype(int) - drawn).max() <= 1  # PyTorch and ONNX Runtime may round apart
    error = np.square(drawn.astype(float) - target).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(best, abs=0.06)


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"no picture", "whole and larger"), ("small", "at least 16×16"), (None, "cannot be read")],
)
def test_a_picture_that_cannot_be_taken_is_an_error(
    ganexport: Ganexport, checkpoint_once: Path, tmp_path: Path, content: bytes | str | None, named: str
) -> None:
    path = tmp_path / "x.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        PIL.Image.new("L", (8, 8)).save(path)
    answer = ganexport("invert", path, checkpoint_once, "-o", tmp_path / "found.npz")
    assert answer.code == 1
    assert named in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "found.npz").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-o", "found.npy"), "-o NAME.npz"),
        (("-o", "found.npz", "--picture", "x.gif"), "--picture NAME.png"),
        (("-o", "found.npz", "--picture", "own.png"), "would replace the image"),
        (("-o", "found.npz", "--space", "w"), "has no space w"),
        (("-o", "found.npz", "--label", "7"), "no such class"),
        (("-o", "found.npz", "--restarts", "9", "--candidates", "8"), "candidates"),
        (("-o", "found.npz", "--device", "gpu"), "no device"),
    ],
)
def test_a_wrong_word_is_an_error_and_writes_nothing(
    ganexport: Ganexport,
    own_picture: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ganexport("invert", own_picture, checkpoint_once, *words)
    assert answer.code == 1
    assert named in answer.err
    assert [p.name for p in tmp_path.iterdir()] == ["own.png"]
