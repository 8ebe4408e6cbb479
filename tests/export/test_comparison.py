"""The comparison of two sides: compatibility field by field, bounded chunks, the worst of all chunks, the picture."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from numpy_generator import evaluate_of, images_of, numpy_spec, vector_spec

from ganexport.comparison.comparison import (
    Comparison,
    OutputComparison,
    WorstCase,
    chunk_rows,
    compare,
    comparison_inputs,
    require_picture,
)
from ganexport.comparison.compatibility import differences
from ganexport.comparison.picture import amplification, png_from_comparison
from ganexport.comparison.report import json_from_comparisons, text_from_comparisons
from ganexport.comparison.side import Arrays, Opened, Side
from ganexport.parity import Floors, ParityMeter
from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Noise, Scalar, TensorSpec, Vector

Fault = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


class NumpySide(Side):
    """`images_of(z)`, or what a fault makes of it."""

    def __init__(self, label: str, spec: GeneratorSpec | None = None, fault: Fault | None = None) -> None:
        self.label, self.spec, self._fault = label, spec or numpy_spec(), fault
        self.batches: list[int] = []

    @contextlib.contextmanager
    def opened(self, device: str, batch: int) -> Iterator[Opened]:
        right = evaluate_of(self.spec)

        def run(inputs: Arrays) -> Arrays:
            z = np.asarray(inputs["z"], np.float32)
            self.batches.append(len(z))
            (name, image), *_ = right(inputs).items()
            return {name: image if self._fault is None else self._fault(z, np.asarray(image, np.float32).copy())}

        yield Opened(run, f"numpy on {device}")


def brighter_by_latent(z: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An error that grows with the first number of the latent."""
    return image + np.float32(0.01) * np.abs(z[:, :1, None, None])


def compared(fault: Fault | None, latents: int = 150, spec: GeneratorSpec | None = None, **options: int) -> Comparison:
    return compare(NumpySide("a", spec), NumpySide("b", spec, fault), latents=latents, **options)


@settings(deadline=None, max_examples=30)
@given(latents=st.integers(1, 200), first=st.integers(0, 2**64 - 201), keep=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_worst_are_those_of_all_latents_whatever_the_chunks(latents: int, first: int, keep: int, seed: int) -> None:
    found = compared(brighter_by_latent, latents, first=first, keep=keep, seed=seed).outputs[0]
    z = noise.latents(numpy_spec().inputs[0], seed, first, latents)
    right = images_of(z)
    wrong = brighter_by_latent(z, right.copy())
    mse = np.square(wrong.astype(np.float64) - right).reshape(latents, -1).mean(axis=1)
    order = sorted(range(latents), key=lambda i: (-mse[i], i))[:keep]
    assert [case.index for case in found.worst] == [first + i for i in order]
    for case, i in zip(found.worst, order, strict=True):
        np.testing.assert_array_equal(case.a, right[i])
        np.testing.assert_array_equal(case.b, wrong[i])
        assert case.psnr_db == pytest.approx(10 * np.log10(4 / mse[i]))
    assert found.errors.psnr_db == found.worst[0].psnr_db
    assert found.quality.worst_psnr_sample == found.worst[0].index


def test_of_equal_cases_the_first_is_kept() -> None:
    found = compared(lambda z, image: image + np.float32(0.25), keep=3)
    assert [case.psnr_db for case in found.outputs[0].worst] == pytest.approx([found.outputs[0].worst[0].psnr_db] * 3)
    equal = compared(None, keep=3).outputs[0]
    assert [case.index for case in equal.worst] == [0, 1, 2]
    assert {case.psnr_db for case in equal.worst} == {200.0}


def test_large_outputs_are_run_in_small_chunks() -> None:
    small = numpy_spec()
    assert chunk_rows(small) == 64
    large = replace(small, outputs=(TensorSpec("image", "float32", (3, 1024, 1024), Image()),))
    assert chunk_rows(large) == 1
    middle = replace(small, outputs=(TensorSpec("image", "float32", (3, 256, 256), Image()),))
    assert 1 < chunk_rows(middle) < 64
    a, b = NumpySide("a"), NumpySide("b")
    compare(a, b, latents=150)
    assert a.batches == b.batches == [64, 64, 22]


def test_figures_say_which_side_varies_how_much() -> None:
    found = compared(lambda z, image: image * np.float32(0.5)).outputs[0]
    assert found.spread_b == pytest.approx(found.spread_a / 2, rel=1e-6)
    assert found.errors.diversity == pytest.approx(0.5, rel=1e-6)


def test_limits_are_the_gates_and_only_those_that_were_asked() -> None:
    found = compared(lambda z, image: image * np.float32(0.5))
    assert found.problems(None, None) == []
    assert any("under the floor 60 dB" in p for p in found.problems(None, Floors(60.0, float("-inf"), float("inf"))))
    assert any("the spread over samples is 0.50" in p for p in found.problems(9.0, None))
    assert any("over the bound 0.01" in p for p in found.problems(0.01, None))
    assert compared(None).problems(0.0, Floors(100.0, 0.9, 0.0)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_fails_any_limit_and_is_still_json_and_a_picture(value: float) -> None:
    def broken(z: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32]:
        image[3, 1, 2, 2] = value
        return image

    found = compared(broken, latents=10)
    (output,) = found.outputs
    assert output.worst[0].index == 3
    assert "image: there are values that are not finite" in found.problems(1e30, None)
    lines = text_from_comparisons([found], NumpySide("a"), NumpySide("b")).splitlines()
    assert [line.split() for line in lines if line.startswith("finite")] == [["finite", "NO"]]
    table = json.loads(json.dumps(json_from_comparisons([found], [], None), allow_nan=False))["outputs"]["image"]
    assert (table["finite"], table["worst"][0]["max_abs"]) == (False, None)
    assert PIL.Image.open(io.BytesIO(png_from_comparison(found, output))).size[0] > 0


def test_outputs_that_are_no_images_have_figures_and_no_picture() -> None:
    found = compared(brighter_by_latent, spec=vector_spec()).outputs[0]
    assert (found.tensor.name, found.quality.ssim) == ("curve", None)
    with pytest.raises(InputError, match="draws nothing that a picture can show"):
        require_picture(vector_spec())
    text = text_from_comparisons([compared(brighter_by_latent, spec=vector_spec())], NumpySide("a"), NumpySide("b"))
    assert "pixel" not in text
    assert "curve, the worst:" in text


def test_scalars_have_their_defaults_so_that_the_worst_can_be_drawn_again() -> None:
    inputs = (
        TensorSpec("z", "float32", (4,), Latent()),
        TensorSpec("truncation", "float32", (), Scalar(0.7, (0.0, 1.0))),
        TensorSpec("label", "int64", (), Label(("cat", "dog"))),
        TensorSpec("code", "float32", (4,), Vector()),
    )
    spec = replace(numpy_spec(), inputs=inputs)
    drawn = comparison_inputs(spec, 5, 3, 9)
    assert set(drawn["truncation"].tolist()) == {np.float32(0.7)}
    for name, array in noise.inputs(spec, 5, 3, 9).items():
        np.testing.assert_array_equal(drawn[name], array)
    assert drawn["code"].shape == (9, 4)


Z = TensorSpec("z", "float32", (8,), Latent())
IMAGE = TensorSpec("image", "float32", (3, 6, 6), Image())


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([replace(Z, shape=(9,))], [IMAGE], ["input z: shape is [8] in A and [9] in B"]),
        ([replace(Z, name="w")], [IMAGE], ["input z: only A has it", "input w: only B has it"]),
        ([replace(Z, role=Noise())], [IMAGE], ["input z: role is latent in A and noise in B"]),
        ([replace(Z, role=Latent("uniform"))], [IMAGE], ["role.distribution is normal in A and uniform in B"]),
        ([replace(Z, role=Latent(scale=2.0))], [IMAGE], ["input z: role.scale is 1.0 in A and 2.0 in B"]),
        ([Z], [replace(IMAGE, dtype="float16")], ["output image: dtype is float32 in A and float16 in B"]),
        ([Z], [replace(IMAGE, role=Image("CHW", (0.0, 1.0)))], ["role.range is [-1.0, 1.0] in A and [0.0, 1.0] in B"]),
        ([Z], [IMAGE, replace(IMAGE, name="mask")], ["output mask: only B has it"]),
    ],
)
def test_every_field_that_differs_is_named(
    inputs: list[TensorSpec], outputs: list[TensorSpec], said: list[str]
) -> None:
    a, b = GeneratorSpec("a", (Z,), (IMAGE,)), GeneratorSpec("b", tuple(inputs), tuple(outputs))
    found = list(differences(a, b))
    assert len(found) == len(said)
    assert all(part in whole for part, whole in zip(said, found, strict=True))
    with pytest.raises(InputError, match="a and b cannot be compared") as caught:
        compare(NumpySide("a", a), NumpySide("b", b), latents=1)
    assert said[0] in str(caught.value)


def test_names_provenance_and_order_may_differ() -> None:
    mask = replace(IMAGE, name="mask")
    a, b = GeneratorSpec("a", (Z,), (IMAGE, mask)), GeneratorSpec("b", (Z,), (mask, IMAGE))
    assert list(differences(a, b)) == []


@pytest.mark.parametrize(
    ("largest", "factor"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.21, 2), (0.2, 5), (0.1, 10), (0.0039, 200), (1e-8, 10**8)]
)
def test_the_factor_is_a_round_one_that_shows_the_largest_difference(largest: float, factor: int) -> None:
    assert amplification([np.full((2, 2, 1), largest), np.zeros((2, 2, 1))]) == factor


def test_no_difference_is_not_amplified() -> None:
    assert amplification([np.zeros((4, 4, 1))]) == 1


@pytest.mark.parametrize(("layout", "channels"), [("CHW", 1), ("CHW", 3), ("CHW", 4), ("HWC", 3)])
def test_the_picture_holds_both_images_and_the_amplified_difference(layout: str, channels: int) -> None:
    shape = (channels, 8, 16) if layout == "CHW" else (8, 16, channels)
    tensor = TensorSpec("image", "float32", shape, Image(layout))
    a = np.full(shape, 1.0, np.float32)
    b = a - np.float32(0.098)
    output = output_of(tensor, a, b)
    comparison = Comparison("left.gan:fp32", "right.gan:int8", "here", "there", 7, 100, 1, (output,))
    picture = PIL.Image.open(io.BytesIO(png_from_comparison(comparison, output)))
    pixels = np.asarray(picture)
    # Cells of 16 x 8 are drawn at ten times their size, 4 pixels apart, 20 from the left.
    cells = pixels[-20 - 80 : -20]
    assert np.unique(cells[:, 20 : 20 + 160]).tolist() == [255]
    grey = 242 if channels != 4 else 255 - round((255 - 242) * 242 / 255)
    assert np.unique(cells[:, 184 : 184 + 160]).tolist() in ([grey], [grey - 1], [grey + 1])
    assert np.unique(cells[:, 348 : 348 + 160]).tolist() == [round(0.049 * 20 * 255)]


def output_of(tensor: TensorSpec, a: NDArray[np.float32], b: NDArray[np.float32]) -> OutputComparison:
    meter = ParityMeter(tensor, structure=True)
    meter.add(a[None], b[None], 100)
    case = WorstCase(100, meter.errors().psnr_db, meter.errors().max_abs, a, b)
    return OutputComparison(tensor, meter.errors(), meter.quality(), *meter.spreads, (case,))
