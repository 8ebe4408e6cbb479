"""The digit judge is right about real digits, and unsure of what is no digit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ganruntime.errors import InputError
from gantrain.data.digits import digits
from gantrain.metrics.digit_judge import DigitJudge


@pytest.fixture(scope="module")
def judge() -> DigitJudge:
    return DigitJudge.fit(0, 32)


@pytest.mark.parametrize(("seed", "size"), [(1, 32), (2, 16), (3, 64)])
def test_it_knows_digits_that_it_has_not_seen(seed: int, size: int) -> None:
    started = time.monotonic()
    judge = DigitJudge.fit(seed, size)
    assert time.monotonic() - started < 30
    assert judge.held_out_accuracy >= 0.97
    assert 0.9 < judge.held_out_confidence < 0.995


def test_real_digits_score_evenly_and_high(judge: DigitJudge) -> None:
    score = judge.score(digits(32).images[:1000])
    assert sum(score.counts) == 1000
    assert sum(score.shares) == pytest.approx(1.0)
    assert score.digits_found == 10
    assert max(score.shares) < 0.12
    assert score.mean_confidence > 0.9


def test_one_digit_scores_as_one(judge: DigitJudge) -> None:
    source = digits(32)
    score = judge.score(source.images[source.labels["digit"] == 4])
    assert score.shares[4] > 0.98


def test_what_is_no_digit_gets_little_confidence(judge: DigitJudge) -> None:
    rng = np.random.default_rng(0)
    real = digits(32).images
    noise = rng.integers(0, 256, (200, 32, 32, 1), dtype=np.uint8)
    scrambled = rng.permuted(real[:200].reshape(200, -1), axis=1).reshape(200, 32, 32, 1)
    blends = ((real[:200].astype(int) + real[200:400]) // 2).astype(np.uint8)
    for name, images, most in (
        ("noise", noise, 0.1),
        ("scrambled", scrambled, 0.1),
        ("black", np.zeros((2, 32, 32, 1), np.uint8), 0.3),
        ("white", np.full((2, 32, 32, 1), 255, np.uint8), 0.3),
        ("mirrored", real[:200, :, ::-1], 0.65),
        ("blends", blends, 0.8),
    ):
        assert judge.score(images).mean_confidence < most, name


def test_it_is_deterministic(judge: DigitJudge) -> None:
    images = digits(32).images[:50]
    np.testing.assert_array_equal(DigitJudge.fit(0, 32).probabilities(images), judge.probabilities(images))


@pytest.mark.parametrize(
    "images", [np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 1)), np.zeros((0, 32, 32, 1), np.uint8)]
)
def test_other_images_are_refused(judge: DigitJudge, images: np.ndarray) -> None:
    with pytest.raises(InputError):
        judge.score(images)
