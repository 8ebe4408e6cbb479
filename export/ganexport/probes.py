"""Probes: inputs to try a generator on, for every role, as a pure function of (seed, index)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec, Image, Keypoints, Scalar, TensorSpec, Tokens

Arrays = dict[str, NDArray[np.generic]]


def probe_inputs(spec: GeneratorSpec, seed: int, first: int, count: int) -> Arrays:
    """{input name: [count, *shape]}: what `noise.inputs` draws, and uniform values where only a caller would know.

    Images, keypoints and vectors are uniform over their range ([-1, 1) for vectors), tokens over the vocabulary.
    Scalars have their default at even indices and are uniform over their range at odd ones: with the default alone, a
    graph that takes it for a constant would pass every check.

    Raises:
        ExportError: an input has dimensions that vary.
    """
    probes = noise.inputs(spec, seed, first, count)
    for tensor in spec.inputs:
        if tensor.name not in probes:
            probes[tensor.name] = _uniform_probe(tensor, seed, first, count)
        elif isinstance(tensor.role, Scalar):
            odd = np.arange(count) % 2 != first % 2
            probes[tensor.name][odd] = _uniform_probe(tensor, seed, first, count)[odd]
    return probes


def _uniform_probe(tensor: TensorSpec, seed: int, first: int, count: int) -> NDArray[np.generic]:
    if None in tensor.shape:
        raise ExportError(
            f"input {tensor.name!r} has dimensions that vary",
            got=list(tensor.shape),
            expected="a fixed shape, as a spec has it at one size (ganruntime.sizes.spec_at)",
            remedy="give the height and width in the spec",
        )
    unit = noise.uniform(
        seed, first, count, tensor.size, stream=noise.stream_of(tensor.name)
    )  # [count, size] in [-1, 1)
    shape = (count, *(d or 0 for d in tensor.shape))
    if isinstance(tensor.role, Tokens):
        tokens: NDArray[np.generic] = np.floor((unit + 1.0) / 2.0 * tensor.role.vocabulary_size).astype(tensor.dtype)
        return tokens.reshape(shape)
    low, high = tensor.role.range if isinstance(tensor.role, (Image, Keypoints, Scalar)) else (-1.0, 1.0)
    values: NDArray[np.generic] = (low + (unit + 1.0) / 2.0 * (high - low)).astype(tensor.dtype)
    return values.reshape(shape)
