"""Latent arithmetic on a generator whose latent is what it shows, so that every share is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from halves_judge import HalvesJudge
from numpy.typing import NDArray

from ganexport.arithmetic import arithmetic, conditions_from_text, judged_sample, wanted_from_terms
from ganruntime.errors import InputError
from ganruntime.spec import Latent, TensorSpec

LATENT = TensorSpec("z", "float32", (12,), Latent())
JUDGE: Any = HalvesJudge()
TERMS = (
    {"left": "light", "right": "dark"},
    {"left": "dark", "right": "dark"},
    {"left": "dark", "right": "light"},
)
SETTINGS: dict[str, Any] = {"exemplars": 8, "trials": 40, "seed": 2}


def draw(z: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
    """Two halves of 4 × 2 pixels, as light as the first two coordinates say."""
    halves = np.clip(127.5 + 60.0 * z[:, :2], 0, 255).astype(np.uint8)  # [N, 2]
    return np.repeat(halves, 2, axis=1)[:, None, :, None] * np.ones((1, 4, 1, 1), np.uint8)


def test_the_result_shows_what_was_meant_and_chance_is_what_it_is() -> None:
    sample = judged_sample(draw, LATENT, JUDGE, seed=1, count=600)
    result = arithmetic(draw, LATENT, JUDGE, sample, TERMS, **SETTINGS)
    assert result.wanted == {"left": "light", "right": "light"}
    assert result.success >= 0.95
    assert 0.18 < result.chance < 0.32  # two signs of normal numbers
    assert result.images.shape == (40, 4, 4, 4, 1)
    for term, column in zip((*TERMS, result.wanted), range(4), strict=True):
        told = JUDGE.describe(result.images[:, column]).probabilities
        for name, value in term.items():
            assert (told[name].argmax(1) == JUDGE.classes[name].index(value)).mean() >= 0.95
    both = JUDGE.describe(result.images[:, 3]).probabilities
    holds = {name: both[name].argmax(1) == 1 for name in both}
    assert result.success == np.mean(holds["left"] & holds["right"])
    assert result.each == {name: held.mean() for name, held in holds.items()}


def test_a_generator_whose_latent_means_nothing_fails() -> None:
    def shuffled(z: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
        return draw(np.sin(1e3 * z).astype(np.float32), first)

    sample = judged_sample(shuffled, LATENT, JUDGE, seed=1, count=600)
    result = arithmetic(shuffled, LATENT, JUDGE, sample, TERMS, **{**SETTINGS, "trials": 100})
    assert result.success < 0.5
    assert abs(result.success - result.chance) < 0.2


def test_the_same_seed_gives_the_same_results_and_every_trial_other_exemplars() -> None:
    sample = judged_sample(draw, LATENT, JUDGE, seed=1, count=300)
    one, two = (arithmetic(draw, LATENT, JUDGE, sample, TERMS, **SETTINGS) for _ in range(2))
    other = arithmetic(draw, LATENT, JUDGE, sample, TERMS, **{**SETTINGS, "seed": 3})
    assert np.array_equal(one.images, two.images)
    assert not np.array_equal(one.images, other.images)
    assert len(np.unique(one.images[:, 0, 0].reshape(40, -1), axis=0)) > 10


def test_exemplars_are_those_of_which_the_judge_is_sure() -> None:
    sample = judged_sample(draw, LATENT, JUDGE, seed=1, count=600)
    for place in sample.where({"left": "light"}, JUDGE.classes):
        assert sample.latents[place, 0] > 0
        assert sample.confidence["left"][place] >= 0.6
    unsure = [k for k in range(600) if sample.told["left"][k] == 1 and sample.confidence["left"][k] < 0.6]
    assert unsure
    assert not set(unsure) & set(sample.where({"left": "light"}, JUDGE.classes).tolist())


def test_noise_of_an_image_is_chosen_by_its_place() -> None:
    firsts: list[int] = []

    def noted(z: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
        firsts.append(first)
        return draw(z, first)

    sample = judged_sample(noted, LATENT, JUDGE, seed=1, count=600)
    arithmetic(noted, LATENT, JUDGE, sample, TERMS, **{**SETTINGS, "trials": 70})
    assert firsts == [0, 256, 512, 600, 856]


def test_too_few_exemplars_is_an_error_that_counts_them() -> None:
    sample = judged_sample(draw, LATENT, JUDGE, seed=1, count=20)
    with pytest.raises(InputError, match="too few of the 20 images drawn show left=light,right=dark"):
        arithmetic(draw, LATENT, JUDGE, sample, TERMS, exemplars=19, trials=1, seed=0)


@pytest.mark.parametrize(
    ("take", "minus", "plus", "wanted"),
    [
        ({"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}),
        ({"a": "1"}, {"a": "2"}, {"a": "2"}, {"a": "1"}),
        ({"a": "1", "b": "x"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"}, {"a": "1", "b": "y"}),
        ({"a": "1"}, {"a": "2"}, {"a": "3"}, None),
        ({"a": "1"}, {"a": "2"}, {"a": "1"}, None),
        ({"a": "1"}, {"a": "1", "b": "x"}, {"a": "1"}, None),
    ],
)
def test_what_is_wanted_follows_from_the_terms_or_is_refused(
    take: dict[str, str], minus: dict[str, str], plus: dict[str, str], wanted: dict[str, str] | None
) -> None:
    if wanted is not None:
        assert wanted_from_terms(take, minus, plus) == wanted
        return
    with pytest.raises(InputError):
        wanted_from_terms(take, minus, plus)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("left", "attribute=class"),
        ("top=dark", "no such attribute"),
        ("left=grey", "no such class"),
        ("left=dark,left=light", "twice"),
    ],
)
def test_a_term_that_cannot_be_read_is_an_error(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        conditions_from_text(text, JUDGE.classes)
    assert conditions_from_text(" left = dark , right=light ", JUDGE.classes) == {"left": "dark", "right": "light"}
