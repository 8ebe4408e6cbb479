"""`ganexport arithmetic`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganexport.commands.stopping import sigterm_stops


@click.command(name="arithmetic")
@click.argument("generator", metavar="CHECKPOINT|NAME.gan")
@click.option("--data", required=True, help="What it learned, with labels: faces, digits, or a path.")
@click.option(
    "--take", required=True, metavar="TERM", help="attribute=class,attribute=class: the latents to begin with."
)
@click.option("--minus", required=True, metavar="TERM", help="What is taken away from them.")
@click.option("--plus", required=True, metavar="TERM", help="What is added.")
@click.option(
    "--exemplars", default=16, show_default=True, type=click.IntRange(1), help="Latents that each term averages."
)
@click.option("--trials", default=200, show_default=True, type=click.IntRange(1), help="Results to judge.")
@click.option(
    "--sample", default=4096, show_default=True, type=click.IntRange(1), help="Images to choose latents from."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Of latents and choices.")
@click.option("--label", help="A class name or index, of a generator that takes one.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A PNG: the three terms and the result, row by row."
)
@click.option("--rows", default=8, show_default=True, type=click.IntRange(1), help="Rows of that picture.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@sigterm_stops()
def command(
    generator: str,
    data: str,
    take: str,
    minus: str,
    plus: str,
    exemplars: int,
    trials: int,
    sample: int,
    seed: int,
    label: str | None,
    output: Path | None,
    rows: int,
    device: str,
    as_json: bool,
) -> None:
    """Add and subtract latents by what their images show, and judge what comes of it.

    Of --sample images a judge says what they show. Each term is the average of --exemplars latents whose images show
    it; the result should show what TAKE has and MINUS lacks on top of PLUS. The judge is a classifier fitted to three
    quarters of the data, and its accuracy on the last quarter is printed.

    \b
    Example:
      ganexport arithmetic faces.gan --data faces --take glasses=sun --minus glasses=none --plus glasses=none
    """
    from ganexport.arithmetic import arithmetic, conditions_from_text, judged_sample, wanted_from_terms
    from ganexport.commands.generate import label_from_text
    from ganexport.comparison.side import side_from_text
    from ganexport.judged_side import drawing, judge_for, latent_and_image
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically

    if output is not None and output.suffix != ".png":
        raise InputError("the picture goes to a .png file", got=str(output), expected="-o NAME.png")
    side = side_from_text(generator)
    latent, _ = latent_and_image(side)
    judge = judge_for(side, data)
    first, second, third = (conditions_from_text(text, judge.classes) for text in (take, minus, plus))
    wanted_from_terms(first, second, third)  # before anything is drawn
    with drawing(side, device, label_from_text(label, side.spec)) as draw:
        drawn = judged_sample(draw, latent, judge, seed, sample)
        result = arithmetic(
            draw, latent, judge, drawn, (first, second, third), exemplars=exemplars, trials=trials, seed=seed
        )
    if output is not None:
        write_atomically(output, _png(result.images[:rows]))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "wanted": dict(result.wanted),
                    "success": result.success,
                    "each": dict(result.each),
                    "chance": result.chance,
                    "trials": trials,
                    "exemplars": exemplars,
                    "sample": sample,
                    "found": dict(zip(("take", "minus", "plus"), result.found, strict=True)),
                    "judge": judge.name,
                    "held_out_accuracy": {name: judge.accuracy[name] for name in result.wanted},
                },
                indent=2,
            )
        )
        return
    told = ", ".join(f"{judge.accuracy[name]:.1%} of {name}" for name in result.wanted)
    click.echo(f"judge     {judge.name}: right on held-out images for {told}")
    for sign, text, found in zip((" ", "-", "+"), (take, minus, plus), result.found, strict=True):
        click.echo(f"{sign} {text}  (shown by {found:,} of {sample:,} images)")
    parts = ", ".join(f"{name}={value} in {result.each[name]:.1%}" for name, value in result.wanted.items())
    click.echo(f"= {result.success:.1%} of {trials:,} results as wanted: {parts}")
    click.echo(f"chance    {result.chance:.1%} of images drawn at random")
    if output is not None:
        click.echo(f"picture   {output}")


def _png(images: object) -> bytes:
    """uint8 [rows, 4, H, W, C] as a sheet of four columns."""
    import io

    import numpy as np

    from ganruntime.images import sheet_from_images

    pixels = np.asarray(images, np.uint8)
    file = io.BytesIO()
    scale = max(1, 96 // pixels.shape[2])
    sheet_from_images(pixels.reshape(-1, *pixels.shape[2:]), columns=4, padding=4, scale=scale).save(file, "png")
    return file.getvalue()
