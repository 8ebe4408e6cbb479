"""`ganexport invert`."""

from __future__ import annotations

from pathlib import Path

import click

from ganexport.commands.progress import progress_bar
from ganexport.commands.stopping import sigterm_stops


@click.command(name="invert")
@click.argument("picture", metavar="IMAGE", type=click.Path(path_type=Path))
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="NAME.npz, for the latent.")
@click.option(
    "--picture",
    "shown",
    type=click.Path(path_type=Path),
    help="A PNG of the image and what the latent draws. [default: NAME-pair.png]",
)
@click.option(
    "--space",
    default="z",
    show_default=True,
    type=click.Choice(["z", "w"]),
    help="w, of a StyleGAN2, comes nearer to images that it does not draw.",
)
@click.option("--steps", default=400, show_default=True, type=click.IntRange(1), help="Of gradient descent.")
@click.option(
    "--restarts", default=4, show_default=True, type=click.IntRange(1), help="Descents, of which the best wins."
)
@click.option(
    "--candidates",
    default=512,
    show_default=True,
    type=click.IntRange(1),
    help="Latents drawn, of which the nearest are descended from.",
)
@click.option("--rate", default=0.1, show_default=True, type=click.FloatRange(0, min_open=True), help="Of Adam.")
@click.option(
    "--prior",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(0),
    help="How much the latent is drawn to where the generator was trained.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Of the candidates.")
@click.option("--label", help="A class name or index; by default the candidates are of all classes.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@sigterm_stops()
def command(
    picture: Path,
    checkpoint: Path,
    output: Path,
    shown: Path | None,
    space: str,
    steps: int,
    restarts: int,
    candidates: int,
    rate: float,
    prior: float,
    seed: int,
    label: str | None,
    device: str,
) -> None:
    """Find the latent whose image is nearest to IMAGE, by gradient descent through the generator of CHECKPOINT.

    A picture shows both side by side, and the PSNR says how near they are. What was found draws its image again from
    the bundle of the same checkpoint: generate NAME.gan -n 1 --input z=NAME.npz.

    \b
    Example:
      ganexport invert me.png runs/faces -o me.npz
      ganexport invert me.png runs/faces -o me.npz --space w --steps 1000 --restarts 8
    """
    from ganexport.commands.generate import label_from_text
    from ganexport.inverting import class_index, npz_from_inversion, png_from_inversion, target_from_picture
    from ganexport.source import generator_from_checkpoint
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically

    if output.suffix != ".npz":
        raise InputError("the latent goes to an .npz file", got=str(output), expected="-o NAME.npz")
    shown = output.with_name(f"{output.stem}-pair.png") if shown is None else shown
    if shown.suffix != ".png":
        raise InputError("the picture goes to a .png file", got=str(shown), expected="--picture NAME.png")
    if shown.resolve() == picture.resolve():
        raise InputError("the picture of the result would replace the image", got=str(shown), expected="another name")
    source = generator_from_checkpoint(checkpoint)
    from gantrain.inversion import invert, require_invertible
    from gantrain.plan import device_from_name

    image = require_invertible(source.module, source.spec, space)
    target = target_from_picture(picture, image)
    with progress_bar(steps, "descending") as progress:
        found = invert(
            source.module.to(device_from_name(device)),
            source.spec,
            target,
            space=space,
            steps=steps,
            restarts=restarts,
            candidates=candidates,
            rate=rate,
            prior=prior,
            seed=seed,
            label=class_index(label_from_text(label, source.spec), source.spec),
            on_step=lambda step, loss: progress(1),
        )
    write_atomically(output, npz_from_inversion(found, source.spec))
    write_atomically(shown, png_from_inversion(found, target))
    others = ", ".join(f"{value:.1f}" for value in found.restarts_psnr_db[1:])
    click.echo(
        f"PSNR {found.psnr_db:.1f} dB"
        + (f", the other descents {others}" if others else "")
        + f"; the best of {candidates} latents drawn had {found.start_psnr_db:.1f} -> {output}, {shown}"
    )
