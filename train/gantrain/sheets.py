"""Sample sheets: what the averaged generator makes of the seed's first inputs, images or vectors."""

from __future__ import annotations

import PIL.Image
from torch import nn

from ganruntime.images import sheet_from_images, uint8_from_output
from ganruntime.spec import GeneratorSpec
from gantrain.data.source import ImageSource
from gantrain.plan import Plan
from gantrain.samples import samples_of
from gantrain.vector_picture import REAL_VECTORS, picture_from_vectors

_LEAST_SIDE = 64  # smaller images are enlarged to about this


def sheet_of(plan: Plan, generator: nn.Module, spec: GeneratorSpec) -> PIL.Image.Image:
    """The first `sample_images` samples of the run's seed: those that `ganexport generate --seed SEED` begins with."""
    output, _ = samples_of(generator, spec, plan.record.seed, 0, plan.settings.sample_images, plan.device)
    if isinstance(plan.data, ImageSource):
        size = output.shape[-1]
        return sheet_from_images(uint8_from_output(output, spec.outputs[0]), scale=max(1, _LEAST_SIDE // size))
    return picture_from_vectors(output, plan.data.rows(0, REAL_VECTORS))
