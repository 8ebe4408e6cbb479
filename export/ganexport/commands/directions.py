"""`ganexport directions`."""

from __future__ import annotations

import io
from pathlib import Path

import click

from ganexport.commands.stopping import sigterm_stops

_PAIRS = 4  # in a row of the picture


@click.command(name="directions")
@click.argument("generator", metavar="CHECKPOINT|NAME.gan")
@click.option("--data", required=True, help="What it learned, with labels: faces, digits, or a path.")
@click.option(
    "--attribute", "attributes", multiple=True, help="Of which attribute; may be given again. [default: all of them]"
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="NAME.npz, for the directions.")
@click.option("--picture", type=click.Path(path_type=Path), help="A PNG: for each direction images before and after.")
@click.option(
    "--method",
    default="logistic",
    show_default=True,
    type=click.Choice(["logistic", "means"]),
    help="Logistic regression, or the difference of the means.",
)
@click.option("--sample", default=4096, show_default=True, type=click.IntRange(1), help="Images to learn from.")
@click.option("--trials", default=100, show_default=True, type=click.IntRange(8), help="Images to move.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Of the latents.")
@click.option("--label", help="A class name or index, of a generator that takes one.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@sigterm_stops()
def command(
    generator: str,
    data: str,
    attributes: tuple[str, ...],
    output: Path,
    picture: Path | None,
    method: str,
    sample: int,
    trials: int,
    seed: int,
    label: str | None,
    device: str,
) -> None:
    """Find where to move in latent space so that an image shows a class, and measure what moving does.

    A judge says what --sample images show, and a direction is fitted for each class. Images that do not show it are
    then moved: `shows it` is how many do afterwards, `others kept` how many of their other attributes stayed. The file
    holds the directions by name, glasses=sun, of length 1, and beside each its strength.

    \b
    Example:
      ganexport directions runs/faces --data faces --attribute glasses -o glasses.npz --picture glasses.png
    """
    import numpy as np

    from ganexport.arithmetic import judged_sample
    from ganexport.commands.generate import label_from_text
    from ganexport.comparison.side import side_from_text
    from ganexport.directions import direction_of, move
    from ganexport.judged_side import drawing, judge_for, latent_and_image
    from ganexport.tables import table
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically
    from ganruntime.images import sheet_from_images

    for path, suffix, option in ((output, ".npz", "-o NAME.npz"), (picture, ".png", "--picture NAME.png")):
        if path is not None and path.suffix != suffix:
            raise InputError(f"this goes to a {suffix} file", got=str(path), expected=option)
    side = side_from_text(generator)
    latent, _ = latent_and_image(side)
    judge = judge_for(side, data)
    for name in attributes:
        if name not in judge.classes:
            raise InputError("the images have no such attribute", got=repr(name), expected=", ".join(judge.classes))
    arrays, rows, shown = {}, [], []
    with drawing(side, device, label_from_text(label, side.spec)) as draw:
        drawn = judged_sample(draw, latent, judge, seed, sample)
        for attribute in attributes or tuple(judge.classes):
            for name in judge.classes[attribute]:
                text = f"{attribute}={name}"
                try:
                    found = direction_of(drawn, judge.classes[attribute], attribute, name, method)
                    made = move(draw, latent, judge, drawn, found, trials)
                except InputError as error:
                    rows.append([text, "–", "–", "–", "–", "–", str(error.got)])
                    continue
                arrays[text] = found.vector
                arrays[f"{text} strength"] = np.asarray(made.strength, np.float32)
                rows.append(
                    [
                        text,
                        f"{found.shown:,}",
                        f"{found.accuracy:.1%}",
                        f"{made.strength:g}",
                        f"{made.success:.1%}",
                        f"{made.kept:.1%}",
                        "",
                    ]
                )
                shown.append(made.images[:_PAIRS].reshape(-1, *made.images.shape[2:]))
    if not arrays:
        raise InputError("no direction was found", got="; ".join(f"{row[0]}: {row[-1]}" for row in rows)[:300])
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    write_atomically(output, file.getvalue())
    told = ", ".join(f"{judge.accuracy[name]:.1%} of {name}" for name in attributes or tuple(judge.classes))
    click.echo(f"judge {judge.name}: right on held-out images for {told}")
    header = ["direction", "shown by", "told apart", "strength", "shows it", "others kept", ""]
    click.echo(table(rows, header, right=frozenset(range(1, 6))))
    if picture is not None:
        images = np.concatenate(shown)
        sheet = sheet_from_images(images, columns=2 * _PAIRS, scale=max(1, 64 // images.shape[1]))
        file = io.BytesIO()
        sheet.save(file, "png")
        write_atomically(picture, file.getvalue())
    click.echo(" ".join(str(path) for path in (output, picture) if path is not None))
