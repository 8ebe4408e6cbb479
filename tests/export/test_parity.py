"""Figures of parity against brute force, and every way to be wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from ganexport.parity import (
    PSNR_CAP_DB,
    Errors,
    ParityMeter,
    bound_for,
    half_range,
    measure,
    problems_of,
    verdict_from,
)
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.spec import Image, Logits, TensorSpec, Vector

IMAGE = TensorSpec("image", "float32", (3, 4, 4), Image())
UNIT = TensorSpec("image", "float32", (3, 4, 4), Image("CHW", (0.0, 1.0)))
VECTOR = TensorSpec("curve", "float32", (3, 4, 4), Vector())
LARGEST = float(np.finfo(np.float32).max)


def images(n: int = 50, seed: int = 0) -> NDArray[np.float32]:
    return np.tanh(np.random.default_rng(seed).standard_normal((n, 3, 4, 4))).astype(np.float32)


def near(reference: NDArray[np.float32], by: float, seed: int = 1) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).uniform(-by, by, reference.shape)
    return (reference + noise).astype(np.float32)


def brute_force(reference: NDArray[np.float32], candidate: NDArray[np.float32], tensor: TensorSpec) -> Errors:
    """Every figure by its definition, all samples at once, without a line of the meter."""
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    difference = np.abs(a - b).reshape(len(a), -1)
    peak = 2 * np.abs(a).max()
    levels = share = 0.0
    if isinstance(tensor.role, Image):
        low, high = tensor.role.range
        peak = high - low
        # In float32, as the runtime draws: near a half the last bit decides.
        gain, offset = np.float32(255 / (high - low)), np.float32(-low * 255 / (high - low))
        pixels = [np.rint(np.clip(x * gain + offset, 0, 255)) for x in (reference, candidate)]
        levels = float(np.abs(pixels[0] - pixels[1]).max())
        share = float((pixels[0] != pixels[1]).mean())
    mse = (difference**2).mean(axis=1).max()
    return Errors(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        psnr_db=min(PSNR_CAP_DB, 10 * math.log10(peak**2 / mse)) if mse else PSNR_CAP_DB,
        max_uint8=levels,
        share_uint8=share,
        diversity=float(b.std(axis=0).mean() / a.std(axis=0).mean()),
        finite=1.0,
        worst_sample=int(difference.max(axis=1).argmax()),
    )


def errors_from(figures: Mapping[str, float]) -> Errors:
    """The figures of a verdict that are `Errors`; a rung may add others."""
    return Errors(**{f.name: figures[f.name] for f in fields(Errors)})  # type: ignore[arg-type]


def assert_equal_figures(found: Errors, expected: Errors) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-15), name


@pytest.mark.parametrize("tensor", [IMAGE, UNIT, VECTOR])
@pytest.mark.parametrize("by", [1e-7, 1e-3, 0.3])
def test_figures_are_those_of_brute_force(tensor: TensorSpec, by: float) -> None:
    reference = images()
    if tensor is UNIT:
        reference = (reference + 1) / 2
    candidate = near(reference, by)
    assert_equal_figures(measure(reference, candidate, tensor), brute_force(reference, candidate, tensor))


def test_psnr_is_that_of_the_worst_sample_with_the_width_of_the_range_as_its_peak() -> None:
    reference = np.full((4, 3, 4, 4), 0.25, np.float32)  # a peak of max(reference) would give 12 dB less
    candidate = reference.copy()
    candidate[2] += 0.125
    errors = measure(reference, candidate, IMAGE)
    assert errors.psnr_db == pytest.approx(10 * math.log10(2.0**2 / 0.125**2))
    assert errors.worst_sample == 2


def test_equal_arrays_are_without_error_and_psnr_is_capped() -> None:
    reference = images()
    errors = measure(reference, reference.copy(), IMAGE)
    assert errors == Errors(0.0, 0.0, PSNR_CAP_DB, 0.0, 0.0, 1.0, 1.0, 0)
    assert problems_of(errors, 1e-5, IMAGE) == []


def test_pixel_levels_are_those_that_the_runtime_draws() -> None:
    reference = images()
    candidate = near(reference, 0.02)
    drawn = [uint8_from_output(x, IMAGE).astype(int) for x in (reference, candidate)]
    errors = measure(reference, candidate, IMAGE)
    assert errors.max_uint8 == np.abs(drawn[0] - drawn[1]).max() >= 2
    assert errors.share_uint8 == pytest.approx((drawn[0] != drawn[1]).mean())


def test_pixels_that_are_uint8_already_are_their_own_levels() -> None:
    tensor = TensorSpec("image", "uint8", (4, 4, 3), Image("HWC", (-1.0, 1.0)))
    reference = np.random.default_rng(0).integers(0, 250, (5, 4, 4, 3)).astype(np.uint8)
    candidate = reference.copy()
    candidate[3, 1, 2, 0] += 5
    errors = measure(reference, candidate, tensor)
    assert (errors.max_uint8, errors.max_abs, errors.worst_sample) == (5.0, 5.0, 3)


WRONG = {
    "nan": np.nan,
    "inf": np.inf,
    "minus inf": -np.inf,
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("side", ["reference", "candidate", "both"])
def test_one_value_that_is_not_finite_fails_on_either_side(value: float, side: str) -> None:
    reference, candidate = images(), images()
    if side != "candidate":
        reference[17, 1, 2, 3] = value
    if side != "reference":
        candidate[17, 1, 2, 3] = value
    errors = measure(reference, candidate, IMAGE)
    assert errors.finite == 0.0
    assert errors.max_abs == LARGEST
    assert errors.worst_sample == 17
    assert any("not finite" in p for p in problems_of(errors, 1e-5, IMAGE))
    assert all(math.isfinite(v) for v in errors.as_figures().values())


def test_nan_in_the_reference_hides_no_other_error() -> None:
    reference, candidate = images(), images()
    reference[3, 0, 0, 0] = np.nan
    candidate[9, 0, 0, 0] += 0.5
    errors = measure(reference[4:], candidate[4:], IMAGE)
    assert errors.max_abs == pytest.approx(0.5)
    meter = ParityMeter(IMAGE)
    meter.add(reference, candidate)
    assert meter.errors().mean_abs > 0.5 / candidate.size
    assert problems_of(meter.errors(), 1e-5, IMAGE)


def test_a_collapsed_generator_fails_by_its_spread_alone() -> None:
    reference = images()
    collapsed = np.broadcast_to(reference.mean(axis=0), reference.shape).astype(np.float32)
    errors = measure(reference, collapsed, IMAGE)
    assert errors.diversity < 1e-6
    assert any("spread over samples is 0.00" in p for p in problems_of(errors, 10.0, IMAGE))
    half = (reference.mean(axis=0) + (reference - reference.mean(axis=0)) / 2).astype(np.float32)
    assert measure(reference, half, IMAGE).diversity == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, -0.7, 1000.3])
def test_a_generator_that_ignores_its_latent_has_no_spread_to_keep(level: float) -> None:
    """Rounding leaves some spread in any sum of squares; a ratio of two such remainders would be anything."""
    reference = np.full((100, 3, 4, 4), level, np.float32)
    candidate = np.nextafter(reference, np.float32(2000))
    candidate[::3] = reference[::3]
    assert measure(reference, candidate, VECTOR).diversity == 1.0


def test_spread_is_not_drowned_in_a_large_mean() -> None:
    noise = np.random.default_rng(0).standard_normal((500, 3, 4, 4))
    reference = 1e6 + noise
    errors = measure(reference, 1e6 + noise / 2, VECTOR)
    assert errors.diversity == pytest.approx(0.5, rel=1e-6)


def test_transposed_layout_and_wrong_range_are_found() -> None:
    reference = images()
    for wrong in (reference.transpose(0, 1, 3, 2), (reference + 1) / 2, -reference, np.roll(reference, 1, axis=0)):
        errors = measure(reference, np.ascontiguousarray(wrong), IMAGE)
        assert_equal_figures(errors, brute_force(reference, wrong, IMAGE))
        problems = problems_of(errors, 1e-5, IMAGE)
        assert any("largest error" in p for p in problems)
        assert any("pixels differ" in p for p in problems)


def test_another_shape_is_an_error_and_not_broadcast() -> None:
    with pytest.raises(InputError, match="'image' has another shape") as caught:
        ParityMeter(IMAGE).add(images(5), images(5)[:, :1])
    assert (caught.value.got, caught.value.expected) == ([5, 1, 4, 4], [5, 3, 4, 4])


def test_nothing_compared_is_no_success() -> None:
    meter = ParityMeter(IMAGE)
    meter.add(images(0), images(0))
    with pytest.raises(InputError, match="nothing of output 'image' was compared"):
        meter.errors()


@settings(max_examples=60, deadline=None)
@given(
    reference=arrays(np.float32, (12, 5), elements=st.floats(-1, 1, width=32)),
    error=arrays(np.float32, (12, 5), elements=st.floats(-0.5, 0.5, width=32)),
    cuts=st.sets(st.integers(1, 11)),
    image=st.booleans(),
)
def test_any_split_of_the_samples_gives_the_same_figures(
    reference: NDArray[np.float32], error: NDArray[np.float32], cuts: set[int], image: bool
) -> None:
    tensor = IMAGE if image else VECTOR
    candidate = (reference + error).astype(np.float32)
    whole = measure(reference, candidate, tensor)
    meter = ParityMeter(tensor)
    edges = [0, *sorted(cuts), 12]
    for start, end in itertools.pairwise(edges):
        meter.add(reference[start:end], candidate[start:end], start)
    for name, value in vars(whole).items():
        assert getattr(meter.errors(), name) == pytest.approx(value, rel=1e-6, abs=1e-12), name
    assert meter.samples == 12
    # What does not come from a sum does not even round.
    for name in ("max_abs", "max_uint8", "share_uint8", "finite", "worst_sample"):
        assert getattr(meter.errors(), name) == getattr(whole, name)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_order_of_samples_does_not_matter(order: list[int]) -> None:
    reference = images(12)
    candidate = near(reference, 0.1)
    whole = measure(reference, candidate, IMAGE)
    meter = ParityMeter(IMAGE)
    for i in order:
        meter.add(reference[i : i + 1], candidate[i : i + 1], i)
    assert_equal_figures(meter.errors(), whole)


def test_bounds_are_in_the_units_of_the_output() -> None:
    assert bound_for("fp32", "cpu", IMAGE, 0.3) == 1e-5
    assert bound_for("fp32", "cpu", UNIT, 0.3) == pytest.approx(0.5e-5)
    assert bound_for("fp32", "cuda:1", IMAGE, 0.3) == 1e-4
    assert bound_for("tf32", "cuda:0", IMAGE, 0.3) == 1e-2
    assert bound_for("fp32", "cpu", VECTOR, 40.0) == pytest.approx(4e-4)
    assert bound_for("fp32", "cpu", TensorSpec("l", "float32", (5,), Logits()), 0.0) > 0
    assert half_range(TensorSpec("p", "float32", (1, 2, 2), Image("CHW", (0.0, 255.0))), 0.1) == 127.5


@pytest.mark.parametrize(("precision", "device"), [("fp16", "cpu"), ("tf32", "cpu"), ("int8", "cuda:0"), ("", "tpu")])
def test_the_bound_of_an_unknown_rung_is_an_error(precision: str, device: str) -> None:
    with pytest.raises(InputError, match="no bound is known") as caught:
        bound_for(precision, device, IMAGE, 1.0)
    assert precision in str(caught.value.got)
    assert "fp32 on cpu" in str(caught.value.expected)


def test_one_level_is_allowed_and_two_are_not() -> None:
    reference = np.full((2, 3, 4, 4), 100 * 2 / 255 - 1, np.float32)
    for levels, allowed in ((1, True), (2, False)):
        errors = measure(reference, reference + np.float32(levels * 2 / 255), IMAGE)
        assert errors.max_uint8 == levels
        assert any("pixels differ" in p for p in problems_of(errors, 1e-5, IMAGE)) is not allowed


@pytest.mark.parametrize(("collapsed", "holds"), [(False, True), (True, False)])
def test_rounding_to_pixels_may_be_most_of_a_small_spread_and_excuses_no_collapse(collapsed: bool, holds: bool) -> None:
    levels = TensorSpec("image", "float32", (1, 4, 4), Image("CHW", (0.0, 255.0)))
    size = 3.0 if collapsed else 0.2  # of the spread, in levels
    reference = np.random.default_rng(0).normal(127.5, size, (400, 1, 4, 4)).astype(np.float32)
    meter = ParityMeter(levels)
    candidate = np.full_like(reference, 127.0) if collapsed else np.rint(reference)
    meter.add(reference, candidate)
    assert not 0.9 < meter.errors().diversity < 1.1
    _, problems = verdict_from(
        {"image": meter},
        precision="fp32",
        backend="onnxruntime",
        device="cpu",
        versions={},
        reference="r",
        latents=400,
        batches=(1,),
        rounding=0.5,
    )
    assert any("spread" in p for p in problems) is not holds


def test_a_verdict_holds_the_figures_of_every_output() -> None:
    good, bad = images(), near(images(), 0.2)
    meters = {"image": ParityMeter(IMAGE), "curve": ParityMeter(VECTOR)}
    meters["image"].add(good, good)
    meters["curve"].add(good, bad)
    verdict, problems = verdict_from(
        meters,
        precision="fp32",
        backend="numpy",
        device="cpu",
        versions={},
        reference="itself",
        latents=50,
        batches=(1, 50),
    )
    assert not verdict.passed
    assert problems
    assert all(p.startswith("curve: ") for p in problems)
    assert verdict.errors["image.max_abs"] == 0.0
    assert verdict.errors["curve.max_abs"] == pytest.approx(brute_force(good, bad, VECTOR).max_abs)
    assert verdict.bound == 1e-5
