"""A generator that a judge looks at: its images by latent, and a judge of the data that it learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganexport.comparison.side import Side
from ganexport.inverting import class_index
from ganruntime import noise
from ganruntime.errors import InputError, MissingDependencyError
from ganruntime.images import uint8_from_output
from ganruntime.spec import Image, Label, Latent, TensorSpec

if TYPE_CHECKING:
    from ganexport.arithmetic import Draw
    from gantrain.metrics.judge import Judge

_BATCH = 256


def latent_and_image(side: Side) -> tuple[TensorSpec, TensorSpec]:
    """The one latent and the one image of a generator that draws from nothing else. Raises `InputError` for others."""
    spec = side.spec
    found = [t for t in spec.inputs if isinstance(t.role, Latent)]
    images = [t for t in spec.outputs if isinstance(t.role, Image)]
    missing = [t.name for t in spec.inputs if t.name not in noise.inputs(spec, 0, 0, 1)]
    if len(found) != 1 or len(images) != 1 or None in images[0].shape or missing:
        raise InputError(
            f"{spec.name} has no latent whose images could be judged",
            got=f"{', '.join(t.role.kind for t in spec.inputs)} -> {', '.join(t.role.kind for t in spec.outputs)}",
            expected="a generator that draws images of one size from one latent",
        )
    return found[0], images[0]


@contextlib.contextmanager
def drawing(side: Side, device: str, label: str | int | None) -> Iterator[Draw]:
    """The generator as a function (latents [N, …], index of the first) -> images uint8 [N, H, W, C].

    Raises:
        InputError: it takes labels and none is given, or the other way round.
    """
    latent, image = latent_and_image(side)
    spec, index = side.spec, class_index(label, side.spec)
    labels = [t.name for t in spec.inputs if isinstance(t.role, Label)]
    if labels and index is None:
        raise InputError(f"{spec.name} draws classes", expected="one of them for all images", remedy="--label NAME")
    with side.opened(device, _BATCH) as opened:

        def draw(z: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
            inputs = noise.inputs(spec, 0, first, len(z)) | {latent.name: z}
            for name in labels:
                inputs[name] = np.full_like(inputs[name], index)
            output = opened.run(inputs)[image.name]
            return output.astype(np.uint8) if side.gives_pixels else uint8_from_output(output, image)

        yield draw


def judge_for(side: Side, data: str) -> Judge:
    """A judge of the data, at the size of the generator's images.

    Raises:
        DataError, InputError: there is no such data, or it has no labels.
        MissingDependencyError: torch or safetensors is not installed.
    """
    try:
        from gantrain.data.named import source_from_name
        from gantrain.metrics.judge import judge_of
    except ImportError as error:
        raise MissingDependencyError(
            "judging images needs a package that is not installed",
            got=str(error),
            remedy='pip install "ganexport[train]"',
        ) from error
    _, image = latent_and_image(side)
    shape = (
        image.shape
        if isinstance(image.role, Image) and image.role.layout == "CHW"
        else image.shape[2:] + image.shape[:2]
    )
    channels, height, width = (d or 0 for d in shape)
    if height != width:
        raise InputError(f"{side.spec.name} draws images that are not square", got=f"{width}×{height}")
    return judge_of(source_from_name(data, height, channels))
