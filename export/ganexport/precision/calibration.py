"""What ranges are measured on: ordinary latents, their tails, and the ends of every scalar's range."""

from __future__ import annotations

import numpy as np

from ganexport.precision.traced import Array
from ganexport.probes import probe_inputs
from ganruntime.spec import GeneratorSpec, Latent, Noise, Scalar, TensorSpec

SEED = 0x63616C69  # "cali": apart from those of the golden samples, of the gate and of the passes
LATENTS = 512
# One row in eight is a tail. Of a thousand normal latents of 100 numbers the largest number is near 4.3; 1.25 times the
# rows of a sample of hundreds reach what the rarest of many thousands do, and no further.
_TAIL_EVERY = 8
_TAIL_SCALE = 1.25


def calibration_inputs(spec: GeneratorSpec, latents: int = LATENTS, seed: int = SEED) -> dict[str, Array]:
    """{input: [latents, *shape]}, a pure function of the seed.

    Every eighth row is a tail: normal latents and noise 1.25 times as far out, uniform latents in a corner of their
    cube, scalars (truncation) at one end of their range. Latents on a sphere or in a ball have no tails.
    """
    inputs = probe_inputs(spec, seed, 0, latents)
    tails = np.arange(_TAIL_EVERY - 1, latents, _TAIL_EVERY)
    for tensor in spec.inputs:
        inputs[tensor.name][tails] = _tail(tensor, inputs[tensor.name][tails])
    return inputs


def _tail(tensor: TensorSpec, rows: Array) -> Array:
    """[T, *shape] -> [T, *shape] in the same dtype."""
    role = tensor.role
    if isinstance(role, Noise) or (isinstance(role, Latent) and role.distribution == "normal"):
        return (rows.astype(np.float32) * np.float32(_TAIL_SCALE)).astype(rows.dtype)
    if isinstance(role, Latent) and role.distribution == "uniform":
        return np.where(rows.astype(np.float32) < 0, -role.scale, role.scale).astype(rows.dtype)
    if isinstance(role, Scalar):
        ends = np.asarray(role.range, rows.dtype)[np.arange(len(rows)) % 2]
        return np.broadcast_to(ends.reshape(-1, *[1] * (rows.ndim - 1)), rows.shape).copy()
    return rows
