"""`ganexport interpolate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ganexport.commands.generate import label_from_text
from ganexport.commands.progress import progress_bar
from ganexport.commands.stopping import sigterm_stops

_INDEX = click.IntRange(0, 2**64 - 1)


@click.command(name="interpolate")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.argument("more", metavar="[INDEX]...", nargs=-1, type=_INDEX)
@click.option(
    "--between",
    "anchors",
    required=True,
    multiple=True,
    type=_INDEX,
    metavar="INDEX INDEX...",
    help="Images of the seed to go through, two or more.",
)
@click.option("--seed", default=0, show_default=True, type=_INDEX, help="Of the images.")
@click.option("--steps", default=16, show_default=True, type=click.IntRange(1), help="From one image to the next.")
@click.option("--loop", is_flag=True, help="Return to the first image.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="NAME.gif, NAME.mp4 or NAME.png.")
@click.option("--fps", default=25.0, show_default=True, type=click.FloatRange(0.1, 100), help="Frames a second.")
@click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 64), help="Pixels to a side of a pixel.")
@click.option("--columns", type=click.IntRange(1), help="Frames in a row of a PNG; all by default.")
@click.option("--label", help="A class name or index; by default that of the first image.")
@click.option("--truncation", type=float, help="ψ, for generators that take it.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="fp32, …, or a variant's name.")
@click.option("--threads", type=click.IntRange(1), help="Compute threads on the CPU; by default all that it may use.")
@sigterm_stops()
def command(
    bundle: Path,
    more: tuple[int, ...],
    anchors: tuple[int, ...],
    seed: int,
    steps: int,
    loop: bool,
    output: Path,
    fps: float,
    scale: int,
    columns: int | None,
    label: str | None,
    truncation: float | None,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> None:
    """Move from image to image: a film (NAME.gif, NAME.mp4) or a strip (NAME.png).

    Normal and spherical latents turn on great circles, others go straight. Label, per-layer noise and truncation stay
    those of the first image.

    \b
    Example:
      ganexport interpolate digits.gan --seed 7 --between 3 8 12 --steps 24 --loop -o film.gif
      ganexport interpolate digits.gan --between 3 8 --steps 9 -o strip.png
    """
    from ganexport.between import anchors as anchors_of
    from ganexport.between import images_between, latent_of
    from ganexport.films import require_film, write_film
    from ganruntime import latents
    from ganruntime.errors import InputError
    from ganruntime.generator import load
    from ganruntime.sessions.base import fixed_shape

    indices = anchors + more
    if len(indices) < 2:
        raise InputError("there is nothing between one image", got=indices[0], expected="--between INDEX INDEX...")
    frames = (len(indices) - (not loop)) * steps + (not loop)
    with load(bundle, device, backend, precision, threads=threads) as generator:
        tensor, image = latent_of(generator), generator.spec.image
        if image is None:
            raise InputError(f"{generator.spec.name} draws no images")
        channels = image.channels or 0
        side = fixed_shape(image)
        height, width = (s * scale for s in (side[1:] if side[0] == channels else side[:2]))
        require_film(output, frames, height, width, channels, columns=columns)
        path = latents.path(tensor, anchors_of(generator, seed, indices), steps, closed=loop)
        inputs: dict[str, Any] = {"label": label_from_text(label, generator.spec), "truncation": truncation}
        with progress_bar(len(path), "drawing") as progress:
            drawn = images_between(generator, path, seed, indices[0], _given(inputs), progress)
    write_film(output, drawn, fps=fps, scale=scale, columns=columns)
    click.echo(f"{len(drawn):,} frames through {', '.join(map(str, indices))} of seed {seed} -> {output}")


def _given(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if value is not None}
