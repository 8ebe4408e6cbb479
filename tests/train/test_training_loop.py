"""The loop: the same seed gives the same bits, interrupted or not, and nothing that goes wrong costs the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_runs import TINY, TINY_MLP, contents, interrupted_after, same

from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.noise import latents
from gantrain.checkpoint import load_generator, read_tensors
from gantrain.data.source import ImageSource
from gantrain.loop import train
from gantrain.progress import StepReport
from gantrain.run_folder import sample_sheets
from gantrain.stop_signals import TrainingStopped

# --- what a run is ---------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_its_format_says(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    checkpoint = train(
        "dcgan", "digits", tmp_path / "run", steps=12, seed=3, settings=TINY, on_step=reports.append, threads=1
    )
    run = tmp_path / "run"
    assert checkpoint == run / "checkpoint"
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint", "index.html", "log.jsonl", "run.json", "samples"]
    assert [report.step for report in reports] == list(range(1, 13))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6, 8, 10, 12]
    for line in lines:
        assert line["images"] == 8 * line["step"]
        assert 0 < line["d_real"] < 1
        assert 0 < line["d_fake"] < 1
        assert line["loss_d"] > 0
        assert line["loss_g"] > 0
    assert list(sample_sheets(run)) == [0, 7, 12]
    table = json.loads((run / "run.json").read_text())
    assert table["recipe"] == "dcgan"
    assert table["seed"] == 3
    assert table["settings"]["width"] == 4
    assert table["settings"]["steps"] == 12
    assert table["data"]["source"] == "digits"
    assert table["data"]["images"] == 50

    generator, spec = load_generator(run)
    assert spec.name == "dcgan-digits"
    assert spec.provenance.recipe == "dcgan"
    assert spec.provenance.dataset == "digits"
    assert spec.provenance.steps == 12
    assert spec.provenance.seed == 3
    assert spec.provenance.versions["torch"] == str(torch.__version__)
    # The last sheet shows what the exported weights draw from the first latents of the seed.
    images = uint8_from_output(generator(torch.from_numpy(latents(spec.inputs[0], 3, 0, 9))).numpy(), spec.outputs[0])
    sheet = np.asarray(PIL.Image.open(sample_sheets(run)[12]))
    assert np.abs(sheet[2 : 2 + 64 : 4, 2 : 2 + 64 : 4].astype(int) - images[0, ..., 0]).max() <= 1


def test_training_learns(tmp_path: Path) -> None:
    """The discriminator tells real from generated, and the generator's images come nearer the data's mean."""
    images = np.full((64, 16, 16, 1), 255, np.uint8)  # all white: easily learned
    images[:, :8] = 0
    source = ImageSource("halves", images)
    early: dict[str, float] = {}

    def on_step(report: StepReport) -> None:
        if report.step == 10:
            early["d_real"] = report.d_real
            early["d_fake"] = report.d_fake

    settings = {**TINY, "images": 0, "batch": 16, "generator_lr": 2e-3, "discriminator_lr": 1e-3}
    train("dcgan", source, tmp_path / "run", steps=120, settings=settings, on_step=on_step, threads=1)
    assert early["d_real"] > early["d_fake"]
    generator, spec = load_generator(tmp_path / "run")
    output = generator(torch.from_numpy(latents(spec.inputs[0], 77, 0, 32)))
    assert output[:, :, 10:].mean() > 0.3
    assert output[:, :, :6].mean() < -0.3


@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
@pytest.mark.parametrize("recipe", ["dcgan", "mlp"])
def test_every_recipe_trains_with_every_objective_and_k_steps(tmp_path: Path, recipe: str, objective: str) -> None:
    settings = {**(TINY if recipe == "dcgan" else TINY_MLP), "objective": objective, "discriminator_steps": 2}
    reports: list[StepReport] = []
    train(recipe, "digits", tmp_path / "run", steps=3, settings=settings, on_step=reports.append, threads=1)
    assert reports[-1].images == 3 * 2 * 8
    assert (reports[-1].loss_g < 0) == (objective == "minimax")  # log(1 - D) is negative, -log D positive
    load_generator(tmp_path / "run")


def test_it_trains_on_colour_and_mirrors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = ImageSource("noise", rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    settings = {**TINY, "mirror": True, "real_label": 0.9, "batch_norm": False}
    train("dcgan", source, tmp_path / "run", steps=2, settings=settings, threads=1)
    _, spec = load_generator(tmp_path / "run")
    assert spec.image is not None
    assert spec.image.shape == (3, 16, 16)


def test_the_callers_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(123)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    handler = signal.getsignal(signal.SIGINT)
    train("mlp", "digits", tmp_path / "run", steps=2, settings=TINY_MLP, threads=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGINT) is handler


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "settings", "threads"),
    [
        ("dcgan", TINY, 1),
        ("dcgan", TINY | {"discriminator_steps": 2, "mirror": True, "shift": 2}, 1),
        ("dcgan", TINY | {"discriminator_steps": 2}, 2),
        ("mlp", TINY_MLP, 1),
    ],
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, recipe: str, settings: dict[str, Any], threads: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, "digits", whole, steps=12, seed=5, settings=settings, threads=threads)
    # Stopped between checkpoints, at one, and on the next step after resuming.
    with pytest.raises(TrainingStopped) as stopped:
        train(
            recipe, "digits", parts, steps=12, seed=5, settings=settings, threads=threads, on_step=interrupted_after(3)
        )
    assert stopped.value.step == 3
    assert stopped.value.signal_number == signal.SIGINT
    for step in (5, 6):
        torch.manual_seed(step)  # whatever the caller's random state is
        with pytest.raises(TrainingStopped):
            train(recipe, None, parts, resume=True, on_step=interrupted_after(step))
    # A resumed run has the threads that it was started with, not those of the process: other splits round otherwise.
    now = torch.get_num_threads()
    torch.set_num_threads(3 - threads)
    try:
        train(recipe, "digits", parts, resume=True)
    finally:
        torch.set_num_threads(now)
    same(whole, parts)


def test_a_run_can_be_given_more_steps(tmp_path: Path) -> None:
    train("dcgan", "digits", tmp_path / "long", steps=14, settings=TINY, threads=1)
    train("dcgan", "digits", tmp_path / "short", steps=7, settings=TINY, threads=1)
    train("dcgan", "digits", tmp_path / "short", steps=14, resume=True)
    same(tmp_path / "long", tmp_path / "short")
    assert json.loads((tmp_path / "short" / "run.json").read_text())["settings"]["steps"] == 14


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train("mlp", "digits", tmp_path / name, steps=3, seed=seed, settings=TINY_MLP, threads=1)
    same(tmp_path / "a", tmp_path / "b")
    a, c = (read_tensors(tmp_path / name / "checkpoint" / "generator.safetensors") for name in "ac")
    assert not any(torch.equal(a[name], c[name]) for name in a if name.endswith("0.weight"))


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    train("mlp", "digits", tmp_path / "run", steps=4, settings=TINY_MLP, threads=1)
    before = contents(tmp_path / "run")
    train("mlp", "digits", tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_a_log_ahead_of_its_checkpoint_is_cut_back(tmp_path: Path) -> None:
    """What a kill leaves: lines, and half a line, and a sheet, of steps that the checkpoint does not have."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train("mlp", "digits", whole, steps=10, settings=TINY_MLP, threads=1)
    train("mlp", "digits", killed, steps=5, settings=TINY_MLP, threads=1)
    (killed / "samples" / "step-000005.png").unlink()  # drawn because 5 was the last step
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss_d": 1.0}\n{"step": 8, "loss_d": 2.0}\n{"step": 10, "lo')
    (killed / "samples" / "step-000007.png").write_bytes(b"half a sheet")
    train("mlp", "digits", killed, steps=10, resume=True)
    same(whole, killed)


# --- signals and kills -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_the_current_step(tmp_path: Path, number: int) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(
            "mlp", "digits", tmp_path / "run", steps=50, settings=TINY_MLP, on_step=interrupted_after(4, number),
            threads=1,
        )  # fmt: skip
    assert isinstance(stopped.value, TrainingStopped)
    assert stopped.value.signal_number == number
    assert load_generator(tmp_path / "run")[1].provenance.steps == 4
    assert signal.getsignal(number) is handler


def test_training_works_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[Any] = []

    def work() -> None:
        results.append(train("mlp", "digits", tmp_path / "run", steps=2, settings=TINY_MLP, threads=1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert results == [tmp_path / "run" / "checkpoint"]


_CHILD = """
import sys
from gantrain.loop import train
train("mlp", "digits", sys.argv[1], steps=100000, settings={settings!r}, threads=1, resume=sys.argv[2] == "resume")
"""


def _child(run: Path, settings: dict[str, Any], *, resume: bool) -> subprocess.Popen[bytes]:
    code = _CHILD.format(settings=settings)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(run), "resume" if resume else "new"], stderr=subprocess.PIPE
    )


def _wait_for(condition: Any, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < ends, "the child did not get that far"
        time.sleep(0.01)


def _logged_step(run: Path) -> int:
    lines = (run / "log.jsonl").read_bytes().split(b"\n") if run.exists() else []
    return int(json.loads(lines[-2])["step"]) if len(lines) > 1 else -1


def test_a_kill_at_any_moment_leaves_a_usable_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**TINY_MLP, "checkpoint_every": 1, "sample_every": 1, "log_every": 1}
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    last = -1
    for attempt in range(4):
        process = _child(run, settings, resume=attempt > 0)
        _wait_for(lambda last=last: _logged_step(run) > last + 1, process)
        time.sleep(float(rng.uniform(0.0, 0.3)))  # into the middle of a step, of a sheet, or of a checkpoint
        process.kill()
        process.wait()
        generator, spec = load_generator(run)
        assert all(torch.isfinite(tensor).all() for tensor in generator.state_dict().values())
        assert spec.provenance.steps > last
        last = spec.provenance.steps
        for sheet in sample_sheets(run).values():
            PIL.Image.open(sheet).load()
    # Resumed to its end, it is the run that was never killed.
    train("mlp", "digits", run, steps=last + 2, resume=True)
    train("mlp", "digits", tmp_path / "whole", steps=last + 2, settings=settings, threads=1)
    same(tmp_path / "whole", run)
    assert not list(run.rglob("*partial*"))


def test_two_processes_do_not_train_into_one_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _child(run, TINY_MLP, resume=False)
    try:
        _wait_for(lambda: run.exists() and (run / "log.jsonl").stat().st_size > 0, process)
        with pytest.raises(InputError, match="another process"):
            train("mlp", "digits", run, resume=True, steps=100_001)
    finally:
        process.kill()
        process.wait()
