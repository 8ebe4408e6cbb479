"""What is wrong with a training is noticed and named, in small runs that go wrong; nothing in those that do not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import interrupted_after, same

from gantrain.diagnosis import Change, Diagnosis, guessing_score
from gantrain.loop import train
from gantrain.progress import StepReport
from gantrain.recipes import RECIPES, recipe_from_name
from gantrain.recipes.settings import changes_from_arguments, settings_with
from gantrain.recipes.training_settings import TrainingSettings
from gantrain.stop_signals import TrainingStopped

RARELY: dict[str, Any] = {"log_every": 5, "metrics_every": 0, "sample_every": 10**6, "checkpoint_every": 10**6}
TOY = RARELY | {
    "z_size": 4, "generator_signs": 0, "batch": 16, "generator_widths": "16,16", "discriminator_widths": "16,16",
    "maxout": 1, "sample_images": 16, "r1": 0.0, "r2": 0.0, "decay_end": 0, "decay_start": 0,
}  # fmt: skip
MLP = RARELY | {
    "size": 8, "images": 200, "batch": 16, "z_size": 6, "generator_widths": "16,32", "discriminator_widths": "32",
    "sample_images": 4,
}  # fmt: skip
COLLAPSING = MLP | {"generator_lr": 0.2, "discriminator_lr": 1e-3}  # a thousand times what suits it


def names(run: Path) -> list[str]:
    """The findings that began, by the log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [finding["name"] for line in lines if "diagnosis" in line for finding in line["diagnosis"]["began"]]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("recipe", "data", "steps", "settings", "expected"),
    [
        ("mlp", "digits", 420, COLLAPSING, ["collapsed"]),
        # D's rate is a thousand times G's: by its loss, and where the loss is the one that vanishes by the gradient.
        ("mlp", "digits", 450, MLP | {"generator_lr": 1e-5, "discriminator_lr": 1e-2}, ["discriminator-won"]),
        (
            "toy",
            "curves",
            450,
            TOY | {"objective": "minimax", "generator_lr": 1e-5, "discriminator_lr": 1e-2},
            ["discriminator-won"],
        ),
        ("mlp", "digits", 520, MLP | {"discriminator_lr": 0.0}, ["discriminator-idle"]),
        # The same with rates that suit each other.
        ("mlp", "digits", 600, MLP | {"generator_lr": 1e-3, "discriminator_lr": 1e-3}, []),
        ("toy", "ring", 520, TOY | {"r1": 0.02, "r2": 0.02}, []),
    ],
)
def test_a_run_that_goes_wrong_is_told_from_one_that_does_not(
    tmp_path: Path, recipe: str, data: str, steps: int, settings: dict[str, Any], expected: list[str]
) -> None:
    reports: list[StepReport] = []
    train(recipe, data, tmp_path / "run", steps=steps, seed=1, settings=settings, on_step=reports.append, threads=1)
    found = names(tmp_path / "run")
    # What is sick in one way may be in another as well; what is sound is sound.
    assert set(expected) <= set(found) if expected else not found
    assert [f.name for report in reports if report.change for f in report.change.began] == found
    page = (tmp_path / "run" / "index.html").read_text()
    assert ("Nothing in the log looks wrong" in page) == (not expected)
    assert ("What to try" in page) == bool(expected)


def test_a_resumed_run_finds_what_an_uninterrupted_one_finds(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train("mlp", "digits", whole, steps=300, seed=2, settings=COLLAPSING, threads=1)
    assert names(whole) == ["collapsed"]
    with pytest.raises(TrainingStopped):
        train("mlp", "digits", run, steps=300, seed=2, settings=COLLAPSING, threads=1, on_step=interrupted_after(203))
    train("mlp", "digits", run, resume=True)
    same(whole, run)


# --- rules, on logs that are written for them ------------------------------------------------------------------------


def line(step: int, **values: Any) -> dict[str, Any]:
    """A line of a healthy log."""
    usual = {
        "step": step, "loss_d": 1.1, "loss_g": 1.0, "d_real": 0.6, "d_fake": 0.4, "d_accuracy": 0.75, "d_score": -1.1,
        "gradient_d": 3.0, "gradient_g": 1.0, "diversity": 0.9,
    }  # fmt: skip
    return usual | values


def seen(
    lines: Sequence[dict[str, Any]], settings: TrainingSettings | None = None, **words: Any
) -> list[tuple[int, str]]:
    """(step, finding) of each that began, and (step, "-finding") of each that ended."""
    diagnosis = Diagnosis(settings or recipe_from_name("dcgan").defaults, **words)
    changes: list[tuple[int, str]] = []
    for entry in lines:
        change = diagnosis.see(entry)
        changes += [(entry["step"], finding.name) for finding in change.began]
        changes += [(entry["step"], f"-{name}") for name in change.ended]
    return changes


def test_what_passes_is_no_finding() -> None:
    steps = range(10, 2000, 10)
    assert seen([line(step) for step in steps]) == []
    # A tenth of odd batches; a young generator that does not vary yet; a discriminator that is certain for 250 steps.
    odd = [
        line(s, diversity=0.0, gradient_g=1e6, loss_d=0.0, d_accuracy=1.0) if s % 100 == 0 else line(s) for s in steps
    ]
    assert seen(odd) == []
    assert seen([line(s, diversity=min(1.0, s / 1500)) for s in steps]) == []
    assert seen([line(s, **({"loss_d": 1e-4, "d_accuracy": 1.0} if s < 250 else {})) for s in steps]) == []
    # Lines of an earlier release, and of a batch that does not vary, have no figure.
    assert seen([line(s, diversity=None) for s in steps]) == []


def test_collapse_is_a_fall_of_diversity_or_none_ever() -> None:
    fall = [line(s, diversity=0.8 if s < 500 or s > 1000 else 0.02) for s in range(10, 2000, 10)]
    (begins, name), (ends, over) = seen(fall)
    assert (name, over) == ("collapsed", "-collapsed")
    assert 500 < begins <= 700
    assert 1000 < ends <= 1400
    assert seen([line(s, diversity=0.05) for s in range(10, 2000, 10)]) == [(1000, "collapsed")]


def test_the_first_lines_are_not_judged_however_many_they_are() -> None:
    """Twenty lines of one step each are not yet a training."""
    assert seen([line(s, diversity=0.8 if s < 10 else 0.0) for s in range(1, 90)]) == []


@pytest.mark.parametrize(
    ("objective", "values", "won"),
    [
        ("non_saturating", {"loss_d": 0.02}, True),
        ("non_saturating", {"loss_d": 0.2}, False),
        ("least_squares", {"loss_d": 0.004}, True),
        ("relativistic", {"loss_d": 0.01}, True),
        ("hinge", {"loss_d": 0.02}, False),  # beyond its hinge it is certain by design
        ("hinge", {"loss_d": 0.0}, True),
        ("wasserstein", {"loss_d": -40.0}, False),  # a critic that tells every pair is a good one
        ("wasserstein", {"loss_d": -40.0, "gradient_g": 1e-5}, True),
    ],
)
def test_a_discriminator_has_won_where_it_is_certain_for_long(
    objective: str, values: dict[str, Any], won: bool
) -> None:
    settings = settings_with(recipe_from_name("dcgan").defaults, {"objective": objective})
    lines = [line(s) if s < 100 else line(s, d_accuracy=1.0, **values) for s in range(10, 1500, 10)]
    found = seen(lines, settings)
    assert [name for _, name in found] == (["discriminator-won"] if won else [])
    assert all(step > 400 for step, _ in found)


def test_a_smoothed_target_moves_the_floor() -> None:
    settings = settings_with(recipe_from_name("dcgan").defaults, {"real_label": 0.9})
    floor = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    certain = [line(s, d_accuracy=1.0, loss_d=floor + 0.005) for s in range(10, 1500, 10)]
    assert [name for _, name in seen(certain, settings)] == ["discriminator-won"]


def test_exploding_gradients_are_a_hundredfold_of_the_first() -> None:
    grows = [line(s, gradient_d=2.0 * 1.01 ** (s / 2)) for s in range(10, 2000, 10)]
    assert [name for _, name in seen(grows)] == ["exploding"]
    assert seen([line(s, gradient_d=2.0 + s / 100) for s in range(10, 2000, 10)]) == []


def scored(step: int, **figures: float) -> dict[str, Any]:
    return line(step, metrics={f"{name}[space]": value for name, value in figures.items()})


def test_modes_are_missing_where_what_is_drawn_is_good_and_they_are_not_there() -> None:
    settings = settings_with(recipe_from_name("toy").defaults, {"steps": 4000})

    def run(*found: tuple[float, float]) -> list[str]:
        lines = [scored(500 * (k + 1), modes_found=m, high_quality=q) for k, (m, q) in enumerate(found)]
        return [name for _, name in seen(lines, settings, modes=8)]

    assert run(*[(3, 0.9)] * 8) == ["modes-missing"]
    assert run(*[(7, 0.9)] * 8) == []
    # Nothing is drawn well: no mode is missing more than another, until it is late for that.
    assert run(*[(6, 0.2)] * 2, *[(3, 0.2)] * 2) == []
    assert run(*[(3, 0.2)] * 8) == ["modes-missing"]
    assert run((1, 0.9), (3, 0.9), (5, 0.9), (8, 0.9)) == []  # on the way
    assert run((8, 0.9), (8, 0.9), (4, 0.9), (8, 0.9)) == []  # one score
    assert run((8, 0.9), (4, 0.9), (4, 0.9)) == ["modes-missing"]
    # Of a judge: classes that are dropped.
    lines = [scored(500 * k, dropped_classes=4, quality=0.8, fid=3.0) for k in range(1, 8)]
    assert [name for _, name in seen(lines, settings, modes=10)] == ["modes-missing"]
    assert seen(lines, settings) == []


def test_past_its_best_is_three_scores_that_are_far_worse() -> None:
    def run(values: list[float], **words: Any) -> list[tuple[int, str]]:
        return seen([scored(1000 * (k + 1), fid=v, coverage=v) for k, v in enumerate(values)], **words)

    assert run([9.0, 4.0, 2.0, 3.5, 4.0, 5.0]) == [(6000, "past-its-best")]
    assert run([9.0, 4.0, 2.0, 3.5, 2.2, 5.0]) == []
    assert run([2.0, 2.5, 2.8, 2.9]) == []
    assert run([0.2, 0.9, 0.5, 0.4, 0.3], metric="coverage", lower=False) == [(5000, "past-its-best")]
    assert run([0.2, 0.9, 0.95], metric="coverage", lower=False) == []


def test_divergence_is_a_finding() -> None:
    diagnosis = Diagnosis(recipe_from_name("wgan").defaults)
    finding = diagnosis.diverged(7, "the generator's loss is nan at step 7")
    assert diagnosis.now == (finding,)
    assert finding.to_json()["what"] == "The training has diverged: the generator's loss is nan at step 7"
    assert not Change()


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_remedy_is_a_setting_that_the_recipe_has(recipe: str) -> None:
    """What is proposed can be typed, and changes what the run had."""
    defaults = recipe_from_name(recipe).defaults
    known = {f.name for f in fields(defaults)}
    bad = [
        [line(s, diversity=0.02) for s in range(10, 1100, 10)],
        [line(s, d_accuracy=1.0, loss_d=-1.0, gradient_g=1.0 if s < 100 else 1e-6) for s in range(10, 900, 10)],
        [line(s, d_accuracy=0.5) for s in range(10, 600, 10)],
        [line(s, gradient_g=1e5 if s > 400 else 1.0) for s in range(10, 1000, 10)],
        [scored(1000 * k, fid=float(k), quality=1.0, dropped_classes=9.0) for k in range(1, 9)],
    ]
    found = set()
    for lines in bad:
        diagnosis = Diagnosis(replace(defaults, clip=0.0), modes=10)
        findings = [finding for entry in lines for finding in diagnosis.see(entry).began]
        for finding in (*findings, diagnosis.diverged(5, "a weight is no longer finite at step 5")):
            found.add(finding.name)
            assert finding.remedies
            for remedy in finding.remedies:
                settings = re.findall(r"--set (\S+=\S+?)[,.;]?(?=\s|$)", remedy)
                assert {setting.partition("=")[0] for setting in settings} <= known, remedy
                settings_with(defaults, changes_from_arguments(settings))
    assert found == {
        "collapsed", "discriminator-won", "discriminator-idle", "exploding", "modes-missing", "past-its-best",
        "diverged",
    }  # fmt: skip


def test_guessing_has_a_score_where_the_objective_has_a_value_for_it() -> None:
    defaults = recipe_from_name("dcgan").defaults
    assert guessing_score(defaults) == pytest.approx(-2 * math.log(2))
    assert guessing_score(settings_with(defaults, {"objective": "wasserstein"})) is None
