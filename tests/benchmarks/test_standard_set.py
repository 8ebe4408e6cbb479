"""The standard set of benchmarks: its generators, what counts as an aim met, and that nothing is measured in place of a
GPU."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ganexport.benchmark.environment import environment
from ganexport.benchmark.result import Throughput
from ganexport.benchmark.rounds import Spread
from ganexport.source import Source
from ganruntime.errors import BackendError, DeviceError, InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import standard
from report import run
from standard_cases import CASES, Aim, contenders
from standard_summary import gigaflops, markdown_from_records, record_from_result
from stylegan2 import StyleGAN2, stylegan2

CASE = replace(CASES["dcgan-64"], batches=(8,), aims=(Aim(8, "fp32", 2.0), Aim(8, "int8", 3.0)))


def result_of(times_ms: dict[str, float], psnr_db: dict[str, float]) -> Any:
    """What a summary reads of a result. Names begin with what they are; int8 is in the name."""

    def found(ms: float) -> Throughput:
        ratio = times_ms["eager"] / ms
        return Throughput(Spread(8e3 / ms, 0, 0), Spread(ms, ms, ms), Spread(ratio, ratio, ratio), 80)

    precision = {name: "int8" if "int8" in name else "fp32" for name in times_ms}
    family = {name: "ours" if name.startswith("ganruntime") else "plain" for name in times_ms}
    return SimpleNamespace(
        offline={8: {name: found(ms) for name, ms in times_ms.items()}},
        contenders={n: {"precision": precision[n], "family": family[n]} for n in times_ms},
        label=lambda name: name,
        psnr_db=lambda name: psnr_db.get(name, 200.0),
        absent={},
        flags=[],
        neighbours=SimpleNamespace(share=0.0, quiet=True),
        environment=environment(),
    )


def record_of(times_ms: dict[str, float], **psnr_db: float) -> dict[str, Any]:
    result = result_of(times_ms, psnr_db)
    return record_from_result(CASE, result, {"fp32": 100.0}, [], flops=0.1)


TIMES = {"eager": 100.0, "openvino": 50.0, "openvino_int8": 25.0, "ganruntime": 40.0, "ganruntime_int8": 20.0}


def test_rows_and_aims_are_of_the_fastest_of_each_precision() -> None:
    record = record_of(TIMES | {"ganruntime_slow": 90.0, "torch_compile": 60.0}, openvino_int8=41.0)
    fp32, int8 = record["rows"]
    assert (fp32["ours"], fp32["plain"], fp32["ratio"], fp32["over_plain"]) == ("ganruntime", "openvino", 2.5, 1.25)
    assert (int8["ours"], int8["plain"], int8["ratio"], int8["over_plain"]) == (
        "ganruntime_int8",
        "openvino_int8",
        5.0,
        1.25,
    )
    page = markdown_from_records([record])
    assert "| 1.25× | 8 |  |" in page  # 0.1 · 8 images at 100 a second, in milliseconds
    assert "| 1.25× |  | 41.0 dB |" not in page
    assert "| 1.25× |  | 200.0 dB |" in page  # no peak of int8 is known
    assert [aim["met"] for aim in record["aims"]] == [True, True, True, True]


def test_who_misses_the_floor_is_no_rival_and_reaches_no_aim() -> None:
    record = record_of(TIMES, openvino_int8=20.0, ganruntime_int8=39.0)
    assert record["rows"][1]["plain"] == "openvino"
    assert [(aim["aim"], aim["met"]) for aim in record["aims"][:2]] == [(2.0, True), (3.0, False)]


def test_a_missed_aim_is_missed_and_the_page_says_so() -> None:
    record = record_of(TIMES | {"ganruntime": 49.0})
    assert [aim["met"] for aim in record["aims"]] == [True, True, False, True]
    page = markdown_from_records([record])
    assert page.count("**missed**") == 1
    assert page.count("| met |") == 3
    assert record["time_utc"] in page


def test_without_a_rival_there_is_no_row() -> None:
    with pytest.raises(BackendError, match="nothing without this project"):
        record_of({"eager": 100.0, "ganruntime": 40.0})


def test_stylegan2_is_one_function_grouped_and_scaled() -> None:
    module, spec = stylegan2(16, 128)
    assert isinstance(module, StyleGAN2)
    z = torch.randn(3, *spec.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        grouped, alone = module(z), module(z[:1])
        scaled = module.scaled()(z)
    assert grouped.shape == (3, 3, 16, 16)
    torch.testing.assert_close(alone, grouped[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled, grouped, atol=1e-5, rtol=0)


def test_operations_are_those_of_convolutions_and_products() -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(100, 10), torch.nn.Unflatten(1, (10, 1, 1)), torch.nn.Conv2d(10, 4, 1)
    )
    latent = SimpleNamespace(shape=(100,))
    source = Source(network, SimpleNamespace(inputs=(latent,)), "here")  # type: ignore[arg-type]
    assert gigaflops(source) == pytest.approx(2 * (100 * 10 + 10 * 4) / 1e9)


def test_commands_make_the_bundle_that_is_measured() -> None:
    for case in CASES.values():
        folder = Path("kept") / case.name
        commands = case.commands(folder)
        last = ["precision", "verify"] if case.is_slow else ["precision", "verify", "tune"]
        assert [c[0] for c in commands][-len(last) :] == last
        made = [command for command in commands if str(case.plain(folder)) in command]
        assert made or case.demo
        added = [word for command in commands if command[0] == "precision" for word in command]
        assert {*case.rungs, *case.later_rungs} <= set(added)


def test_a_slow_one_is_proven_as_it_says_and_measured_against_who_may_be_the_fastest() -> None:
    (slow,) = [case for case in CASES.values() if case.is_slow]
    for command in slow.commands(Path("kept")):
        assert command[command.index("--batch") + 1] == "1,3,8"
    names = contenders(slow, gpu=False)
    assert not {"channels-last", "bf16-autocast"} & set(names)
    assert names == tuple(f"ganruntime:{rung}@openvino/2" for rung in slow.rungs)
    usual = contenders(CASES["stylegan2-64"], gpu=False)
    assert {"channels-last", "ganruntime:fp32@onnxruntime", "ganruntime:int8@openvino/2"} <= set(usual)
    assert len(usual) == len(set(usual)) == 4 + 2 * len(("fp32-cpu", "bf16", "bf16-cpu", "int8"))


def test_tuning_once_more_gives_the_tuning_command_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(standard, "run_command", lambda case, command: given.append(command))
    standard.tune(CASES["dcgan-64"])
    assert given == [CASES["dcgan-64"].commands(standard.folder_of(CASES["dcgan-64"]))[-1]]
    assert given[0][0] == "tune"
    with pytest.raises(InputError, match="stylegan2-256 is not tuned"):
        standard.tune(CASES["stylegan2-256"])


def test_a_command_that_fails_is_told_with_its_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(standard, "_KEPT", tmp_path)
    monkeypatch.setattr(standard.subprocess, "run", lambda *given, **options: SimpleNamespace(returncode=3))
    with pytest.raises(BackendError, match="a command that makes its bundle failed") as raised:
        standard.prepare(CASES["digits"])
    assert "exit code 3 of ganexport demo --data digits" in str(raised.value)
    assert not (tmp_path / "digits" / "prepared.json").exists()


def test_what_was_prepared_in_the_same_words_is_not_prepared_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[str] = []
    monkeypatch.setattr(standard, "_KEPT", tmp_path)
    monkeypatch.setattr(standard, "run_command", lambda case, command: given.append(command[0]))
    case = CASES["digits"]
    standard.prepare(case)
    assert given == ["demo", "to-onnx", "precision", "verify", "tune"]
    standard.prepare(case)
    assert len(given) == 5
    standard.prepare(replace(case, latents=7))  # other words from the third on
    assert given[5:] == ["precision", "verify", "tune"]
    standard.prepare(replace(case, latents=7), fresh=True)
    assert given[8:] == ["demo", "to-onnx", "precision", "verify", "tune"]


def test_drawing_anew_leaves_what_was_measured_as_it_is(tmp_path: Path) -> None:
    for name in ("standard.json", "standard-digits.json"):
        shutil.copy(standard.RESULTS / name, tmp_path / name)
    before = (tmp_path / "standard-digits.json").read_bytes()
    assert standard.redraw(argparse.Namespace(gpu=False, output=tmp_path, generators=["digits"])) == 0
    assert (tmp_path / "standard-digits.json").read_bytes() == before
    assert (tmp_path / "standard-digits-quality.png").read_bytes().startswith(b"\x89PNG")
    assert "digits" in (tmp_path / "standard.md").read_text(encoding="utf-8")


def test_without_a_gpu_nothing_is_measured_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(standard, "gpus", list)
    with pytest.raises(DeviceError, match="there is no GPU"):
        standard.require_gpu()
    monkeypatch.setattr(sys, "argv", ["standard.py", "--gpu"])
    with pytest.raises(SystemExit) as ended:
        run(standard.main)
    assert ended.value.code == 2
    assert "leave out --gpu" in capsys.readouterr().err
