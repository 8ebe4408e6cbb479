"""What goes wrong in training is named, costs no checkpoint, and leaves nothing half made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY, TINY_MLP, TINY_RECIPES, contents

from ganruntime.errors import CheckpointError, DataError, DeviceError, InputError, OutputError, TrainingError
from gantrain.checkpoint import load_generator, read_tensors
from gantrain.data.named import source_from_name
from gantrain.data.source import ImageSource
from gantrain.loop import train


def test_divergence_is_named_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**TINY_MLP, "checkpoint_every": 1, "discriminator_lr": 1e30, "generator_lr": 1e30}
    with pytest.raises(TrainingError, match="diverged") as raised:
        train("mlp", "digits", run, steps=500, settings=settings, threads=1)
    assert "generator_lr" in str(raised.value)
    generator, spec = load_generator(run)
    assert f"step {spec.provenance.steps}:" in str(raised.value)
    for tensors in (
        generator.state_dict(),
        read_tensors(run / "checkpoint" / "training" / "discriminator.safetensors"),
    ):
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss_d"]) for line in lines[:-1])
    assert lines[-1]["loss_d"] is None
    assert [finding["name"] for finding in lines[-1]["diagnosis"]["began"]] == ["diverged"]


_FULL_DISK = """
import sys, resource, signal
from gantrain.loop import train
from ganruntime.errors import OutputError
def on_step(report):
    if report.step == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    train("mlp", "digits", sys.argv[1], steps=100, settings={settings!r}, threads=1, on_step=on_step)
except OutputError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize(
    ("limit", "changes", "named"),
    [
        (100, {"log_every": 1, "sample_every": 1000, "checkpoint_every": 1000}, "log.jsonl"),
        (10_000, {"log_every": 1000, "sample_every": 1000, "checkpoint_every": 8}, "checkpoint"),
        (50, {"log_every": 1000, "sample_every": 7, "checkpoint_every": 1000}, "step-000007.png"),
    ],
)
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_checkpoint(
    tmp_path: Path, limit: int, changes: dict[str, int], named: str
) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    run = tmp_path / "run"
    settings = {**TINY_MLP, **changes}
    code = _FULL_DISK.format(limit=limit, settings=settings)
    result = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
    assert result.returncode == 7, result.stderr
    assert named in result.stdout
    assert "remedy" in result.stdout
    assert load_generator(run)[1].provenance.steps in (0, 5)
    assert not list(run.rglob("*partial*"))
    train("mlp", "digits", run, steps=10, resume=True)
    assert load_generator(run)[1].provenance.steps == 10


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    train("mlp", "digits", tmp_path / "run", steps=1, settings=TINY_MLP, threads=1)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already") as raised:
        train("mlp", "digits", tmp_path / "run", steps=1, settings=TINY_MLP)
    assert "--resume" in str(raised.value)
    assert contents(tmp_path / "run") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="no run of ours"):
        train("mlp", "digits", tmp_path / "other", steps=1, settings=TINY_MLP)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    train("mlp", "digits", tmp_path / "empty", steps=1, settings=TINY_MLP, threads=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    train("mlp", "digits", run, steps=4, seed=1, settings=TINY_MLP, threads=1)
    return run


@pytest.mark.parametrize(
    ("recipe", "source", "arguments", "named"),
    [
        ("dcgan", "digits", {}, "recipe"),
        ("mlp", "digits", {"settings": {"batch": 16}}, "'batch'"),
        ("mlp", "digits", {"settings": {"generator_lr": "0.1"}}, "'generator_lr'"),
        ("mlp", "digits", {"settings": {"batsh": 16}}, "'batch'?"),
        ("mlp", "digits", {"seed": 2}, "seed"),
        ("mlp", "digits", {"steps": 3}, "more steps already"),
    ],
)
def test_resuming_something_else_says_what_differs(
    finished: Path, recipe: str, source: str, arguments: dict[str, Any], named: str
) -> None:
    before = contents(finished)
    with pytest.raises(InputError) as raised:
        train(recipe, source, finished, resume=True, **arguments)
    assert named in str(raised.value)
    assert contents(finished) == before


def test_resuming_with_the_same_words_is_resuming(finished: Path) -> None:
    train("mlp", "digits", finished, resume=True, seed=1, steps=4, settings={"batch": "8", "checkpoint_every": 2})


def test_resuming_on_other_pixels_is_refused(tmp_path: Path) -> None:
    digits = source_from_name("digits", 8, images=50)
    train("mlp", digits, tmp_path / "run", steps=2, settings=TINY_MLP, threads=1)
    changed = digits.images.copy()
    changed[7, 3, 3] ^= 255
    with pytest.raises(InputError, match="other data"):
        train("mlp", ImageSource("digits", changed, digits.labels), tmp_path / "run", resume=True)


def test_a_run_from_before_class_names_were_recorded_says_so_and_what_to_do(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("mlp", "digits", run, steps=2, settings=TINY_MLP, threads=1)
    record = json.loads((run / "run.json").read_text())
    record["data"]["fingerprint"] = source_from_name("digits", 8, images=50).fingerprint_without_classes
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="before the names of classes") as raised:
        train("mlp", "digits", run, steps=3, resume=True)
    assert "another --out" in str(raised.value)


def test_a_part_that_a_run_was_started_without_stays_away(tmp_path: Path) -> None:
    """Of an earlier release, whose record does not know the setting: the recipe's default of today is not its own."""
    data, settings = TINY_RECIPES["progressive"]
    run = tmp_path / "run"
    train("progressive", data, run, steps=2, settings=settings | {"drift": 0.0}, threads=1)
    record = json.loads((run / "run.json").read_text())
    del record["settings"]["drift"]
    (run / "run.json").write_text(json.dumps(record))
    train("progressive", None, run, steps=3, resume=True)
    assert json.loads((run / "run.json").read_text())["settings"]["drift"] == 0.0


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no run to resume") as raised:
            train("mlp", "digits", run, resume=True)
        assert "--resume" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("run.json", CheckpointError),
        ("checkpoint/spec.json", None),
        ("checkpoint/generator.safetensors", CheckpointError),
        ("checkpoint/training/state.json", CheckpointError),
        ("checkpoint/training/generator.safetensors", CheckpointError),
        ("checkpoint/training/discriminator.safetensors", CheckpointError),
        ("checkpoint/training/optimisers.safetensors", CheckpointError),
        ("checkpoint/training/random.safetensors", CheckpointError),
    ],
)
def test_a_damaged_run_is_an_error_that_names_the_file(tmp_path: Path, name: str, error: type | None) -> None:
    run = tmp_path / "run"
    train("mlp", "digits", run, steps=2, settings=TINY_MLP, threads=1)
    path = run / name
    path.write_bytes(path.read_bytes()[:-20])
    if error is None:  # resume does not read the spec: it writes it
        train("mlp", "digits", run, steps=3, resume=True)
        assert load_generator(run)[1].provenance.steps == 3
        return
    with pytest.raises(error) as raised:
        train("mlp", "digits", run, steps=3, resume=True)
    assert path.name in str(raised.value)
    assert raised.value.remedy


def test_a_checkpoint_without_training_state_cannot_be_resumed(tmp_path: Path) -> None:
    train("mlp", "digits", tmp_path / "run", steps=1, settings=TINY_MLP, threads=1)
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "training")
    with pytest.raises(CheckpointError, match="no training state"):
        train("mlp", "digits", tmp_path / "run", steps=2, resume=True)
    load_generator(tmp_path / "run")  # and can still be exported


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"recipe_name": "mpl"}, InputError),
        ({"source": "nowhere"}, DataError),
        ({"source": None}, InputError),
        ({"seed": -1}, InputError),
        ({"seed": 1 << 64}, InputError),
        ({"steps": 0}, InputError),
        ({"steps": 5, "settings": {"steps": 6}}, InputError),
        ({"threads": 0}, InputError),
        ({"device": "tpu"}, InputError),
    ],
)
def test_wrong_arguments_are_errors_and_leave_nothing(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    arguments = {"recipe_name": "mlp", "source": "digits", "out": tmp_path / "run", **arguments}
    with pytest.raises(error):
        train(**arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda") as raised:
        train("mlp", "digits", tmp_path / "run", device="cuda", settings=TINY_MLP)
    assert "--device cpu" in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_and_resumes_on_cuda(tmp_path: Path) -> None:
    train("dcgan", "digits", tmp_path / "run", steps=4, settings=TINY, device="cuda")
    train("dcgan", "digits", tmp_path / "run", steps=8, resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["device"] == "cuda"
    assert load_generator(tmp_path / "run")[1].provenance.steps == 8


def test_an_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, InputError)):
        train("mlp", "digits", tmp_path / "file" / "run", steps=1, settings=TINY_MLP, threads=1)
