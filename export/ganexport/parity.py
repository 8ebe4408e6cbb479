"""Parity: how far a candidate's outputs are from the reference's, in the output's own range and as pixels.

Needs NumPy only: an engine is proven on the machine that will serve it, where there is no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ganexport.ssim import ssim_of
from ganruntime.bundle import Variant, Verdict
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
class Floors:
    """What a rung that rounds visibly has to keep, instead of a bound on the largest error.

    psnr_db: of the worst sample, at least. ssim: of the worst image, at least, where whole images are compared.
    levels: the largest difference of any pixel, at most, in levels of 255; for other outputs, in 255ths of the range.
    """

    psnr_db: float
    ssim: float
    levels: float


# fp16: 11 binary digits of every value leave 65 to 95 dB in trained DCGANs; 55 is below what a sound graph gives, and
# above what one overflow leaves. bf16: three digits fewer, so 18 dB less. int8: 40 dB is a mean error of 2.5 levels.
# A mean hides a fault in one place, so single pixels have a limit of their own: a share of the range that only a fault
# or a pixel on a hard edge exceeds.
FLOORS: dict[str, Floors] = {
    "fp16": Floors(psnr_db=55.0, ssim=0.999, levels=4.0),
    "bf16": Floors(psnr_db=37.0, ssim=0.98, levels=32.0),
    "int8": Floors(psnr_db=40.0, ssim=0.95, levels=128.0),
}
_FLOOR = "floor_"
# A mean square from 1,024 pixels of errors that sit on edges is off by a sixth; of a thousand samples, one by 2 dB.
_SAMPLED_ALLOWANCE_DB = 3.0


def floors_of(variant: Variant) -> Floors | None:
    """What holds for a variant: the floors of its last verdict, else those of its rung; None for rungs with a bound."""
    default = FLOORS.get(variant.precision)
    if default is None or not variant.verdicts:
        return default
    recorded = {
        key.removeprefix(_FLOOR): value for key, value in variant.verdicts[-1].errors.items() if key.startswith(_FLOOR)
    }
    return Floors(**(asdict(default) | recorded))


@dataclass(frozen=True)
class Quality:
    """How a candidate looks beside the reference, over all samples of one output.

    mean_psnr_db: the mean of the samples' PSNR, each capped at 200. worst_psnr_sample: whose PSNR is the lowest.
    ssim, mean_ssim: of the worst image, and the mean; None where no whole images were compared.
    sampled: whether some samples were compared at chosen elements only, as golden samples of large outputs are.
    """

    mean_psnr_db: float
    worst_psnr_sample: int
    ssim: float | None
    mean_ssim: float | None
    sampled: bool

    def as_figures(self) -> dict[str, float]:
        return {k: float(v) for k, v in asdict(self).items() if v is not None and k != "sampled"}


@dataclass(frozen=True)
class Errors:
    """What was measured over all samples of one output.

    max_abs, mean_abs: in the output's own units; a value that is not finite, on either side, counts as the largest
        float32.
    psnr_db: of the worst sample, with the true peak (the width of the output's range), capped at 200.
    max_uint8, share_uint8: largest difference in pixel levels, and the share of pixels that differ at all; 0 for
        outputs that are no image.
    diversity: spread over the samples, candidate over reference; 1 is equal, a collapsed generator is near 0. It is 1
        where the reference itself has no spread beyond rounding.
    finite: 1.0 if every value is finite, on both sides.
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
_NO_SPREAD = float(np.finfo(np.float32).eps)  # of half the range: what sums in another order leave of a constant


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

    def __init__(self, tensor: TensorSpec, *, structure: bool = False) -> None:
        """`structure`: measure SSIM too, of images that come whole, each sample the first time that it comes: it costs
        more than all else, and what a batch size changes is seen by the other figures."""
        self.tensor = tensor
        self.samples = 0
        self._structure = structure and isinstance(tensor.role, Image)
        self._sum_log_mse, self._exact_samples, self._worst_mse_sample = 0.0, 0, 0
        self._ssim, self._sum_ssim, self._ssim_samples, self._structured = 1.0, 0.0, 0, 0
        self._sampled = False
        self._max_abs, self._sum_abs, self._elements = 0.0, 0.0, 0
        self._worst_sample, self._worst_mse = 0, 0.0
        self._max_uint8, self._differing, self._pixels = 0.0, 0, 0
        self._finite = True
        self._peak = 0.0
        self._spreads = (_Spread(), _Spread())

    def add(
        self, reference: NDArray[np.generic], candidate: NDArray[np.generic], first_sample: int = 0
    ) -> NDArray[np.float64]:
        """Compares [N, …] with [N, …], where row 0 is sample `first_sample`.

        Returns:
            float64 [N], the mean square error of every row.
        """
        if reference.shape != candidate.shape:
            raise InputError(
                f"output {self.tensor.name!r} has another shape",
                got=list(candidate.shape),
                expected=list(reference.shape),
            )
        n = len(reference)
        if n == 0:
            return np.zeros(0)
        self.samples += n
        self._add_pixels(reference.reshape(n, -1), candidate.reshape(n, -1))
        a = reference.reshape(n, -1).astype(np.float64)  # [N, E]
        b = candidate.reshape(n, -1).astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b)
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        self._finite = self._finite and bool(finite.all())
        # Never NaN: a comparison with NaN is false, and would hide every other error.
        difference = np.where(finite, np.abs(a - b), _LARGEST)
        row_max = difference.max(axis=1)
        if row_max.max() > self._max_abs:
            self._max_abs = float(row_max.max())
            self._worst_sample = first_sample + int(row_max.argmax())
        self._sum_abs += float(difference.sum())
        self._elements += difference.size
        self._peak = max(self._peak, float(np.abs(a).max()))
        mse: NDArray[np.float64] = np.square(difference).mean(axis=1)
        self._add_mse(mse, first_sample)
        self._sampled = self._sampled or a.shape[1] < self.tensor.size
        if self._structure and a.shape[1] == self.tensor.size and first_sample >= self._structured:
            self._add_structure(reference, candidate)
            self._structured = first_sample + n
        for spread, rows in zip(self._spreads, (a, b), strict=True):
            spread.add(rows)
        return mse

    def _add_mse(self, mse: NDArray[np.float64], first_sample: int) -> None:
        if mse.max() > self._worst_mse:
            self._worst_mse = float(mse.max())
            self._worst_mse_sample = first_sample + int(mse.argmax())
        inexact = mse[mse > 0]
        self._sum_log_mse += float(np.log10(inexact).sum())
        self._exact_samples += len(mse) - len(inexact)

    def _add_structure(self, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        role = self.tensor.role
        assert isinstance(role, Image)
        shape = (-1, *(d or 0 for d in self.tensor.shape))
        pair = [np.asarray(x).reshape(shape).astype(np.float64) for x in (reference, candidate)]
        if role.layout == "HWC":
            pair = [x.transpose(0, 3, 1, 2) for x in pair]
        found = ssim_of(pair[0], pair[1], *role.range)
        self._ssim = min(self._ssim, float(found.min()))
        self._sum_ssim += float(found.sum())
        self._ssim_samples += len(found)

    def _add_pixels(self, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        if not isinstance(self.tensor.role, Image):
            return
        # Pixel levels do not depend on where a pixel is: the same range, with the elements in a row.
        flat = TensorSpec(self.tensor.name, self.tensor.dtype, (1, 1, 1), Image("HWC", self.tensor.role.range))
        with np.errstate(over="ignore", invalid="ignore"):
            levels = [uint8_from_output(x[:, None, None, :], flat) for x in (reference, candidate)]
        gaps = np.abs(levels[0].astype(np.int16) - levels[1])
        self._max_uint8 = max(self._max_uint8, float(gaps.max()))
        self._differing += int(np.count_nonzero(gaps))
        self._pixels += gaps.size

    @property
    def reference_peak(self) -> float:
        return self._peak

    @property
    def spreads(self) -> tuple[float, float]:
        """The mean standard deviation over the samples, of the reference and of the candidate, in the output's unit."""
        return self._spreads[0].mean_deviation(), self._spreads[1].mean_deviation()

    def psnr_db(self, mse: float) -> float:
        """PSNR of a mean square error, with the width of the output's range as its peak, capped at 200."""
        if mse <= 0:
            return PSNR_CAP_DB
        peak = 2 * half_range(self.tensor, self._peak)
        return min(PSNR_CAP_DB, 10 * math.log10(peak * peak / mse))

    def errors(self) -> Errors:
        """Everything measured so far. Raises `InputError` where nothing was added."""
        if not self.samples:
            raise InputError(f"nothing of output {self.tensor.name!r} was compared")
        return Errors(
            max_abs=self._max_abs,
            mean_abs=self._sum_abs / self._elements,
            psnr_db=self.psnr_db(self._worst_mse),
            max_uint8=self._max_uint8,
            share_uint8=self._differing / self._pixels if self._pixels else 0.0,
            diversity=self._diversity(),
            finite=float(self._finite),
            worst_sample=self._worst_sample,
        )

    def quality(self) -> Quality:
        """Raises `InputError` where nothing was added."""
        if not self.samples:
            raise InputError(f"nothing of output {self.tensor.name!r} was compared")
        inexact = self.samples - self._exact_samples
        peak_db = 20 * math.log10(2 * half_range(self.tensor, self._peak))
        # Each sample's cap at 200 is that of the exact ones: a mean square below 1e-20 of the peak's is none of floats.
        total = PSNR_CAP_DB * self._exact_samples + inexact * peak_db - 10 * self._sum_log_mse
        whole = self._ssim_samples > 0
        return Quality(
            mean_psnr_db=min(PSNR_CAP_DB, total / self.samples),
            worst_psnr_sample=self._worst_mse_sample,
            ssim=self._ssim if whole else None,
            mean_ssim=self._sum_ssim / self._ssim_samples if whole else None,
            sampled=self._sampled,
        )

    def _diversity(self) -> float:
        reference, candidate = self.spreads
        # A generator that ignores its latent has no spread to keep.
        return candidate / reference if reference > _NO_SPREAD * half_range(self.tensor, self._peak) else 1.0


class _Spread:
    """Standard deviation over samples, element by element, in one pass: Chan, Golub and LeVeque, "Updating formulae and
    a pairwise algorithm for computing sample variances", 1979. Sums of squares would drown it in a large mean."""

    def __init__(self) -> None:
        self._samples = 0
        self._mean: NDArray[np.float64] = np.zeros(1)
        self._squares: NDArray[np.float64] = np.zeros(1)

    def add(self, rows: NDArray[np.float64]) -> None:
        n = len(rows)
        mean = rows.mean(axis=0)
        total = self._samples + n
        shift = mean - self._mean
        self._squares = (
            self._squares + np.square(rows - mean).sum(axis=0) + np.square(shift) * (self._samples * n / total)
        )
        self._mean = self._mean + shift * (n / total)
        self._samples = total

    def mean_deviation(self) -> float:
        return float(np.sqrt(self._squares / self._samples).mean())


def measure(reference: NDArray[np.generic], candidate: NDArray[np.generic], tensor: TensorSpec) -> Errors:
    """The errors of [N, *shape] against [N, *shape]."""
    meter = ParityMeter(tensor)
    meter.add(reference, candidate)
    return meter.errors()


def worst_figure(name: str, values: Sequence[float]) -> float:
    """The worst of a verdict's figure over several runs. Of an index, which is that of the first run, and of what was
    asked for, the first."""
    figure = name.rpartition(".")[2]
    if figure.startswith(_FLOOR) or "sample" in figure:
        return values[0]
    if figure == "diversity":
        return max(values, key=lambda value: abs(value - 1.0))
    return min(values) if figure == "finite" or "psnr" in figure or "ssim" in figure else max(values)


def problems_of(errors: Errors, bound: float, tensor: TensorSpec, *, is_rounded: bool = False) -> list[str]:
    """What does not hold, one sentence each; empty where everything does.

    Args:
        is_rounded: the spreads differ by no more than rounding to pixels does to them. Of images that hardly differ,
            rounding is most of the spread.
    """
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
    if not low <= errors.diversity <= high and not is_rounded:
        problems.append(f"the spread over samples is {errors.diversity:.2f} of the reference's")
    return problems


def problems_against_floors(errors: Errors, quality: Quality, floors: Floors, tensor: TensorSpec) -> list[str]:
    """What does not hold of a rung that rounds, one sentence each; empty where everything does."""
    problems = []
    if not errors.finite:
        problems.append("there are values that are not finite")
    if errors.psnr_db < floors.psnr_db - (_SAMPLED_ALLOWANCE_DB if quality.sampled else 0.0):
        problems.append(
            f"PSNR {errors.psnr_db:.1f} dB is under the floor {floors.psnr_db:g} dB, at sample "
            f"{quality.worst_psnr_sample}; the mean is {quality.mean_psnr_db:.1f} dB"
        )
    if quality.ssim is not None and quality.ssim < floors.ssim:
        problems.append(f"SSIM {quality.ssim:.4f} is under the floor {floors.ssim:g}")
    if isinstance(tensor.role, Image) and errors.max_uint8 > floors.levels:
        problems.append(
            f"a pixel differs by {errors.max_uint8:.0f} levels, over the limit {floors.levels:g}, "
            f"at sample {errors.worst_sample}"
        )
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
    floors: Floors | None = None,
    rounding: float = 0.0,
) -> tuple[Verdict, list[str]]:
    """The verdict over all outputs, and what does not hold.

    Args:
        rounding: what is added to the bound of images, in their own units, because the candidate rounds them.

    Rungs in `FLOORS` are held to floors, those given or their own, and their figures name them (`floor_psnr_db`, …);
    the bound is then what the limit on single pixels comes to. All others are held to `bound_for`.

    Figures are keyed `max_abs` where there is one output, and `NAME.max_abs` where there are several; the bound is
    that of the first output, and `NAME.bound` each one's own.
    """
    problems: list[str] = []
    figures: dict[str, float] = {}
    bounds: list[float] = []
    floors = floors or FLOORS.get(precision)
    for name, meter in meters.items():
        errors = meter.errors()
        prefix = f"{name}." if len(meters) > 1 else ""
        if floors is None:
            bound = bound_for(precision, device, meter.tensor, meter.reference_peak)
            rounded = rounding if isinstance(meter.tensor.role, Image) else 0.0
            bound += rounded
            of_reference, of_candidate = meter.spreads
            is_rounded = abs(of_candidate - of_reference) < rounded
            found = problems_of(errors, bound, meter.tensor, is_rounded=is_rounded)
        else:
            bound = floors.levels / 127.5 * half_range(meter.tensor, meter.reference_peak)
            quality = meter.quality()
            found = problems_against_floors(errors, quality, floors, meter.tensor)
            figures |= {prefix + key: value for key, value in quality.as_figures().items()}
        bounds.append(bound)
        if prefix:
            figures[f"{prefix}bound"] = bound
        problems += [f"{name}: {p}" for p in found]
        figures |= {prefix + key: value for key, value in errors.as_figures().items()}
    if floors is not None:
        figures |= {_FLOOR + key: value for key, value in asdict(floors).items()}
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
