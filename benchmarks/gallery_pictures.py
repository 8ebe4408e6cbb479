"""Pictures of the gallery: a sheet of what a bundle draws, and the strip that `ganexport recipes --preview` shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

import ganruntime
from ganruntime import Generator
from ganruntime.images import sheet_from_images
from ganruntime.roles import Label
from gantrain.previews import COLUMNS, ROWS
from gantrain.run_folder import sample_sheets

SHEET_ROWS = 4
SHEET_WIDTH = 640  # about, in pixels
COLOURS = 128  # of a palette; drawn faces lose nothing that can be seen
VECTORS_SIDE, VECTORS_PREVIEW = 256, 64
MOST_CLASS_COLUMNS = 12


def sheet_of(bundle: Path, seed: int) -> bytes:
    """A PNG of the seed's first images; of a conditional generator a column a class, a latent a row."""
    with ganruntime.load(bundle, threads=1) as generator:
        side = int(generator.spec.outputs[0].shape[-1])
        scale = max(2, 48 // side)
        classes = classes_of(generator)
        columns = min(len(classes), MOST_CLASS_COLUMNS) or SHEET_WIDTH // (scale * side + 2)
        rows = SHEET_ROWS if side > 16 else SHEET_ROWS + 2
        images = _images(generator, seed, rows, columns, classes[:columns])
    return png_of(sheet_from_images(images, columns=columns, scale=scale))


def sheet_of_vectors(run: Path) -> bytes:
    """The run's own last picture of its vectors, smaller."""
    with PIL.Image.open(list(sample_sheets(run).values())[-1]) as picture:
        return png_of(picture.convert("RGB").resize((VECTORS_SIDE, VECTORS_SIDE), PIL.Image.Resampling.BOX))


def preview_of_vectors(run: Path) -> bytes:
    """The same as small as a preview."""
    with PIL.Image.open(list(sample_sheets(run).values())[-1]) as picture:
        return png_of(picture.convert("RGB").resize((VECTORS_PREVIEW, VECTORS_PREVIEW), PIL.Image.Resampling.BOX))


def preview_of(bundle: Path, seed: int) -> bytes:
    """A PNG of `ROWS` × `COLUMNS` images without frames, each as large as it is drawn."""
    with ganruntime.load(bundle, threads=1) as generator:
        images = _images(generator, seed, ROWS, COLUMNS, classes_of(generator)[:COLUMNS])
    return png_of(sheet_from_images(images, columns=COLUMNS, padding=0))


def classes_of(generator: Generator) -> tuple[str, ...]:
    """The classes that images can be asked for; none of an unconditional generator."""
    roles = [tensor.role for tensor in generator.spec.inputs]
    return next((tuple(role.classes) for role in roles if isinstance(role, Label)), ())


def png_of(picture: PIL.Image.Image) -> bytes:
    """A small PNG: grey as it is, colours through a palette."""
    if picture.mode == "RGB":
        picture = picture.quantize(COLOURS, PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _images(generator: Generator, seed: int, rows: int, columns: int, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """uint8 [rows · columns, H, W, C]. With fewer classes than columns they repeat, with other latents."""
    if not classes:
        return generator.generate(rows * columns, seed=seed)
    blocks = []
    for column in range(columns):
        first = column // len(classes) * rows
        blocks.append(generator.generate(rows, seed=seed, first=first, label=classes[column % len(classes)]))
    return np.stack(blocks, axis=1).reshape(-1, *blocks[0].shape[1:])
