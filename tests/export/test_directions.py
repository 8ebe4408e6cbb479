"""Attribute directions on a generator whose latent is what it shows: the direction is known, and so is the strength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from halves_judge import HalvesJudge
from numpy.typing import NDArray

from ganexport.arithmetic import Sample, judged_sample
from ganexport.directions import METHODS, direction_of, move, moved
from ganruntime.errors import InputError
from ganruntime.spec import Latent, TensorSpec

LATENT = TensorSpec("z", "float32", (12,), Latent())
JUDGE: Any = HalvesJudge()


def draw(z: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
    """Two halves of 4 × 2 pixels, as light as the first two coordinates say."""
    halves = np.clip(127.5 + 60.0 * z[:, :2], 0, 255).astype(np.uint8)  # [N, 2]
    return np.repeat(halves, 2, axis=1)[:, None, :, None] * np.ones((1, 4, 1, 1), np.uint8)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return judged_sample(draw, LATENT, JUDGE, seed=1, count=800)


@pytest.mark.parametrize("method", METHODS)
def test_the_direction_of_a_class_is_found(sample: Sample, method: str) -> None:
    for attribute, axis in (("left", 0), ("right", 1)):
        for name, sign in (("light", 1.0), ("dark", -1.0)):
            found = direction_of(sample, JUDGE.classes[attribute], attribute, name, method)
            assert found.vector.dtype == np.float32
            assert np.linalg.norm(found.vector) == pytest.approx(1.0, rel=1e-6)
            assert sign * found.vector[axis] > 0.95
            assert found.accuracy > 0.9
            assert 300 < found.shown < 500


def test_logistic_regression_minimises_what_it_says(sample: Sample) -> None:
    """Its vector against a minimum found by gradient descent in PyTorch, of the loss written out anew."""
    import torch

    shows = sample.told["left"] == 1
    fitted = np.arange(len(shows)) % 4 != 3
    found = direction_of(sample, JUDGE.classes["left"], "left", "light")
    x = torch.from_numpy(sample.latents[fitted]).double()
    y = torch.from_numpy(np.where(shows[fitted], 1.0, -1.0))
    share = float(shows[fitted].mean())
    weight = torch.where(y > 0, 0.5 / share, 0.5 / (1.0 - share))
    normal = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([normal, offset], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = (weight * torch.nn.functional.softplus(-y * (x @ normal + offset))).sum() + 0.5 * normal.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    expected = (normal / normal.norm()).detach().numpy()
    np.testing.assert_allclose(found.vector, expected, atol=1e-4)


def test_a_class_that_the_latent_does_not_hold_is_told_by_chance(sample: Sample) -> None:
    coin = (np.sin(1e4 * sample.latents.sum(axis=1)) > 0).astype(np.int64)
    random = Sample(sample.latents, {"coin": coin}, {"coin": np.ones(len(coin), np.float32)})
    found = direction_of(random, ("tails", "heads"), "coin", "heads")
    assert found.accuracy == pytest.approx(0.5, abs=0.12)


def test_moving_shows_the_class_and_keeps_the_rest(sample: Sample) -> None:
    found = direction_of(sample, JUDGE.classes["left"], "left", "light")
    made = move(draw, LATENT, JUDGE, sample, found, trials=120)
    assert made.success > 0.95
    assert made.kept > 0.85
    assert 1.0 <= made.strength <= 8.0
    assert made.images.shape == (60, 2, 4, 4, 1)
    before, after = (JUDGE.describe(made.images[:, k]).probabilities["left"].argmax(1) for k in (0, 1))
    assert before.max() == 0
    assert after.mean() == made.success


@pytest.mark.parametrize("role", [Latent(), Latent("uniform", 2.0), Latent("ball", 1.5), Latent("sphere", 3.0)])
def test_moved_latents_stay_where_latents_lie(role: Latent) -> None:
    from ganruntime import noise

    tensor = TensorSpec("z", "float32", (12,), role)
    z = noise.latents(tensor, 5, 0, 20)
    vector = np.eye(12, dtype=np.float32)[3]
    there = moved(tensor, z, vector, 4.0)
    assert (there[:, 3] > z[:, 3]).all()
    np.testing.assert_allclose(moved(tensor, z, vector, 0.0), z, rtol=1e-5, atol=1e-6)
    lengths = np.linalg.norm(there, axis=1)
    if role.distribution == "uniform":
        assert np.abs(there).max() <= role.scale
    elif role.distribution == "ball":
        assert lengths.max() <= role.scale * (1 + 1e-6)
    else:
        np.testing.assert_allclose(lengths, np.linalg.norm(z, axis=1), rtol=1e-5)


def test_too_few_images_of_a_class_or_of_the_others_is_an_error() -> None:
    few = judged_sample(draw, LATENT, JUDGE, seed=1, count=30)
    with pytest.raises(InputError, match="there is no direction of left=light"):
        direction_of(few, JUDGE.classes["left"], "left", "light")
    with pytest.raises(InputError, match="no method"):
        direction_of(judged_sample(draw, LATENT, JUDGE, 1, 100), JUDGE.classes["left"], "left", "light", "best")
