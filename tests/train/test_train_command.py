"""`ganexport train` and `ganexport recipes`, as a person calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ganexport.commands import main
from gantrain.checkpoint import load_generator

SETTINGS = (
    "size=8", "images=50", "batch=8", "z_size=6", "generator_widths=8,16", "discriminator_widths=16", "sample_images=4",
)  # fmt: skip
SET = [part for setting in SETTINGS for part in ("--set", setting)]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ganexport(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command line in this process: torch is imported once, not once a test."""

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return Result(int(stopped.value.code or 0), output.out, output.err)

    return call


def test_train_and_resume(tmp_path: Path, ganexport: Callable[..., Result]) -> None:
    run = tmp_path / "run"
    first = ganexport("train", "mlp", "--data", "digits", "--out", run, "--steps", 3, "--seed", 9, "--threads", 1, *SET)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{run / 'checkpoint'}\n"
    assert "step 3/3" in first.stderr
    assert "loss D" in first.stderr
    again = ganexport("train", "mlp", "--data", "digits", "--out", run)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "--resume" in again.stderr
    on = ganexport("train", "mlp", "--out", run, "--resume", "--steps", 5, "--quiet")
    assert on.returncode == 0, on.stderr
    assert on.stderr == ""
    spec = load_generator(run)[1]
    assert (spec.provenance.steps, spec.provenance.seed) == (5, 9)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, number: int, code: int, ganexport: Callable[..., Result]
) -> None:
    run = tmp_path / "a run"
    arguments = ["train", "mlp", "--data", "digits", "--out", str(run), "--steps", "1000000", "--threads", "1", *SET]
    process = subprocess.Popen(
        [sys.executable, "-m", "ganexport", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ends = time.monotonic() + 120
    while not (run.exists() and (run / "log.jsonl").stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.02)
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert output == ""
    assert "Traceback" not in errors
    steps = load_generator(run)[1].provenance.steps
    assert f"stopped after step {steps}" in errors
    assert f"to go on: ganexport train mlp --out '{run}' --resume" in errors
    on = ganexport("train", "mlp", "--out", run, "--resume", "--steps", steps + 1)
    assert on.returncode == 0, on.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "dcgna", "--data", "digits"], "'dcgan'?"),
        (["train", "mlp", "--data", "nowhere"], "no data source"),
        (["train", "mlp"], "needs data"),
        (["train", "mlp", "--data", "digits", "--set", "bacth=3"], "'batch'?"),
        (["train", "mlp", "--data", "digits", "--set", "batch"], "--set key=value"),
        (["train", "mlp", "--data", "digits", "--size", "16", "--set", "size=32"], "given twice"),
        (["train", "mlp", "--data", "digits", "--steps", "5", "--set", "steps=6"], "given twice"),
        (["train", "dcgan", "--data", "digits", "--size", "48"], "16, 32, 64, 128"),
        (["train", "dcgan", "--data", "digits", "--preset", "papre"], "paper"),
        (["train", "mlp", "--data", "digits", "--device", "tpu"], "cuda"),
        (["train", "mlp", "--data", "digits", "--resume"], "no run to resume"),
    ],
)
def test_wrong_input_is_an_error_without_a_traceback(
    tmp_path: Path, arguments: list[str], said: str, ganexport: Callable[..., Result]
) -> None:
    result = ganexport(*arguments, "--out", tmp_path / "run")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_without_torch_the_error_names_the_extra(tmp_path: Path) -> None:
    # A stand-in that is found first and cannot be imported: torch as it is where it was never installed.
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch', name='torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "ganexport"]
    train = [*command, "train", "mlp", "--data", "digits", "--out", str(tmp_path / "run")]
    result = subprocess.run(train, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert "training needs torch" in result.stderr
    assert 'pip install "ganexport[train]"' in result.stderr
    listed = subprocess.run([*command, "recipes"], capture_output=True, text=True, check=False, env=environment)
    assert listed.returncode == 0, listed.stderr


def test_recipes_lists_a_line_each_and_every_setting_of_one(ganexport: Callable[..., Result]) -> None:
    text = ganexport("recipes")
    assert text.returncode == 0
    listed = text.stdout.partition("\n\n")[0]  # below an empty line: where to look next
    names = [line.split()[0] for line in listed.splitlines()]
    assert {"dcgan", "lsgan", "mlp", "toy", "wgan", "wgan-gp"} <= set(names)
    table = json.loads(ganexport("recipes", "--json").stdout)
    assert [recipe["name"] for recipe in table["recipes"]] == names
    for recipe in table["recipes"]:
        one = ganexport("recipes", recipe["name"]).stdout
        assert one.startswith(f"{recipe['name']}: ")
        for setting in recipe["settings"]:
            assert setting["meaning"]
            assert f"{setting['name']}=" in one
        for preset in recipe["presets"]:
            assert f"--preset {preset}: " in one
    assert ganexport("recipes", "gan").returncode == 1


@pytest.mark.parametrize("name", ["train", "recipes"])
def test_help_has_an_example(name: str, ganexport: Callable[..., Result]) -> None:
    result = ganexport(name, "--help")
    assert result.returncode == 0
    assert "Example:" in result.stdout
    assert f"ganexport {name} dcgan" in result.stdout
