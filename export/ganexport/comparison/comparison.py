"""The comparison itself: both sides over the same latents, chunk by chunk, every figure by the gate's own meter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ganexport.comparison.compatibility import require_comparable
from ganexport.comparison.side import Arrays, Side
from ganexport.parity import (
    Errors,
    Floors,
    ParityMeter,
    Quality,
    problems_against_floors,
    problems_of,
)
from ganexport.pixels import Comparison as PixelComparison
from ganexport.probes import probe_inputs
from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.sizes import Size, size_text, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

_LARGEST_CHUNK = 64
_CHUNK_BYTES = 256 << 20
# A chunk lies in memory about ten times while it is measured: both outputs, their float64 copies, differences, pixels.
_BYTES_PER_ELEMENT = 80


@dataclass(frozen=True)
class WorstCase:
    """One sample: which one, how far apart, and what either side made of it.

    index: with the comparison's seed, all that is needed to draw it again.
    psnr_db: capped at 200, which means equal.
    a, b: [*shape], in the output's own range.
    """

    index: int
    psnr_db: float
    max_abs: float
    a: NDArray[np.generic] = field(repr=False)
    b: NDArray[np.generic] = field(repr=False)


@dataclass(frozen=True)
class OutputComparison:
    """What was found of one output.

    errors, quality: as the gate measures them, A for the reference; sample numbers are indices of the seed.
    spread_a, spread_b: the mean standard deviation over the latents, in the output's units: how much either varies.
    worst: those of the lowest PSNR, the worst first.
    """

    tensor: TensorSpec
    errors: Errors
    quality: Quality
    spread_a: float
    spread_b: float
    worst: tuple[WorstCase, ...]


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same latents: `latents` of `seed`, from index `first` on.

    in_levels: one side or both give pixels, so images were compared as levels of 255: those of a side that gives values
        are not rounded, and a pixel that was rounded rightly is at most half a level away.
    size: where height and width vary, the one that was compared.
    """

    label_a: str
    label_b: str
    where_a: str
    where_b: str
    seed: int
    first: int
    latents: int
    outputs: tuple[OutputComparison, ...]
    in_levels: bool = False
    size: Size | None = None

    @property
    def size_label(self) -> str:
        return "" if self.size is None else size_text(self.size)

    def problems(self, bound: float | None, floors: Floors | None) -> list[str]:
        """What does not hold of what was asked, a sentence each.

        Args:
            bound: on the largest error, in each output's own units; the gate's rule for exact rungs.
            floors: the gate's rule for rungs that round.
        """
        found = []
        for output in self.outputs:
            said: list[str] = []
            if bound is not None:
                said += problems_of(output.errors, bound, output.tensor)
            if floors is not None:
                said += problems_against_floors(output.errors, output.quality, floors, output.tensor)
            found += [f"{output.tensor.name}: {problem}" for problem in dict.fromkeys(said)]
        return found


def compare(
    a: Side,
    b: Side,
    *,
    latents: int,
    seed: int = 0,
    first: int = 0,
    device: str = "cpu",
    keep: int = 8,
    progress: Callable[[int], None] | None = None,
    size: Size | None = None,
) -> Comparison:
    """Runs both sides over inputs `first` … `first + latents - 1` of `seed` and holds B against A.

    Latents, noise and labels are drawn by `ganruntime.noise`; scalars have their defaults; inputs that only a caller
    has (images, tokens, keypoints, vectors) are uniform over their range.

    Args:
        keep: how many of the worst cases to keep, with both outputs.
        progress: called with the number of latents that both have just run.
        size: where height and width vary, those to compare at.

    Raises:
        InputError: the two do not take and give the same, the size is missing or does not fit, or the range of indices
            ends after the last one.
        BackendError, MissingDependencyError, BundleError: a side cannot run here.
    """
    require_comparable(a, b)
    if size is None and varying_inputs(a.spec):
        raise InputError(f"{a.label}: height and width vary", expected="the size to compare at")
    noise.require_range(seed, first, latents)
    in_levels = a.gives_pixels or b.gives_pixels
    contract = spec_at(a.spec, size)
    levels = PixelComparison.in_levels(contract)
    spec = levels.spec if in_levels else contract
    chunk = chunk_rows(spec)
    meters = {t.name: ParityMeter(t, structure=True) for t in spec.outputs}
    worst: dict[str, list[_Kept]] = {t.name: [] for t in spec.outputs}

    def comparable(side: Side, outputs: Arrays) -> Arrays:
        if not in_levels:
            return outputs
        return levels.of_candidate(outputs) if side.gives_pixels else levels.of_reference(outputs)

    with a.opened(device, chunk) as side_a, b.opened(device, chunk) as side_b:
        for start in range(0, latents, chunk):
            count, index = min(chunk, latents - start), first + start
            inputs = comparison_inputs(spec, seed, index, count)
            out_a, out_b = comparable(a, side_a.run(inputs)), comparable(b, side_b.run(inputs))
            for name, meter in meters.items():
                mse = meter.add(out_a[name], out_b[name], index)
                worst[name] = _worst_of(worst[name], mse, out_a[name], out_b[name], index, keep)
            if progress is not None:
                progress(count)
        where_a, where_b = side_a.where, side_b.where
    outputs = tuple(_output(t, meters[t.name], worst[t.name]) for t in spec.outputs)
    return Comparison(a.label, b.label, where_a, where_b, seed, first, latents, outputs, in_levels, size)


def comparison_inputs(spec: GeneratorSpec, seed: int, first: int, count: int) -> Arrays:
    """{input: [count, *shape]}. What `generate` draws is drawn as it draws it, scalars at their defaults included, so
    that a worst case can be drawn again with its seed and index."""
    return probe_inputs(spec, seed, first, count) | noise.inputs(spec, seed, first, count)


def chunk_rows(spec: GeneratorSpec) -> int:
    """How many samples to hold at a time."""
    row_bytes = _BYTES_PER_ELEMENT * sum(t.size for t in spec.outputs)
    return max(1, min(_LARGEST_CHUNK, _CHUNK_BYTES // row_bytes))


@dataclass(frozen=True)
class _Kept:
    mse: float
    index: int
    a: NDArray[np.generic]
    b: NDArray[np.generic]


def _worst_of(
    so_far: list[_Kept],
    mse: NDArray[np.float64],
    a: NDArray[np.generic],
    b: NDArray[np.generic],
    first: int,
    keep: int,
) -> list[_Kept]:
    """The `keep` worst of those so far and of a chunk, the worst first; of equal ones that with the lowest index."""
    order = np.argsort(-mse, kind="stable")[:keep]
    if len(so_far) == keep:
        order = order[mse[order] > so_far[-1].mse]
    # Copies: a view of one row would keep the whole chunk in memory.
    new = [_Kept(float(mse[i]), first + int(i), a[i].copy(), b[i].copy()) for i in order]
    return sorted([*so_far, *new], key=lambda kept: (-kept.mse, kept.index))[:keep]


def _output(tensor: TensorSpec, meter: ParityMeter, kept: list[_Kept]) -> OutputComparison:
    cases = []
    for case in kept:
        with np.errstate(invalid="ignore", over="ignore"):
            gaps = np.abs(case.a.astype(np.float64) - case.b.astype(np.float64))
        largest = float(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max())
        cases.append(WorstCase(case.index, meter.psnr_db(case.mse), largest, case.a, case.b))
    return OutputComparison(tensor, meter.errors(), meter.quality(), *meter.spreads, tuple(cases))


def require_picture(spec: GeneratorSpec) -> TensorSpec:
    """The output that a picture shows. Raises `InputError` where none can be shown."""
    for tensor in spec.outputs:
        if isinstance(tensor.role, Image) and tensor.channels in (1, 3, 4):
            return tensor
    raise InputError(
        f"{spec.name} draws nothing that a picture can show",
        got=", ".join(f"{t.name} {t.role.kind} {list(t.shape)}" for t in spec.outputs),
        expected="an image of 1, 3 or 4 channels",
        remedy="leave -o away: the figures need no picture",
    )
