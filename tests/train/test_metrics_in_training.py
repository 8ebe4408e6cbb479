"""Metrics while training: the same bits with and without them, and the best generator beside the last."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY, TINY_RECIPES, contents, interrupted_after, same

from ganexport.comparison.side import side_from_text
from ganexport.evaluation.evaluation import Request, evaluate
from ganruntime.errors import CheckpointError, InputError, TrainingError
from gantrain import observers
from gantrain.best import Best
from gantrain.checkpoint import load_generator
from gantrain.data.source import ImageSource
from gantrain.loop import train
from gantrain.progress import StepReport
from gantrain.samples import diversity
from gantrain.stop_signals import TrainingStopped

SCORED = TINY_RECIPES["toy"][1] | {"metrics_every": 3, "metrics_samples": 64}
LABELLED = TINY | {"images": 120, "held_out": 0.25, "metrics_every": 4, "metrics_samples": 48}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANEXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    run = tmp_path_factory.mktemp("labelled") / "run"
    train("cgan", "digits", run, steps=10, seed=2, settings=LABELLED, threads=1)
    return run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run that was scored after steps 3, 6, 9 and 11, its last."""
    run = tmp_path_factory.mktemp("scored") / "run"
    train("toy", "ring", run, steps=11, seed=5, settings=SCORED, threads=1)
    return run


def log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def figures(run: Path, name: str) -> dict[int, float]:
    """Step -> the figure of that name, of the steps that were scored."""
    lines = [line for line in log_lines(run) if "metrics" in line]
    return {line["step"]: next(v for k, v in line["metrics"].items() if k.startswith(f"{name}[")) for line in lines}


def best_step(run: Path) -> int:
    step: int = json.loads((run / "checkpoint" / "training" / "state.json").read_text())["best"]["step"]
    return step


def test_metrics_leave_the_bits_of_the_training_as_they_are(scored: Path, tmp_path: Path) -> None:
    plain = tmp_path / "run"
    train("toy", "ring", plain, steps=11, seed=5, settings=SCORED | {"metrics_every": 0}, threads=1)
    left, right = contents(scored), contents(plain)
    assert not (plain / "best").exists()
    for name in right:
        if name in ("run.json", "checkpoint/training/state.json"):
            continue
        if name == "log.jsonl":
            by_step = {line["step"]: line for line in left[name]}
            for line in right[name]:
                by_step[line["step"]].pop("metrics", None)
                assert by_step[line["step"]] == line
        else:
            assert left[name] == right[name], name


def test_the_log_has_the_figures_and_the_best_generator_is_kept(scored: Path, tmp_path: Path) -> None:
    coverage = figures(scored, "coverage")
    assert list(coverage) == [3, 6, 9, 11]  # at the end as well, where a run is long enough to be scored at all
    best = max(coverage, key=lambda step: (coverage[step], -step))  # of equal ones the first
    assert best_step(scored) == best
    generator, spec = load_generator(scored / "best")
    assert spec.provenance.steps == best
    assert spec.provenance.metrics == {"coverage[values]": coverage[best]}
    # The same weights as a run that ends there.
    train("toy", "ring", tmp_path / "run", steps=best, seed=5, settings=SCORED | {"metrics_every": 0}, threads=1)
    expected, _ = load_generator(tmp_path / "run")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(generator.state_dict()[name], tensor), name


def test_a_short_run_is_not_scored(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    settings = SCORED | {"metrics_every": 20}
    train("toy", "ring", tmp_path / "run", steps=5, settings=settings, on_step=reports.append, threads=1)
    assert not (tmp_path / "run" / "best").exists()
    assert all(report.metrics is None for report in reports)
    # Told to make more steps and to look more often, which changes nothing but that, it is.
    train("toy", "ring", tmp_path / "run", resume=True, steps=8, settings={"metrics_every": 4}, on_step=reports.append)
    assert [report.step for report in reports if report.metrics] == [8]


def test_the_figures_are_those_that_evaluate_gives(labelled: Path) -> None:
    """Of images with labels, against what was held out of them, by a judge: the whole way."""
    best = best_step(labelled)
    line = next(line for line in log_lines(labelled) if line["step"] == best)
    side = side_from_text(str(labelled / "best"))
    request = Request(None, ("fid", "entropy", "conditional"), samples=LABELLED["metrics_samples"], seed=2)
    found = evaluate(side, request, lambda done: None)
    assert "held out" in found.real
    assert set(found.scores.by_key()) < set(line["metrics"])
    for key, value in found.scores.by_key().items():
        assert line["metrics"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert min(figures(labelled, "fid").values()) == figures(labelled, "fid")[best]


@pytest.mark.parametrize("step", [2, 6, 7])
def test_an_interrupted_run_keeps_the_same_best(scored: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingStopped):
        train("toy", "ring", run, steps=11, seed=5, settings=SCORED, threads=1, on_step=interrupted_after(step))
    train("toy", "ring", run, resume=True)
    same(scored, run)


def test_a_kill_between_checkpoint_and_best_is_mended(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(observers, "save_generator", kill)
        with pytest.raises(Killed):
            train("toy", "ring", run, steps=11, seed=5, settings=SCORED, threads=1)
    assert best_step(run) == 3
    assert not (run / "best").exists()
    train("toy", "ring", run, resume=True)
    same(scored, run)


_CHILD = """
import sys
from gantrain.loop import train
train("toy", "ring", sys.argv[1], steps=100000, settings={settings!r}, threads=1)
"""


def test_a_kill_at_any_moment_leaves_a_best_that_loads(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = SCORED | {"metrics_every": 1, "metrics_samples": 16, "log_every": 1, "sample_every": 10_000}
    code = _CHILD.format(settings=settings)
    process = subprocess.Popen([sys.executable, "-c", code, str(run)], stderr=subprocess.PIPE)
    ends = time.monotonic() + 120
    while not (run / "best").exists() or (run / "log.jsonl").read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < ends
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0.0, 0.1)))
    process.kill()
    process.communicate()
    last = load_generator(run)[1].provenance.steps
    assert 0 < load_generator(run / "best")[1].provenance.steps <= last
    # Against one that was asked to stop there: what is late in a run, and said of it, depends on the steps asked for.
    stopped = tmp_path / "stopped"
    with pytest.raises(TrainingStopped):
        train("toy", "ring", stopped, steps=100_000, settings=settings, threads=1, on_step=interrupted_after(last))
    for each in (run, stopped):
        train("toy", "ring", each, steps=last + 2, resume=True)
    same(stopped, run)


def _with_best(run: Path, best: dict[str, Any]) -> None:
    path = run / "checkpoint" / "training" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best": best}))


def test_a_best_of_other_features_is_scored_again(scored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    known = json.loads((run / "checkpoint" / "training" / "state.json").read_text())["best"]
    _with_best(run, {"step": known["step"], "key": "fid[another-judge]", "value": 0.0})
    train("toy", "ring", run, resume=True, steps=12)
    state = json.loads((run / "checkpoint" / "training" / "state.json").read_text())
    assert state["best"]["key"] == "coverage[values]"
    assert state["best"]["value"] >= known["value"]
    # It is of the trained generator's first samples, not what the file said.
    assert load_generator(run / "best")[1].provenance.metrics["coverage[values]"] == state["best"]["value"]


def test_a_best_that_the_user_removed_is_forgotten(scored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    shutil.rmtree(run / "best")
    _with_best(run, {"step": 3, "key": "coverage[values]", "value": 2.0})  # better than any can be
    train("toy", "ring", run, resume=True, steps=12)
    assert best_step(run) == 12


@pytest.mark.parametrize(
    "best", [{"step": 3}, {"step": -1, "key": "a", "value": 1.0}, {"step": 1, "key": 2, "value": 1}, 5]
)
def test_a_damaged_best_is_an_error_that_names_the_file(scored: Path, tmp_path: Path, best: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    _with_best(run, best)
    with pytest.raises(CheckpointError, match=r"state\.json does not say which step was the best"):
        train("toy", "ring", run, resume=True, steps=12)
    with pytest.raises(ValueError, match="not a best"):
        Best.from_json({"step": 1, "key": "a", "value": float("nan")})


def test_a_checkpoint_of_an_earlier_release_goes_on(scored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    path = run / "checkpoint" / "training" / "state.json"
    table = json.loads(path.read_text())
    del table["best"]
    path.write_text(json.dumps(table))
    train("toy", "ring", run, resume=True, steps=12)
    assert best_step(run) == 12


def test_data_that_are_too_few_for_metrics_are_an_error_at_the_start(tmp_path: Path) -> None:
    source = ImageSource("few", np.zeros((9, 16, 16, 1), np.uint8))
    settings = TINY | {"metrics_every": 2}
    with pytest.raises(InputError, match="metrics during training: too few images") as raised:
        train("dcgan", source, tmp_path / "run", steps=4, settings=settings, threads=1)
    assert "--set metrics_every=0" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_samples_that_are_not_finite_are_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        samples, inputs = samples_of(*arguments)
        return samples * np.nan, inputs

    samples_of = observers.samples_of
    monkeypatch.setattr(observers, "samples_of", broken)
    with pytest.raises(TrainingError, match="draws what is not finite after step 3") as raised:
        train("toy", "ring", tmp_path / "run", steps=11, settings=SCORED, threads=1)
    assert "the last good checkpoint is of step 0" in str(raised.value)


def test_diversity_is_the_ratio_of_spreads() -> None:
    rng = np.random.default_rng(1)
    real = torch.from_numpy(rng.normal(3.0, 2.0, (64, 3, 4, 4)).astype(np.float32))
    assert diversity(real, real).item() == pytest.approx(1.0)
    assert diversity(real * 0.25 + 7.0, real).item() == pytest.approx(0.25, rel=1e-4)
    assert diversity(real[:1].expand_as(real), real).item() == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(diversity(real, torch.ones_like(real)).item())
    spread = np.sqrt(real.numpy().var(axis=0).mean())
    assert diversity(real, torch.from_numpy(rng.normal(0, 1, (4096, 3, 4, 4)))).item() == pytest.approx(
        spread, rel=0.02
    )
