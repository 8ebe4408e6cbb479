"""`ganexport precision` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_graphs import write_bundle

from ganexport.commands import COMMANDS, main
from ganexport.commands.precision import floors_from_text
from ganruntime.bundle import read_bundle
from ganruntime.errors import InputError


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["precision", *arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


FEW = ("--latents", "32", "--calibration-latents", "32")


def test_it_adds_rungs_and_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_bundle(tmp_path / "small.gan")
    code, out, err = run(capsys, str(path), "fp16", "int8", "--floor", "psnr=25", "--floor", "ssim=0.5", *FEW)
    assert code == 0, err
    assert "reference cpu" in out
    assert "onnxruntime cpu" in out
    assert "fp16: head (Tanh) in fp32: the head of the output image" in out
    assert "layers in int8" in out
    assert out.endswith(f"{path}: added fp16, int8\n")
    assert read_bundle(path).variant("int8").verdicts[0].errors["floor_psnr_db"] == 25.0
    assert "precision" in COMMANDS


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_bundle(tmp_path / "small.gan")
    code, out, _ = run(capsys, str(path), "bf16", "--json", *FEW)
    assert code == 0
    (found,) = json.loads(out)
    assert found["variant"] == "bf16"
    assert found["verdicts"][0]["backend"] == "reference"
    assert found["size_bytes"] == (path / "model.bf16.onnx").stat().st_size
    assert found["report"]["islands"]


def test_a_floor_out_of_reach_is_an_error_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_bundle(tmp_path / "small.gan")
    code, out, err = run(capsys, str(path), "fp16", "--floor", "psnr=150", *FEW)
    assert (code, out) == (1, "")
    assert "does not keep its floors" in err
    assert "remedy:" in err
    assert "Traceback" not in err


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, str(tmp_path / "none.gan"), "fp16")[0] == 1
    assert run(capsys, str(tmp_path / "none.gan"), "fp9")[0] == 2
    assert run(capsys, str(tmp_path / "none.gan"))[0] == 2


def test_floors() -> None:
    assert floors_from_text(("psnr=40", "ssim=0.9", "levels=12")) == {"psnr_db": 40.0, "ssim": 0.9, "levels": 12.0}
    for text in ("psnr", "psnr=", "psnr=high", "beauty=3", "psnr=-1", "psnr=inf", "psnr=nan"):
        with pytest.raises(InputError, match="--floor"):
            floors_from_text((text,))
