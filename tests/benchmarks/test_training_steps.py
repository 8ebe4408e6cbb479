"""The benchmark of training steps: the plain loops train as ours do, and a loop that does not is found out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import training_agreement
from plain_loops import PLAIN_STEPS, Feed, Losses, Plain
from training_agreement import Agreement, agreement
from training_steps import EXTRAS, Enough, Turns, cells

from gantrain.progress import StepReport
from gantrain.recipes import RECIPES, recipe_from_name

SMALL: dict[str, Any] = {"size": 16, "images": 50, "batch": 8, "z_size": 6, "sample_images": 4}
# In a batch of 8 a unit of the toy's D is so near its kink that one pass and two round it to either side.
VECTORS: dict[str, Any] = {"batch": 16, "sample_images": 4}


def small(recipe: str) -> dict[str, Any]:
    """The least of a recipe with all of its parts."""
    defaults = recipe_from_name(recipe).defaults
    changes = VECTORS if recipe_from_name(recipe).kind == "vector" else SMALL
    narrow = {"width": 8, "discriminator_width": 8, "max_width": 8, "w_size": 6}
    return changes | {name: value for name, value in narrow.items() if hasattr(defaults, name)}


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_plain_loop_trains_as_ours_does(recipe: str, tmp_path: Path) -> None:
    agreed = agreement(recipe, tmp_path, torch.get_num_threads(), small(recipe))
    assert agreed.holds(), agreed


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [("wgan-gp", "gradient_penalty"), ("progressive", "drift"), ("r3gan", "r2"), ("wgan", "clip")],
)
def test_a_plain_loop_without_a_part_is_found_out(
    recipe: str, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PLAIN_STEPS[recipe]

    def lacking(plain: Plain, feed: Feed) -> Losses:
        object.__setattr__(plain.s, setting, 0.0)
        return step(plain, feed)

    monkeypatch.setitem(training_agreement.PLAIN_STEPS, recipe, lacking)
    changes = small(recipe) | ({"drift": 1.0} if setting == "drift" else {})
    agreed = agreement(recipe, tmp_path, torch.get_num_threads(), changes)
    assert not agreed.holds(), agreed


def test_agreement_has_bounds() -> None:
    assert Agreement(1e-6, 0.1).holds()
    assert not Agreement(1e-2, 0.1).holds()
    assert not Agreement(1e-6, 0.5).holds()


def test_turns_are_whole_periods_and_leave_out_what_is_not_a_step() -> None:
    """A clock that our steps move by 2 and the others' by 1, a step after a sample sheet by 100."""
    now = 0.0
    calls = {"a": 0, "b": 0}

    def other(name: str) -> Losses:
        nonlocal now
        now += 1.0
        calls[name] += 1
        return torch.zeros(()), torch.zeros(())

    def train() -> None:
        nonlocal now
        for step in range(1, 10_000):
            now += 100.0 if step - 1 in (0, 100, 300) else 2.0
            turns(StepReport(step, 10_000, step, 0.1, 0.1, 0.5, 0.5, 0.5, 1.0, 1.0))

    turns = Turns(
        {"a": lambda: other("a"), "b": lambda: other("b")},
        rounds=5, period=10, slice_seconds=65.0, clock=lambda: now,
    )  # fmt: skip
    with pytest.raises(Enough):
        train()
    assert turns.taken == {"ours": [2.0] * 5, "a": [1.0] * 5, "b": [1.0] * 5}
    assert calls == {"a": 3 + 5 * 31, "b": 3 + 5 * 31}  # 65 seconds are 32 steps of ours: three periods


def test_each_ratio_stands_under_who_it_is_to() -> None:
    ratio = {"over_plain": 0.5, "over_tuned": 0.8}
    row: dict[str, Any] = {
        "seconds": {name: {"median": 0.1} for name in ("ours", "plain", "tuned")},
        "aside_share": 0.0,
    }
    row |= {name: {"median": value, "low": value, "high": value} for name, value in ratio.items()}
    row |= {f"{what}_seconds": 0.0 for what in EXTRAS}
    found = cells("dcgan", row, ["plain", "tuned"])
    assert found[4:6] == ["2.00× (2.00 – 2.00)", "1.25× (1.25 – 1.25)"]
