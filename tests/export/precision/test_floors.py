"""Floors: what the gate asks of rungs that round, and what it remembers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ganexport.parity import FLOORS, Floors, ParityMeter, floors_of, verdict_from
from ganexport.ssim import ssim_of
from ganruntime.bundle import Variant, Verdict
from ganruntime.spec import Image, TensorSpec, Vector

IMAGE = TensorSpec("image", "float32", (3, 16, 16), Image())
HWC = TensorSpec("image", "float32", (16, 16, 3), Image("HWC"))
VECTOR = TensorSpec("curve", "float32", (3, 16, 16), Vector())


def images(n: int = 20, seed: int = 0) -> NDArray[np.float32]:
    return np.tanh(np.random.default_rng(seed).standard_normal((n, 3, 16, 16))).astype(np.float32)


def with_psnr(reference: NDArray[np.float32], psnr_db: float, sample: int) -> NDArray[np.float32]:
    """The reference with so much even noise in one sample."""
    candidate = reference.copy()
    signs = np.random.default_rng(1).choice([-1, 1], reference.shape[1:])
    candidate[sample] += (2 * 10 ** (-psnr_db / 20) * signs).astype(np.float32)
    return candidate


def verdict(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    precision: str,
    tensor: TensorSpec = IMAGE,
    floors: Floors | None = None,
) -> tuple[Verdict, list[str]]:
    meter = ParityMeter(tensor, structure=True)
    for start in range(0, len(reference), 7):
        meter.add(reference[start : start + 7], candidate[start : start + 7], start)
    return verdict_from(
        {tensor.name: meter},
        precision=precision,
        backend="numpy",
        device="cpu",
        versions={},
        reference="numpy",
        latents=len(reference),
        batches=(7,),
        floors=floors,
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_the_worst_sample_decides(precision: str) -> None:
    reference, floor = images(), FLOORS[precision].psnr_db
    passing, problems = verdict(reference, with_psnr(reference, floor + 0.1, 13), precision)
    assert passing.passed, problems
    assert passing.errors["worst_psnr_sample"] == 13
    assert passing.errors["psnr_db"] == pytest.approx(floor + 0.1, abs=0.01)
    failing, problems = verdict(reference, with_psnr(reference, floor - 0.1, 13), precision)
    assert not failing.passed
    assert "at sample 13" in problems[0]


def test_the_mean_psnr_is_that_of_the_samples() -> None:
    reference = images(4)
    candidate = reference.copy()
    for sample, psnr_db in enumerate((50.0, 60.0, 70.0, 80.0)):
        candidate[sample] = with_psnr(reference, psnr_db, sample)[sample]
    found, _ = verdict(reference, candidate, "int8")
    assert found.errors["mean_psnr_db"] == pytest.approx(65.0, abs=0.05)
    assert found.errors["psnr_db"] == pytest.approx(50.0, abs=0.01)
    same, _ = verdict(reference, reference.copy(), "int8")
    assert same.errors["mean_psnr_db"] == same.errors["psnr_db"] == 200.0


def test_ssim_is_that_of_whole_images_in_either_layout() -> None:
    reference = images()
    candidate = with_psnr(reference, 35.0, 4)
    expected = ssim_of(reference, candidate, -1.0, 1.0)
    for tensor, turned in ((IMAGE, (0, 1, 2, 3)), (HWC, (0, 2, 3, 1))):
        found, _ = verdict(reference.transpose(turned), candidate.transpose(turned), "int8", tensor)
        assert found.errors["ssim"] == pytest.approx(expected.min())
        assert found.errors["mean_ssim"] == pytest.approx(expected.mean())


def test_a_fault_in_one_place_fails_though_the_mean_hides_it() -> None:
    reference = images(40)
    candidate = reference.copy()
    candidate[5, 1, 3, 3] += np.float32(0.06)  # 7.65 levels in 1 of 768 pixels: a PSNR of 59 dB
    found, problems = verdict(reference, candidate, "fp16")
    assert found.errors["psnr_db"] > FLOORS["fp16"].psnr_db
    assert any("levels" in p for p in problems)
    assert not found.passed


def test_a_collapsed_candidate_and_one_that_is_not_finite_fail() -> None:
    reference = images()
    _, problems = verdict(reference, np.repeat(reference[:1], len(reference), axis=0), "int8", floors=Floors(0, 0, 255))
    assert any("spread" in p for p in problems)
    candidate = reference.copy()
    candidate[9, 0, 0, 0] = np.inf
    found, problems = verdict(reference, candidate, "int8", floors=Floors(0, 0, 255))
    assert any("not finite" in p for p in problems)
    assert found.errors["worst_sample"] == 9


def test_other_outputs_are_held_to_their_peak_and_have_no_ssim() -> None:
    reference = images() * np.float32(100)
    candidate = reference + np.float32(0.1)
    found, problems = verdict(reference, candidate, "int8", VECTOR)
    assert problems == []
    assert "ssim" not in found.errors
    assert found.errors["psnr_db"] == pytest.approx(20 * np.log10(2 * np.abs(reference).max() / 0.1), abs=0.05)


def test_floors_that_were_asked_for_are_remembered_by_the_variant() -> None:
    reference = images()
    asked = Floors(psnr_db=30.0, ssim=0.5, levels=200.0)
    found, problems = verdict(reference, with_psnr(reference, 33.0, 2), "int8", floors=asked)
    assert problems == []
    variant = Variant("int8", "int8", "onnx", "model.int8.onnx")
    assert floors_of(variant) == FLOORS["int8"]
    assert floors_of(variant.with_verdict(found)) == asked
    assert floors_of(replace(variant, precision="fp32", name="fp32")) is None


def test_samples_that_were_compared_in_part_are_held_to_three_decibels_less() -> None:
    reference = images().reshape(20, -1)[:, :100]
    for psnr_db, passes in ((38.0, True), (36.0, False)):
        candidate = reference.copy()
        candidate[3] += np.float32(2 * 10 ** (-psnr_db / 20))
        found, _ = verdict(reference, candidate, "int8")
        assert found.passed is passes
        assert "ssim" not in found.errors
