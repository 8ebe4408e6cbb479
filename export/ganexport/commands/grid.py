"""`ganexport grid`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click

from ganexport.commands.generate import label_from_text
from ganexport.commands.progress import progress_bar
from ganexport.commands.stopping import sigterm_stops

_INDEX = click.IntRange(0, 2**64 - 1)


@click.command(name="grid")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.option(
    "--corners",
    nargs=4,
    type=_INDEX,
    default=(0, 1, 2, 3),
    show_default=True,
    help="Images of the seed: top left, top right, bottom left, bottom right.",
)
@click.option("--seed", default=0, show_default=True, type=_INDEX, help="Of the images.")
@click.option("--rows", default=8, show_default=True, type=click.IntRange(2, 100), help="Of the sheet.")
@click.option("--columns", default=8, show_default=True, type=click.IntRange(2, 100), help="Of the sheet.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="NAME.png.")
@click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 64), help="Pixels to a side of a pixel.")
@click.option("--label", help="A class name or index; by default that of the first corner.")
@click.option("--truncation", type=float, help="ψ, for generators that take it.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="fp32, …, or a variant's name.")
@click.option("--threads", type=click.IntRange(1), help="Compute threads on the CPU; by default all that it may use.")
@sigterm_stops()
def command(
    bundle: Path,
    corners: tuple[int, int, int, int],
    seed: int,
    rows: int,
    columns: int,
    output: Path,
    scale: int,
    label: str | None,
    truncation: float | None,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> None:
    """Spread a sheet between four images, interpolated down and across.

    \b
    Example:
      ganexport grid digits.gan --seed 7 --corners 0 1 2 3 --rows 8 --columns 8 -o grid.png
    """
    from ganexport.between import anchors, images_between, latent_of
    from ganruntime import latents
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically
    from ganruntime.generator import load
    from ganruntime.images import sheet_from_images
    from ganruntime.writers import require_file_name

    if output.suffix.lower() != ".png":
        raise InputError(f"{output} is not a name for a PNG", expected="NAME.png")
    require_file_name(output)
    with load(bundle, device, backend, precision, threads=threads) as generator:
        tensor, image = latent_of(generator), generator.spec.image
        if image is None or image.channels not in (1, 3, 4):
            raise InputError(f"{generator.spec.name} draws no pictures", expected="1, 3 or 4 channels")
        sheet = latents.grid(tensor, anchors(generator, seed, corners), rows, columns)
        chosen: dict[str, Any] = {"label": label_from_text(label, generator.spec), "truncation": truncation}
        with progress_bar(rows * columns, "drawing") as progress:
            drawn = images_between(
                generator,
                sheet.reshape(rows * columns, *tensor.shape),
                seed,
                corners[0],
                {name: value for name, value in chosen.items() if value is not None},
                progress,
            )
    buffer = io.BytesIO()
    sheet_from_images(drawn, columns, scale=scale).save(buffer, "PNG")
    write_atomically(output, buffer.getvalue())
    click.echo(f"{rows} × {columns} images between {', '.join(map(str, corners))} of seed {seed} -> {output}")
