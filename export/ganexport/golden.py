"""Golden samples: latents and what the source network made of them, kept in the bundle so that any session can be
held against the network it came from, where there is no torch.

Of the first samples every element is kept; of the rest a fixed random choice of elements, so that a thousand samples
of a large generator stay small: a graph that computes something else departs everywhere, not in one pixel.

Where height and width vary, most samples are of the default size, and a few of each of the others that the gate runs.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ganexport.parity import ParityMeter
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import fewer, proof_sizes
from ganruntime import noise
from ganruntime.errors import BundleIntegrityError, InputError, SpecError
from ganruntime.sessions.base import fixed_shape
from ganruntime.sizes import Size, default_size, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, TensorSpec

Arrays = dict[str, NDArray[np.generic]]
Evaluate = Callable[[Arrays], Arrays]

SEED = 0x676F6C64  # "gold": apart from the seeds that people choose, and from those of calibration
LATENTS = 1024
ELEMENTS = 1024
_WHOLE_BYTES = 4 << 20
_INPUT_BYTES = 16 << 20  # of images whose size varies
_LEAST_IMAGES = 64
_AT_SIZE = re.compile(r"(?P<height>[1-9]\d{0,4})x(?P<width>[1-9]\d{0,4})\.(?P<key>.+)", re.ASCII)
_CHUNK = 64


@dataclass(frozen=True)
class GoldenSamples:
    """The reference samples, as they lie in golden.npz.

    inputs: {input name: [N, *shape]}.
    whole: {output name: [K, *shape]}, every element of the first K samples.
    elements: {output name: [N, E]}, the elements at `positions` of all N samples.
    positions: {output name: int64 [E]}, indices into a flattened sample.
    size: where height and width vary, that of the samples. others: samples of other sizes.
    """

    inputs: Arrays
    whole: Arrays
    elements: Arrays
    positions: dict[str, NDArray[np.int64]]
    size: Size | None = None
    others: tuple[GoldenSamples, ...] = ()

    @property
    def latents(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, count: int) -> Arrays:
        """Inputs of samples start … start + count - 1, going round at the end, so that any batch can be filled."""
        index = self._going_round(start, count)
        return {name: np.ascontiguousarray(array[index]) for name, array in self.inputs.items()}

    def compare(
        self, meters: Mapping[str, ParityMeter], outputs: Mapping[str, NDArray[np.generic]], start: int
    ) -> None:
        """Adds a whole batch of a run, whose inputs were `rows(start, …)`, to the meters, at the kept elements."""
        for name, meter in meters.items():
            candidate = outputs[name].reshape(len(outputs[name]), -1)
            expected = self.elements[name][self._going_round(start, len(candidate))]
            meter.add(expected, candidate[:, self.positions[name]], start)

    def _going_round(self, start: int, count: int) -> NDArray[np.int64]:
        return np.arange(start, start + count) % self.latents

    def _arrays(self) -> Arrays:
        arrays = {f"input.{k}": v for k, v in self.inputs.items()}
        arrays |= {f"output.{k}": v for k, v in self.whole.items()}
        arrays |= {f"elements.{k}": v for k, v in self.elements.items()}
        arrays |= {f"positions.{k}": v for k, v in self.positions.items()}
        return arrays

    def to_bytes(self) -> bytes:
        """An .npz file: `input.NAME`, `output.NAME`, `elements.NAME`, `positions.NAME`, those of other sizes with the
        size before them: `40x72.input.NAME`. Equal samples, equal bytes."""
        arrays = self._arrays()
        for samples in self.others:
            assert samples.size is not None
            height, width = samples.size
            arrays |= {f"{height}x{width}.{k}": v for k, v in samples._arrays().items()}
        file = io.BytesIO()
        # As numpy.savez writes it, but without the time of day in it.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
        return file.getvalue()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], spec: GeneratorSpec) -> GoldenSamples:
        """From `Bundle.golden()`. Raises `BundleIntegrityError` where the arrays do not fit the spec."""
        by_size: dict[Size | None, Arrays] = {None: {}}
        for key, array in arrays.items():
            match = _AT_SIZE.fullmatch(key) if varying_inputs(spec) else None
            size = (int(match["height"]), int(match["width"])) if match else None
            by_size.setdefault(size, {})[match["key"] if match else key] = array
        try:
            samples = [cls._at_size(part, spec, size) for size, part in by_size.items()]
        except (InputError, SpecError) as error:
            raise BundleIntegrityError(
                "golden.npz does not fit the spec",
                got=f"{error.problem}: {error.got}",
                remedy="export the bundle again",
            ) from error
        return replace(samples[0], others=tuple(samples[1:]))

    @classmethod
    def _at_size(cls, arrays: Arrays, spec: GeneratorSpec, size: Size | None) -> GoldenSamples:
        size = size if size is not None else default_size(spec)
        spec = spec_at(spec, size)

        def part(prefix: str) -> Arrays:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        inputs, whole, elements, positions = part("input."), part("output."), part("elements."), part("positions.")
        fits = (
            len(arrays) == len(inputs) + 3 * len(whole)
            and inputs.keys() == {t.name for t in spec.inputs}
            and {t.name for t in spec.outputs} == whole.keys() == elements.keys() == positions.keys()
        )
        latents = next((v.shape[0] for v in inputs.values() if v.ndim), 0)
        fits = fits and latents > 0 and all(_is_batch(inputs[t.name], t, latents) for t in spec.inputs)
        for t in spec.outputs if fits else ():
            kept = positions[t.name]
            fits = fits and whole[t.name].ndim > 0 and 0 < len(whole[t.name]) <= latents
            fits = fits and _is_batch(whole[t.name], t, len(whole[t.name])) and _in_range(kept, t)
            fits = fits and str(elements[t.name].dtype) == t.dtype
            fits = fits and elements[t.name].shape == (latents, *kept.shape)
        if not fits:
            raise BundleIntegrityError(
                "golden.npz does not fit the spec",
                got=", ".join(f"{k} {v.dtype} {list(v.shape)}" for k, v in arrays.items()) or "nothing",
                expected=", ".join(f"{t.name} {t.dtype} {['N', *t.shape]}" for t in (*spec.inputs, *spec.outputs)),
                remedy="export the bundle again",
            )
        return cls(inputs, whole, elements, {k: v.astype(np.int64) for k, v in positions.items()}, size)


def _is_batch(array: NDArray[np.generic], tensor: TensorSpec, count: int) -> bool:
    return (str(array.dtype), array.shape) == (tensor.dtype, (count, *fixed_shape(tensor)))


def _in_range(positions: NDArray[np.generic], tensor: TensorSpec) -> bool:
    integers = positions.ndim == 1 and positions.size > 0 and positions.dtype.kind in "iu"
    return bool(integers and positions.min() >= 0 and positions.max() < tensor.size)


def golden_from_reference(
    spec: GeneratorSpec, evaluate: Evaluate, seed: int = SEED, latents: int = LATENTS
) -> GoldenSamples:
    """Runs the reference over latents 0 … N - 1 of `seed`; where height and width vary, over fewer, at several sizes.

    Args:
        evaluate: {input: [n, *shape]} -> {output: [n, *shape]}, the source network in fp32.
    """
    sizes = proof_sizes(spec)
    if not sizes:
        return _samples(spec, evaluate, seed, latents, None)
    # Images that only a caller has are kept as they were used, and are large.
    row_bytes = sum(np.dtype(t.dtype).itemsize * t.size for t in spec_at(spec, sizes[0]).inputs)
    latents = max(1, min(latents, max(_LEAST_IMAGES, _INPUT_BYTES // row_bytes)))
    first, *others = (
        _samples(spec_at(spec, size), evaluate, seed, latents if size == sizes[0] else fewer(latents), size)
        for size in sizes
    )
    return replace(first, others=tuple(others))


def _samples(spec: GeneratorSpec, evaluate: Evaluate, seed: int, latents: int, size: Size | None) -> GoldenSamples:
    positions = {t.name: _positions(t, seed) for t in spec.outputs}
    whole_count = {t.name: min(latents, max(16, min(64, _WHOLE_BYTES // (4 * t.size)))) for t in spec.outputs}
    inputs = probe_inputs(spec, seed, 0, latents)
    whole: dict[str, list[NDArray[np.generic]]] = {t.name: [] for t in spec.outputs}
    elements: dict[str, list[NDArray[np.generic]]] = {t.name: [] for t in spec.outputs}
    for start, count in _chunks(latents):
        outputs = evaluate({k: v[start : start + count] for k, v in inputs.items()})
        for name, array in outputs.items():
            if start < whole_count[name]:
                whole[name].append(array[: whole_count[name] - start].copy())
            elements[name].append(array.reshape(count, -1)[:, positions[name]])
    return GoldenSamples(
        inputs,
        {name: np.concatenate(parts) for name, parts in whole.items()},
        {name: np.concatenate(parts) for name, parts in elements.items()},
        positions,
        size,
    )


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _CHUNK):
        yield start, min(_CHUNK, count - start)


def _positions(tensor: TensorSpec, seed: int) -> NDArray[np.int64]:
    """Ascending indices of the elements to keep: all of a small output, `ELEMENTS` at random of a large one."""
    if tensor.size <= ELEMENTS:
        return np.arange(tensor.size)
    # The order of `size` independent numbers is a uniform permutation.
    draw = noise.uniform(seed, 0, 1, tensor.size, stream=noise.stream_of(f"positions of {tensor.name}"))[0]
    return np.sort(np.argsort(draw, kind="stable")[:ELEMENTS])
