"""Parity: how far a candidate's outputs are from the reference's, in the output's own range and as pixels.

Needs NumPy only: an engine is proven on the machine that will serve it, where there is no torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle import Verdict
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.spec import Image, TensorSpec

PSNR_CAP_DB = 200.0  # exact equality has no finite PSNR, and JSON no infinity; float32 rounding alone is near 150
DIVERSITY_BOUNDS = (0.9, 1.1)

# Largest absolute error, as a share of half the output's range (so of 1 on [-1, 1]).
# fp32/cpu: two summation orders of the same float32 products. A trained DCGAN shows 1e-6; 1e-5 leaves room for depth.
# fp32/cuda: cuDNN may take Winograd or FFT kernels, which lose another decimal digit.
# tf32: products of 10-bit mantissas, a relative 2^-11 each, through the layers of a generator.
_BOUNDS: dict[tuple[str, str], float] = {
    ("fp32", "cpu"): 1e-5,
    ("fp32", "cuda"): 1e-4,
    ("tf32", "cuda"): 1e-2,
}


@dataclass(frozen=True)
class Errors:
    """What was measured over all samples of one output.

    max_abs, mean_abs: in the output's own units.
    psnr_db: of the worst sample, with the true peak (the width of the output's range), capped at 200.
    max_uint8, share_uint8: largest difference in pixel levels, and the share of pixels that differ at all; 0 for
        outputs that are no image.
    diversity: spread over the samples, candidate over reference; 1 is equal, a collapsed generator is near 0.
    finite: 1.0 if every value is finite.
    worst_sample: index of the sample with the largest absolute error.
    """

    max_abs: float
    mean_abs: float
    psnr_db: float
    max_uint8: float
    share_uint8: float
    diversity: float
    finite: float
    worst_sample: int

    def as_figures(self) -> dict[str, float]:
        """For a verdict: finite numbers only."""
        return {k: float(v) if math.isfinite(v) else _LARGEST for k, v in asdict(self).items()}


_LARGEST = float(np.finfo(np.float32).max)


def bound_for(precision: str, device: str, tensor: TensorSpec, reference_peak: float) -> float:
    """The bound on `max_abs` for a rung on a device, in the output's own units.

    Args:
        device: `cpu`, `cuda:0`, …
        reference_peak: largest absolute value of the reference; the yardstick of outputs without a range.

    Raises:
        InputError: there is no bound for this rung on this device.
    """
    kind = device.partition(":")[0]
    if (precision, kind) not in _BOUNDS:
        known = ", ".join(f"{p} on {d}" for p, d in _BOUNDS)
        raise InputError("no bound is known", got=f"{precision} on {kind}", expected=known)
    return _BOUNDS[precision, kind] * half_range(tensor, reference_peak)


def half_range(tensor: TensorSpec, reference_peak: float) -> float:
    """Half the width of an image's range; for other outputs the reference's peak, at least 1e-6."""
    if isinstance(tensor.role, Image):
        low, high = tensor.role.range
        return (high - low) / 2
    return max(reference_peak, 1e-6)


class ParityMeter:
    """Collects the errors of one output, sample by sample, in any order and as often as the samples are run.

    Arrays may be whole outputs, [N, *shape], or chosen elements of them, [N, E].
    """

    def __init__(self, tensor: TensorSpec) -> None:
        self.tensor = tensor
        self.samples = 0
        self._max_abs, self._sum_abs, self._elements = 0.0, 0.0, 0
        self._worst_sample, self._worst_mse = 0, 0.0
        self._max_uint8, self._differing, self._pixels = 0.0, 0, 0
        self._finite = True
        self._peak = 0.0
        # For the spread: sums over samples, element by element, of both sides.
        self._sums: list[NDArray[np.float64]] = []

    def add(self, reference: NDArray[np.generic], candidate: NDArray[np.generic], first_sample: int = 0) -> None:
        """Compares [N, …] with [N, …], where row 0 is sample `first_sample`."""
        if reference.shape != candidate.shape:
            raise InputError(
                f"output {self.tensor.name!r} has another shape",
                got=list(candidate.shape),
                expected=list(reference.shape),
            )
        n = len(reference)
        if n == 0:
            return
        a = reference.reshape(n, -1).astype(np.float64)
        b = candidate.reshape(n, -1).astype(np.float64)
        self.samples += n
        if not np.isfinite(b).all():
            self._finite = False
            b = np.nan_to_num(b, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
        difference = np.abs(a - b)
        row_max = difference.max(axis=1)
        if row_max.max() > self._max_abs:
            self._max_abs = float(row_max.max())
            self._worst_sample = first_sample + int(row_max.argmax())
        self._sum_abs += float(difference.sum())
        self._elements += difference.size
        self._peak = max(self._peak, float(np.abs(a).max()))
        self._worst_mse = max(self._worst_mse, float(np.square(difference).mean(axis=1).max()))
        self._add_pixels(a, b)
        sums = [a.sum(axis=0), np.square(a).sum(axis=0), b.sum(axis=0), np.square(b).sum(axis=0)]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums

    def _add_pixels(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        if not isinstance(self.tensor.role, Image):
            return
        levels = [uint8_from_output(x.astype(np.float32)[:, None, None, :], _flat(self.tensor)) for x in (a, b)]
        gaps = np.abs(levels[0].astype(np.int16) - levels[1])
        self._max_uint8 = max(self._max_uint8, float(gaps.max()))
        self._differing += int(np.count_nonzero(gaps))
        self._pixels += gaps.size

    @property
    def reference_peak(self) -> float:
        return self._peak

    def errors(self) -> Errors:
        """Everything measured so far. Raises `InputError` where nothing was added."""
        if not self.samples:
            raise InputError(f"nothing of output {self.tensor.name!r} was compared")
        peak = 2 * half_range(self.tensor, self._peak)
        psnr = PSNR_CAP_DB
        if self._worst_mse > 0:
            psnr = min(PSNR_CAP_DB, 10 * math.log10(peak * peak / self._worst_mse))
        return Errors(
            max_abs=self._max_abs,
            mean_abs=self._sum_abs / self._elements,
            psnr_db=psnr,
            max_uint8=self._max_uint8,
            share_uint8=self._differing / self._pixels if self._pixels else 0.0,
            diversity=self._diversity(),
            finite=float(self._finite),
            worst_sample=self._worst_sample,
        )

    def _diversity(self) -> float:
        n = self.samples
        spread = [
            float(np.sqrt(np.maximum(self._sums[i + 1] / n - np.square(self._sums[i] / n), 0.0)).mean()) for i in (0, 2)
        ]
        # A generator that ignores its latent has no spread to keep.
        return spread[1] / spread[0] if spread[0] > 1e-12 else 1.0


def _flat(tensor: TensorSpec) -> TensorSpec:
    """The same range, with the elements in a row: pixel levels do not depend on where a pixel is."""
    assert isinstance(tensor.role, Image)
    return TensorSpec(tensor.name, "float32", (1, 1, 1), Image("HWC", tensor.role.range))


def measure(reference: NDArray[np.generic], candidate: NDArray[np.generic], tensor: TensorSpec) -> Errors:
    """The errors of [N, *shape] against [N, *shape]."""
    meter = ParityMeter(tensor)
    meter.add(reference, candidate)
    return meter.errors()


def problems_of(errors: Errors, bound: float, tensor: TensorSpec) -> list[str]:
    """What does not hold, one sentence each; empty where everything does."""
    problems = []
    if not errors.finite:
        problems.append("there are values that are not finite")
    if errors.max_abs > bound:
        problems.append(
            f"largest error {errors.max_abs:.3g} is over the bound {bound:.3g}, at sample {errors.worst_sample}"
        )
    if isinstance(tensor.role, Image) and errors.max_uint8 > max(1, math.ceil(bound / half_range(tensor, 0) * 127.5)):
        problems.append(f"pixels differ by up to {errors.max_uint8:.0f} levels")
    low, high = DIVERSITY_BOUNDS
    if not low <= errors.diversity <= high:
        problems.append(f"the spread over samples is {errors.diversity:.2f} of the reference's")
    return problems


def verdict_from(
    meters: dict[str, ParityMeter],
    *,
    precision: str,
    backend: str,
    device: str,
    versions: dict[str, str],
    reference: str,
    latents: int,
    batches: tuple[int, ...],
) -> tuple[Verdict, list[str]]:
    """The verdict over all outputs, and what does not hold.

    Figures are keyed `max_abs` where there is one output, and `NAME.max_abs` where there are several; the bound is
    that of the first output.
    """
    problems: list[str] = []
    figures: dict[str, float] = {}
    bounds: list[float] = []
    for name, meter in meters.items():
        errors = meter.errors()
        bound = bound_for(precision, device, meter.tensor, meter.reference_peak)
        bounds.append(bound)
        prefix = f"{name}." if len(meters) > 1 else ""
        problems += [f"{name}: {p}" for p in problems_of(errors, bound, meter.tensor)]
        figures |= {prefix + key: value for key, value in errors.as_figures().items()}
    verdict = Verdict(
        passed=not problems,
        backend=backend,
        device=device,
        versions=versions,
        reference=reference,
        latents=latents,
        batches=batches,
        bound=bounds[0],
        errors=figures,
    )
    return verdict, problems
