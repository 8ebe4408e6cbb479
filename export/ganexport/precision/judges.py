"""Judges: latents of a seed of their own, by whose images the choices of a search are judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ganexport.parity import PSNR_CAP_DB, half_range
from ganexport.precision.traced import Arrays, plain_session
from ganexport.probes import probe_inputs
from ganruntime.spec import GeneratorSpec

SEED = 0x73656E73  # "sens": apart from those of calibration and of the gate
_KEEP_BYTES = 256 << 20
_CHUNK = 64

Indices = NDArray[np.int64]


class Draw(Protocol):
    """What a candidate makes of inputs: names of outputs, {input: [n, *shape]} -> the outputs, [n, …] each."""

    def __call__(self, outputs: list[str], inputs: Arrays) -> list[NDArray[np.float32]]: ...


class Judges:
    """Holds candidates against the fp32 graph, latent by latent."""

    def __init__(self, spec: GeneratorSpec, base: bytes) -> None:
        """base: the fp32 graph, which is run as it is written."""
        self._spec = spec
        self._names = [t.name for t in spec.outputs]
        self._fp32 = plain_session(base)
        self._kept: dict[bytes, list[NDArray[np.float32]]] = {}
        self._kept_bytes = 0

    def inputs(self, indices: Indices) -> Arrays:
        """{input: [n, *shape]} of some latents, each the same in whatever company."""
        if np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
            return probe_inputs(self._spec, SEED, int(indices[0]), len(indices))
        rows = [probe_inputs(self._spec, SEED, int(i), 1) for i in indices]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def psnr_db(self, draw: Draw, indices: Indices) -> NDArray[np.float64]:
        """The PSNR of each latent in dB, float64 [n]: of the output that suffers most, where there are several; minus
        infinity where one is not finite."""
        inputs = self.inputs(indices)
        lowest = np.full(len(indices), PSNR_CAP_DB)
        for tensor, a, b in zip(
            self._spec.outputs, self._expected(indices, inputs), draw(self._names, inputs), strict=True
        ):
            a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)  # [n, E]
            peak = 2 * half_range(tensor, float(np.abs(a).max(initial=0.0)))
            noise = np.nan_to_num(np.square(a - b).mean(axis=1), nan=np.inf)
            with np.errstate(divide="ignore"):  # an image that is not finite has minus infinity
                lowest = np.minimum(lowest, 10 * np.log10(peak * peak / np.maximum(noise, 1e-30)))
        return lowest

    def _expected(self, indices: Indices, inputs: Arrays) -> list[NDArray[np.float32]]:
        """What fp32 gives; kept for the same rows of the next choice while it is small."""
        key = indices.tobytes()
        if key in self._kept:
            return self._kept[key]
        outputs = list(self._fp32.run(self._names, inputs))
        size = sum(o.nbytes for o in outputs)
        if self._kept_bytes + size > _KEEP_BYTES:
            self._kept.clear()
            self._kept_bytes = 0
        if size <= _KEEP_BYTES:
            self._kept[key] = outputs
            self._kept_bytes += size
        return outputs


def in_chunks(indices: Indices) -> Iterator[Indices]:
    """Of as many as are run at once."""
    for start in range(0, len(indices), _CHUNK):
        yield indices[start : start + _CHUNK]
