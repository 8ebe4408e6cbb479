"""Real samples under wrong labels: which labels they are given, and what the discriminator pays for taking them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import TINY_RECIPES

from ganruntime.errors import InputError
from gantrain.batches import Batches
from gantrain.data import order
from gantrain.data.source import ImageSource
from gantrain.loop import train
from gantrain.objectives import OBJECTIVES, objective_from_name
from gantrain.plan import new_plan
from gantrain.start import fresh_state, spec_of
from gantrain.steps import Steps

NOTHING: dict[str, Any] = {"steps": None, "seed": 5, "threads": 1, "device": None}
# Nothing moves, and no pass changes what the next one sees, so that losses can be compared.
STILL = {"generator_lr": 0.0, "discriminator_lr": 0.0, "batch_norm": False}


@given(
    st.integers(0, 2**32),
    st.integers(0, 2**40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(2, 100_000),
)
def test_a_mismatch_is_never_the_class_itself_and_any_split_gives_the_same(
    seed: int, first: int, left: int, right: int, classes: int
) -> None:
    turns = order.mismatches(seed, first, left + right, classes)
    assert turns.dtype == np.int64
    assert turns.min() >= 1
    assert turns.max() < classes
    parts = order.mismatches(seed, first, left, classes), order.mismatches(seed, first + left, right, classes)
    assert np.array_equal(np.concatenate(parts), turns)


def test_every_wrong_class_is_as_likely() -> None:
    turns = order.mismatches(3, 0, 40_000, 5)
    shares = np.bincount(turns, minlength=5) / len(turns)
    assert shares[0] == 0
    assert np.abs(shares[1:] - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / len(turns))  # four standard errors
    assert not np.array_equal(turns, order.mismatches(4, 0, 40_000, 5))


def test_mismatches_are_pinned() -> None:
    """A resumed run goes on with those that it was begun with, whatever the release."""
    assert order.mismatches(7, 5, 12, 10).tolist() == [1, 6, 7, 9, 8, 6, 4, 6, 5, 3, 4, 2]


def test_labels_are_wrong_and_of_the_data() -> None:
    plan = new_plan("cgan", "digits", Path("nowhere"), TINY_RECIPES["cgan"][1] | {"batch": 64}, **NOTHING)
    batches = Batches(plan, spec_of(plan, fresh_state(plan)).inputs[0])
    _, labels = batches.real(128)
    (wrong,) = batches.mismatched(128, labels)
    assert wrong.dtype == torch.int64
    assert bool((wrong != labels[0]).all())
    assert set(wrong.tolist()) == set(range(10))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_the_share_of_real_samples_under_wrong_labels_and_the_rest_of_generated_ones(
    one_thread: None, objective: str
) -> None:
    """Of logits that are asked of the very same discriminator."""
    data, small = TINY_RECIPES["cgan"]
    plan = new_plan("cgan", data, Path("nowhere"), small | STILL | {"objective": objective}, **NOTHING)
    assert plan.settings.mismatched == 0.4
    torch.manual_seed(5)
    state = fresh_state(plan)
    steps = Steps(plan, state)
    judged = steps.discriminator(0, last=True)
    batches = steps._batches
    images, labels = batches.real(0)
    with torch.no_grad():
        wrong = state.discriminator(images, *batches.mismatched(0, labels))
    real, fake = judged.logits
    loss = objective_from_name(objective).discriminator_loss
    expected = 0.6 * loss(real, fake, 1.0) + 0.4 * loss(real, wrong, 1.0)
    torch.testing.assert_close(judged.loss, expected)
    assert not torch.allclose(wrong, real)  # otherwise the labels would say nothing


def test_data_of_a_single_class_has_no_wrong_label(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), dtype=np.uint8)
    source = ImageSource("alike", images, {"kind": np.zeros(20, np.int64)})
    with pytest.raises(InputError, match="a single class"):
        train("cgan", source, tmp_path / "run", steps=1, settings=TINY_RECIPES["cgan"][1] | {"images": 0})
    assert not (tmp_path / "run").exists()
