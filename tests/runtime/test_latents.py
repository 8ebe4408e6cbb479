"""Operations on latents: formulas against plain twins, safe near 0 and π, inside the support of every role."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ganruntime import latents, noise
from ganruntime.errors import InputError
from ganruntime.spec import Latent, Scalar, TensorSpec

DISTRIBUTIONS = ("normal", "sphere", "uniform", "ball")
SHAPES = [(2,), (100,), (4, 2, 3)]


def tensor(distribution: str = "normal", shape: tuple[int, ...] = (100,), scale: float = 1.0) -> TensorSpec:
    return TensorSpec("z", "float32", shape, Latent(distribution, scale))


def drawn(spec: TensorSpec, n: int, seed: int = 1, first: int = 0) -> NDArray[np.float32]:
    return noise.latents(spec, seed, first, n)


def lengths(x: NDArray[Any]) -> NDArray[np.float64]:
    return np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)


def assert_in_support(spec: TensorSpec, x: NDArray[np.float32]) -> None:
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    role = spec.role
    assert isinstance(role, Latent)
    flat = x.reshape(-1, spec.size)
    if role.distribution == "uniform":
        assert (flat >= -role.scale).all()
        assert (flat < role.scale).all()
    elif role.distribution == "ball":
        assert lengths(flat).max() <= role.scale * (1 + 1e-6)
    elif role.distribution == "sphere":
        np.testing.assert_allclose(lengths(flat), role.scale, rtol=2e-6)


def slerp_of_the_book(a: NDArray[Any], b: NDArray[Any], t: float) -> NDArray[Any]:
    """Shoemake's formula as it stands, on one vector of unit length."""
    angle = math.acos(float(np.clip(a @ b, -1, 1)))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_slerp_is_the_formula_of_the_book(t: float) -> None:
    a, b = drawn(tensor("sphere"), 2).astype(np.float64)
    np.testing.assert_allclose(latents.slerp(a, b, t), slerp_of_the_book(a, b, t), atol=2e-7)


def test_slerp_turns_evenly_and_changes_length_evenly() -> None:
    a, b = 3.0 * drawn(tensor(), 1)[0], drawn(tensor(), 1, seed=2)[0]
    t = np.linspace(0, 1, 11)
    x = latents.slerp(a, b, t)
    units = x.astype(np.float64) / lengths(x)[:, None]
    angles = np.arccos((units[1:] * units[:-1]).sum(axis=1))
    np.testing.assert_allclose(angles, angles[0], rtol=1e-5)
    np.testing.assert_allclose(lengths(x), (1 - t) * lengths(a[None]) + t * lengths(b[None]), rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-9, 3.1415), st.floats(0, 1), st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_slerp_is_right_at_every_angle(angle: float, t: float, seed: int, length: float) -> None:
    """Held against a rotation in the plane of the two vectors, down to angles that an arc cosine takes for 0."""
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((20, 2)))[0].T
    a, b = length * axes[0], length * (math.cos(angle) * axes[0] + math.sin(angle) * axes[1])
    expected = length * (math.cos(t * angle) * axes[0] + math.sin(t * angle) * axes[1])
    np.testing.assert_allclose(latents.slerp(a, b, t), expected, atol=3e-7 * length + 1e-38)


def test_slerp_of_equal_and_nearly_equal_latents() -> None:
    a = drawn(tensor(), 1)[0]
    np.testing.assert_array_equal(latents.slerp(a, a, 0.0), a)
    np.testing.assert_allclose(latents.slerp(a, a, 0.3), a, rtol=1e-6)
    b = np.nextafter(a, np.float32(np.inf))
    np.testing.assert_allclose(latents.slerp(a, b, 0.5), a, rtol=1e-5)


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
def test_lengths_of_any_size_neither_overflow_nor_vanish(length: float) -> None:
    a, b = (drawn(tensor("sphere"), 2) * np.float32(length)).astype(np.float32)
    x = latents.slerp(a, b, 0.5)
    np.testing.assert_allclose(lengths(x[None]), length, rtol=1e-5)


@pytest.mark.parametrize("factor", [-1.0, -3.0])
def test_opposite_latents_are_refused(factor: float) -> None:
    a = drawn(tensor(), 3)
    with pytest.raises(InputError, match="two latents are opposite") as caught:
        latents.slerp(a, np.float32(factor) * a, 0.5)
    assert "third latent" in str(caught.value.remedy)
    b = -a
    b[:, 0] += 0.01  # a thousandth of its length aside
    assert np.isfinite(latents.slerp(a, b, 0.5)).all()


def test_a_latent_without_direction_is_refused() -> None:
    with pytest.raises(InputError, match="has no direction"):
        latents.slerp(np.zeros(5), np.ones(5), 0.5)
    np.testing.assert_array_equal(latents.lerp(np.zeros(5), np.ones(5), 0.5), np.full(5, 0.5, np.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_batch_is_its_rows(distribution: str, shape: tuple[int, ...]) -> None:
    spec = tensor(distribution, shape)
    a, b = drawn(spec, 6), drawn(spec, 6, seed=2)
    t = np.linspace(0, 1, 6)
    whole = latents.interpolated(spec, a, b, t)
    assert whole.shape == (6, *shape)
    for i in range(6):
        np.testing.assert_array_equal(whole[i], latents.interpolated(spec, a[i], b[i], t[i]))
    one = latents.interpolated(spec, a[0], b[0], t)
    assert one.shape == (6, *shape)
    np.testing.assert_array_equal(one[0], a[0])
    np.testing.assert_array_equal(one[-1], b[0])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DISTRIBUTIONS),
    st.sampled_from(SHAPES),
    st.sampled_from([0.5, 1.0, 10.0]),
    st.integers(0, 2**64 - 1),
    st.floats(0, 1),
)
def test_every_operation_keeps_to_the_support(
    distribution: str, shape: tuple[int, ...], scale: float, seed: int, t: float
) -> None:
    spec = tensor(distribution, shape, scale)
    x = drawn(spec, 4, seed)
    try:
        results = [
            latents.interpolated(spec, x[0], x[1], t)[None],
            latents.averaged(spec, x)[None],
            latents.combined(spec, x[0], x[1], x[2])[None],
            latents.combined(spec, x, x[::-1], x[:1]),
            latents.grid(spec, x, 3, 4).reshape(-1, *shape),
            latents.path(spec, x, 3, closed=True),
        ]
    except InputError as error:  # in two dimensions latents may happen to be opposite, or to cancel out
        if "opposite" not in error.problem and "cancel out" not in error.problem:
            raise
        return
    for result in results:
        assert_in_support(spec, result)


def test_normal_latents_keep_the_length_that_the_network_knows() -> None:
    """The straight line and the plain mean do not: the negative control."""
    spec = tensor("normal", (512,))
    x = drawn(spec, 8)
    typical = math.sqrt(512)
    middle = latents.interpolated(spec, x[0], x[1], 0.5)
    for kept in (middle, latents.averaged(spec, x), latents.combined(spec, x[0], x[1], x[2])):
        assert 0.9 < lengths(kept[None])[0] / typical < 1.1
    for lost in (latents.lerp(x[0], x[1], 0.5), x.mean(axis=0), x[0] - x[1] + x[2]):
        assert not 0.9 < lengths(lost[None])[0] / typical < 1.1


def test_an_average_follows_its_weights() -> None:
    spec = tensor()
    x = drawn(spec, 3)
    np.testing.assert_allclose(latents.averaged(spec, x, [0, 5, 0]), x[1], rtol=1e-6)
    np.testing.assert_allclose(latents.averaged(spec, x), latents.averaged(spec, x, [2, 2, 2]), rtol=1e-6)
    mean = latents.averaged(spec, x, [3, 2, 1]).astype(np.float64)
    direction = (np.array([3, 2, 1]) @ x.astype(np.float64)) / 6
    np.testing.assert_allclose(mean / np.linalg.norm(mean), direction / np.linalg.norm(direction), rtol=1e-5)
    np.testing.assert_allclose(
        latents.averaged(tensor("uniform"), x.clip(-0.9, 0.9)), x.clip(-0.9, 0.9).mean(axis=0), atol=1e-7
    )


def test_arithmetic_goes_where_it_says() -> None:
    spec = tensor()
    a, b, c = drawn(spec, 3)
    np.testing.assert_allclose(latents.combined(spec, a, b, b), a, rtol=1e-5, atol=1e-6)
    result = latents.combined(spec, a, b, c).astype(np.float64)
    plain = a.astype(np.float64) - b + c
    np.testing.assert_allclose(result / np.linalg.norm(result), plain / np.linalg.norm(plain), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(result), np.linalg.norm(a.astype(np.float64)), rtol=1e-6)
    inside = 0.2 * drawn(tensor("uniform"), 3)
    np.testing.assert_allclose(
        latents.combined(tensor("uniform"), *inside), inside[0] - inside[1] + inside[2], atol=1e-7
    )


def test_latents_that_cancel_out_are_refused() -> None:
    a = drawn(tensor(), 1)[0]
    with pytest.raises(InputError, match="cancel out"):
        latents.averaged(tensor(), np.stack([a, -a]))
    with pytest.raises(InputError, match="cancel out"):
        latents.combined(tensor(), a, a + a, a)
    np.testing.assert_array_equal(latents.averaged(tensor("uniform"), np.stack([a, -a])), np.zeros(100))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_grid_has_its_corners(distribution: str) -> None:
    spec = tensor(distribution, (4, 5))
    x = drawn(spec, 4)
    sheet = latents.grid(spec, x, 3, 5)
    assert sheet.shape == (3, 5, 4, 5)
    for corner, found in zip(x, (sheet[0, 0], sheet[0, -1], sheet[-1, 0], sheet[-1, -1]), strict=True):
        np.testing.assert_array_equal(found, corner)
    np.testing.assert_array_equal(sheet[0], latents.interpolated(spec, x[0], x[1], np.linspace(0, 1, 5)))
    np.testing.assert_array_equal(sheet[:, 0], latents.interpolated(spec, x[0], x[2], np.linspace(0, 1, 3)))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("closed", [False, True])
def test_a_path_meets_its_anchors(distribution: str, closed: bool) -> None:
    spec = tensor(distribution)
    x = drawn(spec, 3)
    way = latents.path(spec, x, 4, closed=closed)
    assert len(way) == (12 if closed else 9)
    for i, anchor in enumerate(x):
        np.testing.assert_array_equal(way[4 * i], anchor)
    if closed:
        np.testing.assert_array_equal(way[11], latents.interpolated(spec, x[2], x[0], 0.75))
    steps = lengths(np.diff(np.concatenate([way, way[:1]]) if closed else way, axis=0))
    assert steps.max() < 2 * steps.min()


WRONG: list[tuple[Any, str]] = [
    (lambda s, x: latents.interpolated(s, x[0], x[1], 1.5), "outside"),
    (lambda s, x: latents.interpolated(s, x[0], x[1], float("nan")), "outside"),
    (lambda s, x: latents.interpolated(s, x[0, :5], x[1], 0.5), "not latents of 'z'"),
    (lambda s, x: latents.interpolated(s, x[:2], x[:3], 0.5), "do not fit each other"),
    (lambda s, x: latents.interpolated(s, x[:3], x[:3], [0.1, 0.2]), "do not fit each other"),
    (lambda s, x: latents.interpolated(s, x[0] * np.inf, x[1], 0.5), "not finite"),
    (lambda s, x: latents.interpolated(s, "latent", x[1], 0.5), "not an array of numbers"),
    (lambda s, x: latents.averaged(s, x[0]), "no latents to average"),
    (lambda s, x: latents.averaged(s, x[:0]), "no latents to average"),
    (lambda s, x: latents.averaged(s, x, [1, 2]), "weights do not fit"),
    (lambda s, x: latents.averaged(s, x[:2], [1, -1]), "weights do not fit"),
    (lambda s, x: latents.averaged(s, x[:2], [0, 0]), "weights do not fit"),
    (lambda s, x: latents.grid(s, x[:3], 2, 2), "four corners"),
    (lambda s, x: latents.grid(s, x[:4], 1, 2), "too few rows"),
    (lambda s, x: latents.grid(s, x[:4], 2, True), "too few columns"),
    (lambda s, x: latents.path(s, x[:1], 4), "two anchors"),
    (lambda s, x: latents.path(s, x, 0), "one step"),
    (lambda s, x: latents.averaged(TensorSpec("psi", "float32", (), Scalar()), x), "is not a latent"),
]


@pytest.mark.parametrize(("work", "problem"), WRONG, ids=[f"{i} {p}" for i, (_, p) in enumerate(WRONG)])
def test_what_does_not_fit_is_refused(work: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        work(tensor(), drawn(tensor(), 5))


def test_nothing_that_was_given_is_written_to() -> None:
    spec = tensor()
    x = drawn(spec, 4)
    x.flags.writeable = False
    before = x.copy()
    latents.grid(spec, x, 3, 3)
    latents.path(spec, x, 3)
    latents.averaged(spec, x)
    latents.combined(spec, x[0], x[1], x[2])
    np.testing.assert_array_equal(x, before)
