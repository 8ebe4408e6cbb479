"""The gate: negative controls. Each fault must fail it, with the figures that brute force gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_generator import (
    Fault,
    NumpySession,
    evaluate_of,
    images_of,
    numpy_spec,
    perturbed_weights,
    vector_spec,
)
from test_parity import assert_equal_figures, brute_force, errors_from

from ganexport.gate import (
    BATCHES,
    LATENTS,
    PROOF_SEED,
    Finding,
    _ReferenceSamples,
    verdict_against_golden,
    verdict_against_reference,
)
from ganexport.golden import SEED, golden_from_reference
from ganexport.proof_sizes import Proof
from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec

Images = NDArray[np.float32]
SPEC = numpy_spec()


def gated(fault: Fault | None, *, golden: bool = False, latents: int = LATENTS) -> tuple[Finding, NumpySession]:
    session = NumpySession(SPEC, fault)
    evaluate = evaluate_of(SPEC)
    if golden:
        samples = golden_from_reference(SPEC, evaluate, latents=latents)
        return verdict_against_golden(session, samples, "NumPy"), session
    return verdict_against_reference(session, evaluate, "NumPy", latents=latents), session


def latent(index: int, golden: bool) -> Images:
    return noise.latents(SPEC.inputs[0], SEED if golden else PROOF_SEED, index, 1)[0]


def only_sample(index: int, golden: bool, change: float) -> Fault:
    """Wrong in one sample, wherever it turns up."""
    z = latent(index, golden)

    def fault(rows: Images, images: Images) -> Images:
        images[(rows == z).all(axis=1), 2, 5, 1] += np.float32(change)
        return images

    return fault


def only_batch_257(rows: Images, images: Images) -> Images:
    if len(rows) == 257:
        images[:] *= np.float32(0.999)
    return images


def only_one_row_of_64(rows: Images, images: Images) -> Images:
    if len(rows) == 64:
        images[63, 0, 0, 0] += np.float32(1e-4)
    return images


def next_latent(rows: Images, images: Images) -> Images:
    return np.roll(images, -1, axis=0) if len(rows) > 1 else images


FAULTS: dict[str, Fault] = {
    "perturbed weight": lambda z, right: images_of(z, perturbed_weights(1e-3)),
    "transposed layout": lambda z, right: np.ascontiguousarray(right.transpose(0, 1, 3, 2)),
    "channels reversed": lambda z, right: np.ascontiguousarray(right[:, ::-1]),
    "wrong range": lambda z, right: (right + 1) / 2,
    "collapsed": lambda z, right: np.full_like(right, 0.1),
    "collapsed within a batch": lambda z, right: np.broadcast_to(right[:1], right.shape).copy(),
    "in half the batch only": lambda z, right: np.concatenate([right[: -(len(z) // 2) or None], right[: len(z) // 2]]),
    "batch 257 only": only_batch_257,
    "one row of batch 64": only_one_row_of_64,
    "latent order off by one": next_latent,
    "stale output": lambda z, right: np.zeros_like(right),
}


@pytest.mark.parametrize("golden", [False, True], ids=["reference", "golden"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_fails_the_gate_with_the_right_figures(fault: Fault, golden: bool) -> None:
    latents = 260  # a full batch of 257, and one that is filled up
    finding, session = gated(fault, golden=golden, latents=latents)
    assert not finding.verdict.passed
    assert finding.problems
    reference, candidate = np.concatenate(session.references), np.concatenate(session.candidates)
    expected = brute_force(reference, candidate, SPEC.outputs[0])
    found = errors_from(finding.verdict.errors)
    # Indices start anew with every batch size; here they are those of a sample of the seed.
    first = np.abs(reference.astype(float) - candidate).reshape(len(reference), -1).max(axis=1).argmax()
    starts = np.concatenate([np.arange(-(-latents // b) * b) for b in BATCHES])
    assert found.worst_sample == starts[first]
    assert_equal_figures(replace(found, worst_sample=expected.worst_sample), expected)


@pytest.mark.parametrize("golden", [False, True], ids=["reference", "golden"])
@pytest.mark.parametrize("index", [0, 64, LATENTS - 1])
def test_one_wrong_sample_of_a_thousand_fails(index: int, golden: bool) -> None:
    finding, _ = gated(only_sample(index, golden, 3e-5), golden=golden)
    assert not finding.verdict.passed
    assert finding.verdict.errors["worst_sample"] == index
    assert finding.verdict.errors["max_abs"] == pytest.approx(3e-5, rel=0.01)
    assert f"at sample {index}" in finding.problems[0]


@pytest.mark.parametrize("golden", [False, True], ids=["reference", "golden"])
def test_nan_in_one_sample_only_fails(golden: bool) -> None:
    finding, _ = gated(only_sample(411, golden, np.nan), golden=golden)
    assert not finding.verdict.passed
    assert "there are values that are not finite" in finding.problems[0]
    assert finding.verdict.errors["finite"] == 0.0
    assert finding.verdict.errors["worst_sample"] == 411


def test_a_reference_that_is_not_finite_fails_too() -> None:
    z = latent(300, golden=False)

    def evaluate(inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        images = images_of(np.asarray(inputs["z"], np.float32))
        images[(inputs["z"] == z).all(axis=1)] = np.nan
        return {"image": images}

    finding = verdict_against_reference(NumpySession(SPEC), evaluate, "NumPy")
    assert not finding.verdict.passed
    assert finding.verdict.errors["worst_sample"] == 300


@pytest.mark.parametrize("golden", [False, True], ids=["reference", "golden"])
def test_every_row_of_a_batch_is_compared_even_with_fewer_latents(golden: bool) -> None:
    def last_row_of_257(rows: Images, images: Images) -> Images:
        if len(rows) == 257:
            images[256, 0, 0, 0] += np.float32(0.01)
        return images

    finding, _ = gated(last_row_of_257, golden=golden, latents=10)
    assert not finding.verdict.passed
    assert finding.verdict.latents == 10


@pytest.mark.parametrize("golden", [False, True], ids=["reference", "golden"])
def test_a_sound_session_passes_over_all_latents_and_batches(golden: bool) -> None:
    rounding: Fault = lambda z, right: np.nextafter(right, np.float32(2))  # noqa: E731
    finding, session = gated(rounding, golden=golden)
    assert finding.problems == []
    assert finding.verdict.passed
    assert finding.verdict.latents == LATENTS >= 1000
    assert finding.verdict.batches == (1, 2, 3, 64, 257)
    assert set(session.batches) == {1, 2, 3, 64, 257}
    for batch in BATCHES:
        assert sum(b for b in session.batches if b == batch) >= LATENTS
    assert finding.verdict.bound == 1e-5
    assert 0 < finding.verdict.errors["max_abs"] < 1e-6


def test_outputs_without_a_range_are_held_to_their_peak() -> None:
    spec = vector_spec()

    def evaluate(inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        return {"curve": 1000 * images_of(np.asarray(inputs["z"], np.float32))}

    for share, passes in ((2e-6, True), (1e-4, False)):
        fault: Fault = lambda z, right, share=share: 1000 * right * np.float32(1 + share)  # type: ignore[misc]  # noqa: E731
        finding = verdict_against_reference(NumpySession(spec, fault), evaluate, "NumPy", latents=100)
        assert finding.verdict.passed is passes
        assert finding.verdict.bound == pytest.approx(1e-5 * 1000, rel=0.01)
        assert finding.verdict.errors["max_uint8"] == 0.0


def test_a_rung_without_a_bound_is_no_verdict() -> None:
    with pytest.raises(InputError, match="no bound is known"):
        verdict_against_reference(NumpySession(SPEC, precision="tf32"), evaluate_of(SPEC), "NumPy", latents=4)


def test_progress_counts_every_latent_once_per_batch_size() -> None:
    counted: list[int] = []
    verdict_against_reference(
        NumpySession(SPEC), evaluate_of(SPEC), "NumPy", latents=100, batches=(3, 64), progress=counted.append
    )
    assert sum(counted) == 200


def test_reference_samples_are_the_same_wherever_they_are_cut_and_whatever_is_kept() -> None:
    calls: list[int] = []

    def evaluate(inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        calls.append(len(inputs["z"]))
        return evaluate_of(SPEC)(inputs)

    samples = _ReferenceSamples(SPEC, evaluate, 5, Proof(None, 200, BATCHES))
    whole = images_of(noise.latents(SPEC.inputs[0], 5, 0, 300))
    for start, count in ((0, 300), (63, 2), (1, 64), (190, 67), (128, 1)):
        np.testing.assert_array_equal(samples.outputs(start, count)["image"], whole[start : start + count])
    assert len(calls) == 5  # five chunks of 64, each once
    samples._most = 1
    for start in (0, 64, 0):
        np.testing.assert_array_equal(samples.outputs(start, 3)["image"], whole[start : start + 3])


def test_the_reference_computes_no_more_samples_than_small_batches_compare() -> None:
    calls: list[int] = []

    def evaluate(inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        calls.append(len(inputs["z"]))
        return evaluate_of(SPEC)(inputs)

    finding = verdict_against_reference(NumpySession(SPEC), evaluate, "NumPy", latents=8, batches=(1, 3, 8))
    assert calls == [9]  # three batches of 3
    assert (finding.problems, finding.verdict.batches) == ([], (1, 3, 8))


def test_inputs_of_the_gate_are_those_of_its_seed() -> None:
    session = NumpySession(SPEC)
    seen: list[Images] = []

    def spy(rows: Images, images: Images) -> Images:
        seen.append(rows.copy())
        return images

    session.fault = spy
    verdict_against_reference(session, evaluate_of(SPEC), "NumPy", seed=99, latents=10, batches=(4,))
    np.testing.assert_array_equal(np.concatenate(seen), noise.latents(SPEC.inputs[0], 99, 0, 12))


def test_the_spec_of_the_controls_is_one() -> None:
    assert GeneratorSpec.loads(SPEC.dumps()) == SPEC
