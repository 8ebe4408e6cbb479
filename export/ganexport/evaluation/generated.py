"""What a generator gives for (seed, index), in chunks, as the metrics take it: the same latents wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganexport.comparison.side import Opened, Side
from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Noise, Scalar, TensorSpec, Vector

CHUNK = 64
Samples = NDArray[np.generic]


@dataclass(frozen=True)
class Judged:
    """The output that is judged: square images of 1 or 3 channels, or vectors.

    size: of images the side in pixels, of vectors the numbers in one.
    channels: of images; 0 for vectors.
    """

    tensor: TensorSpec
    size: int
    channels: int

    @property
    def is_image(self) -> bool:
        return self.channels > 0


def judged_output(spec: GeneratorSpec) -> Judged:
    """The first image of a generator, or its first vector.

    Raises:
        InputError: it gives neither, or needs inputs that no seed gives.
    """
    foreign = [t for t in spec.inputs if not isinstance(t.role, (Latent, Noise, Label, Scalar))]
    if foreign:
        raise InputError(
            f"{spec.name} does not draw from latents alone",
            got=", ".join(f"{t.name} ({t.role.kind})" for t in foreign),
            expected="inputs that a seed gives: latent, noise, label, scalar",
            remedy="ganexport diff compares such generators with each other",
        )
    for tensor in spec.outputs:
        if isinstance(tensor.role, Image):
            shape = tensor.shape if tensor.role.layout == "CHW" else (tensor.shape[2], *tensor.shape[:2])
            channels, height, width = shape
            if channels in (1, 3) and height is not None and height == width:
                return Judged(tensor, height, channels)
    for tensor in spec.outputs:
        if isinstance(tensor.role, Vector):
            return Judged(tensor, tensor.size, 0)
    raise InputError(
        f"{spec.name} gives nothing that can be judged",
        got=", ".join(f"{t.name} {t.role.kind} {list(t.shape)}" for t in spec.outputs),
        expected="square images of 1 or 3 channels, or vectors",
    )


def samples_of(
    opened: Opened,
    side: Side,
    judged: Judged,
    seed: int,
    first: int,
    count: int,
) -> tuple[Samples, dict[str, NDArray[np.int64]]]:
    """Samples `first` … `first + count - 1` of `seed`: images uint8 [count, H, W, C] or vectors float32 [count, D]; and
    of every label input the classes asked for, int64 [count]."""
    inputs = noise.inputs(side.spec, seed, first, count)
    output = opened.run(inputs)[judged.tensor.name]
    labels = {
        t.name: inputs[t.name].reshape(count, -1)[:, 0].astype(np.int64)
        for t in side.spec.inputs
        if isinstance(t.role, Label)
    }
    if not np.isfinite(output).all():
        raise InputError(
            f"{side.label} gives what is not finite",
            got=f"a sample of seed {seed} among indices {first} to {first + count - 1}",
            remedy=f"ganexport verify {side.label.partition(':')[0]}",
        )
    if not judged.is_image:
        return output.reshape(count, -1).astype(np.float32), labels
    return (output if side.gives_pixels else uint8_from_output(output, judged.tensor)), labels


def chunks_of(
    opened: Opened,
    side: Side,
    judged: Judged,
    classes: Mapping[str, tuple[str, ...]],
    seed: int,
    first: int,
    count: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[Samples, dict[str, NDArray[np.int64]]]]:
    """All samples in chunks, each with attribute -> the class asked for, where a judge tells that attribute."""
    attributes = asked_attributes(side.spec, classes)
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        samples, labels = samples_of(opened, side, judged, seed, first + start, n)
        yield samples, {attribute: numbers[labels[name]] for name, (attribute, numbers) in attributes.items()}
        progress(n)


def asked_attributes(
    spec: GeneratorSpec, classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """Label input -> the attribute that it asks for, and its classes as the attribute numbers them, int64 [classes].

    That is the attribute with the same names of classes, in whatever order; of several, the one of the input's name.
    Where that leaves several, or none, there is no saying what was asked for.
    """
    found = {}
    for tensor in spec.inputs:
        if not isinstance(tensor.role, Label):
            continue
        names = tensor.role.classes
        same = [attribute for attribute, those in classes.items() if sorted(those) == sorted(names)]
        chosen = tensor.name if tensor.name in same else same[0] if len(same) == 1 else None
        if chosen is not None:
            found[tensor.name] = chosen, np.array([classes[chosen].index(name) for name in names], np.int64)
    return found
