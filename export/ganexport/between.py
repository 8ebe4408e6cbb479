"""Images between images: what `interpolate` and `grid` draw, everything but the latent held still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.generator import Generator
from ganruntime.rows import given_rows
from ganruntime.spec import TensorSpec


def latent_of(generator: Generator) -> TensorSpec:
    """The latent input. Raises `InputError` where there is none to move through."""
    tensor = generator.spec.latent
    if tensor is None:
        raise InputError(f"{generator.spec.name} takes no latent", got=", ".join(t.name for t in generator.spec.inputs))
    return tensor


def anchors(generator: Generator, seed: int, indices: tuple[int, ...]) -> NDArray[np.float32]:
    """The latents of these images of a seed: [n, *shape]."""
    tensor = latent_of(generator)
    return np.concatenate([noise.latents(tensor, seed, index, 1) for index in indices])


def images_between(
    generator: Generator,
    latents: NDArray[np.float32],
    seed: int,
    index: int,
    inputs: dict[str, Any],
    progress: Callable[[int], None] = lambda images: None,
) -> NDArray[np.uint8]:
    """Images of latents, [n, *shape] to uint8 [n, H, W, C].

    Labels and per-layer noise that are not given are those of image `index` of the seed, in every image: what changes
    is what the latent changes.
    """
    arguments = dict(inputs)
    truncation, label = arguments.pop("truncation", None), arguments.pop("label", None)
    still = noise.inputs(generator.spec, seed, index, 1)
    still |= given_rows(generator.spec, 1, truncation, label, arguments)
    name = latent_of(generator).name

    def chunks() -> Iterator[NDArray[np.uint8]]:
        size = generator.session.buckets[-1]
        for start in range(0, len(latents), size):
            z = latents[start : start + size]
            rows = {key: row.repeat(len(z), axis=0) for key, row in still.items()}
            yield generator.draw(rows | {name: z})
            progress(len(z))

    return np.concatenate(list(chunks()))
