"""Golden samples: there and back, the same on every machine, and nothing hostile taken for them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_generator import SIZE, evaluate_of, images_of, numpy_spec

from ganexport.golden import ELEMENTS, SEED, GoldenSamples, _positions, golden_from_reference
from ganexport.parity import ParityMeter
from ganruntime import noise
from ganruntime.bundle.npz import arrays_from_npz
from ganruntime.errors import BundleIntegrityError
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector

Arrays = dict[str, NDArray[np.generic]]
SPEC = numpy_spec()
LATENTS = 70


@pytest.fixture(scope="module")
def golden() -> GoldenSamples:
    return golden_from_reference(SPEC, evaluate_of(SPEC), latents=LATENTS)


def arrays_of(golden: GoldenSamples) -> Arrays:
    return arrays_from_npz(golden.to_bytes(), "golden.npz")


def large_spec() -> GeneratorSpec:
    """More elements than are kept of one, fewer of the other."""
    outputs = (
        TensorSpec("image", "float32", (3, 40, 40), Image()),
        TensorSpec("code", "float32", (5,), Vector()),
    )
    return GeneratorSpec("large", (TensorSpec("z", "float32", (4,), Latent()),), outputs)


def large_evaluate(inputs: Arrays) -> Arrays:
    z = np.asarray(inputs["z"], np.float32)
    ramp = np.arange(4800, dtype=np.float32).reshape(3, 40, 40) / 4800
    return {"image": np.tanh(z[:, :1, None, None] + ramp), "code": np.repeat(z[:, :1], 5, axis=1)}


def test_samples_come_back_as_they_were(golden: GoldenSamples) -> None:
    again = GoldenSamples.from_arrays(arrays_of(golden), SPEC)
    assert again.latents == LATENTS
    for name in ("inputs", "whole", "elements", "positions"):
        before, after = getattr(golden, name), getattr(again, name)
        assert before.keys() == after.keys()
        for key in before:
            np.testing.assert_array_equal(before[key], after[key])
            assert before[key].dtype == after[key].dtype
    assert again.to_bytes() == golden.to_bytes()


def test_the_file_does_not_say_when_it_was_written(golden: GoldenSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    now = golden.to_bytes()
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert golden.to_bytes() == now


def test_samples_are_those_of_the_seed_and_the_reference(golden: GoldenSamples) -> None:
    z = noise.latents(SPEC.inputs[0], SEED, 0, LATENTS)
    np.testing.assert_array_equal(golden.inputs["z"], z)
    right = images_of(z)
    assert 16 <= len(golden.whole["image"]) <= 64
    np.testing.assert_array_equal(golden.whole["image"], right[: len(golden.whole["image"])])
    np.testing.assert_array_equal(golden.elements["image"], right.reshape(LATENTS, -1))


def test_of_a_large_output_elements_are_chosen_and_of_a_small_one_all_kept() -> None:
    spec = large_spec()
    golden = golden_from_reference(spec, large_evaluate, latents=LATENTS)
    right = large_evaluate({"z": noise.latents(spec.inputs[0], SEED, 0, LATENTS)})
    kept = golden.positions["image"]
    assert len(kept) == len(set(kept.tolist())) == ELEMENTS
    assert list(kept) == sorted(kept)
    np.testing.assert_array_equal(golden.elements["image"], right["image"].reshape(LATENTS, -1)[:, kept])
    np.testing.assert_array_equal(golden.positions["code"], np.arange(5))
    # Spread over the whole picture: every quarter of it holds about a quarter of the positions.
    quarters = np.histogram(kept, 4, (0, 4800))[0]
    assert quarters.min() > ELEMENTS / 4 * 0.8


def test_positions_are_the_same_for_ever() -> None:
    """Pinned: bundles of today are read by every release to come."""
    image = large_spec().outputs[0]
    positions = _positions(image, SEED)
    assert positions.dtype == np.int64
    assert hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest() == PINNED_POSITIONS
    np.testing.assert_array_equal(positions, _positions(image, SEED))
    assert not np.array_equal(positions, _positions(image, SEED + 1))
    other = TensorSpec("mask", "float32", image.shape, Vector())
    assert not np.array_equal(positions, _positions(other, SEED))


PINNED_POSITIONS = "22cc30c4bb33a6c8bb384e145c4b64c5b355cfa1ba7780df214997e77862b2fc"


def test_samples_do_not_depend_on_how_the_reference_was_batched(golden: GoldenSamples) -> None:
    sizes: list[int] = []

    def evaluate(inputs: Arrays) -> Arrays:
        sizes.append(len(inputs["z"]))
        return evaluate_of(SPEC)(inputs)

    assert golden_from_reference(SPEC, evaluate, latents=LATENTS).to_bytes() == golden.to_bytes()
    assert sizes == [64, 6]
    fewer = golden_from_reference(SPEC, evaluate, latents=3)
    np.testing.assert_array_equal(fewer.elements["image"], golden.elements["image"][:3])
    assert len(fewer.whole["image"]) == 3


def test_rows_and_comparison_go_round_together(golden: GoldenSamples) -> None:
    rows = golden.rows(LATENTS - 2, 5)
    np.testing.assert_array_equal(rows["z"], golden.inputs["z"][[LATENTS - 2, LATENTS - 1, 0, 1, 2]])
    meter = ParityMeter(SPEC.outputs[0])
    golden.compare({"image": meter}, {"image": images_of(np.asarray(rows["z"]))}, LATENTS - 2)
    assert meter.samples == 5
    assert meter.errors().max_abs == 0.0
    golden.compare({"image": meter}, {"image": images_of(np.asarray(rows["z"]))}, LATENTS - 1)
    assert meter.errors().max_abs > 0.1


def without(key: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {k: v for k, v in arrays.items() if k != key}


def changed(key: str, change: Callable[[NDArray[np.generic]], object]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {key: np.asarray(change(arrays[key]))}


LAST = 3 * SIZE * SIZE
HOSTILE: dict[str, Callable[[Arrays], Arrays]] = {
    "nothing": lambda arrays: {},
    "no inputs": without("input.z"),
    "no whole outputs": without("output.image"),
    "no elements": without("elements.image"),
    "no positions": without("positions.image"),
    "an output too many": lambda arrays: arrays | {"output.mask": arrays["output.image"]},
    "an input too many": lambda arrays: arrays | {"input.label": np.zeros(LATENTS, np.int64)},
    "an array that is not known": lambda arrays: arrays | {"surprise": np.zeros(3)},
    "a position too large": changed("positions.image", lambda p: np.append(p[:-1], LAST)),
    "a negative position": changed("positions.image", lambda p: np.append(p[:-1], -1)),
    "a position that wraps": changed("positions.image", lambda p: np.append(p[:-1].astype(np.uint64), 2**64 - 1)),
    "fractional positions": changed("positions.image", lambda p: p + 0.25),
    "positions that are not numbers": changed("positions.image", lambda p: np.full(p.shape, np.nan)),
    "no position at all": lambda arrays: (
        arrays | {"positions.image": np.zeros(0, np.int64), "elements.image": np.zeros((LATENTS, 0), np.float32)}
    ),
    "positions in two dimensions": changed("positions.image", lambda p: p[None]),
    "one position for all": changed("positions.image", lambda p: p[0]),
    "fewer positions than elements": changed("positions.image", lambda p: p[:-1]),
    "another latent size": changed("input.z", lambda z: z[:, :-1]),
    "latents in float64": changed("input.z", lambda z: z.astype(np.float64)),
    "elements in float64": changed("elements.image", lambda e: e.astype(np.float64)),
    "whole outputs in integers": changed("output.image", lambda w: w.astype(np.int32)),
    "fewer latents than elements": changed("input.z", lambda z: z[:-1]),
    "fewer elements than latents": changed("elements.image", lambda e: e[:-1]),
    "no latents": lambda arrays: arrays | {k: arrays[k][:0] for k in ("input.z", "elements.image", "output.image")},
    "no whole output": changed("output.image", lambda w: w[:0]),
    "more whole outputs than latents": changed("output.image", lambda w: np.repeat(w, 3, axis=0)),
    "whole outputs of another size": changed("output.image", lambda w: w[..., :-1]),
    "a scalar for latents": changed("input.z", lambda z: z[0, 0]),
    "a scalar for outputs": changed("output.image", lambda w: w[0, 0, 0, 0]),
    "a scalar for elements": changed("elements.image", lambda e: e[0, 0]),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_arrays_that_do_not_fit_are_refused(golden: GoldenSamples, hostile: Callable[[Arrays], Arrays]) -> None:
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz does not fit the spec") as caught:
        GoldenSamples.from_arrays(hostile(arrays_of(golden)), SPEC)
    assert caught.value.got
    assert "image float32" in str(caught.value.expected)
    assert caught.value.remedy == "export the bundle again"
