"""`ganexport diff`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ganexport.commands.progress import progress_bar

if TYPE_CHECKING:
    from ganexport.parity import Floors


@click.command(name="diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("-n", "--latents", default=1024, show_default=True, type=click.IntRange(1), help="How many latents.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Their seed, the same for both."
)
@click.option("--first", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Index of the first.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="HxW",
    help="Where height and width vary: those to compare at, all latents at each; may be given again. [default: those "
    "that an export is proven at, all latents at the first and fewer at the others]",
)
@click.option("--device", default="cpu", show_default=True, help="Where graphs and PyTorch run: cpu, cuda or cuda:N.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.png", help="A picture of the worst cases."
)
@click.option(
    "--worst", "keep", default=8, show_default=True, type=click.IntRange(1, 32), help="How many worst cases to show."
)
@click.option(
    "--bound",
    type=float,
    metavar="NUMBER",
    help="Exit 1 unless the largest error, in the output's units, is within it.",
)
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Exit 1 unless this is kept: psnr in dB and ssim, of the worst image; levels, the largest pixel difference. "
    "May be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    a: str,
    b: str,
    latents: int,
    seed: int,
    first: int,
    sizes: tuple[str, ...],
    device: str,
    output: Path | None,
    keep: int,
    bound: float | None,
    floors: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare two generators on the same latents: figures, and a picture of the worst cases.

    A and B are each a bundle (NAME.gan: the variant that would be loaded), one of its variants (NAME.gan:int8, or :int8
    where A is a bundle), or a checkpoint or run folder, which PyTorch runs. They may be of different trainings, but
    must take and give the same. A is the reference: PSNR, SSIM and errors say how far B is from it.

    The exit code is 0 whatever the figures say; with --bound or --floor it is 1 where B does not keep to them, which
    includes values that are finite and a spread over latents within 10 % of A's, as for every variant of a bundle.

    \b
    Example:
      ganexport diff digits.gan :int8 -o worst.png
      ganexport diff runs/digits digits.gan:fp16 --floor psnr=55
      ganexport diff digits-1000.gan digits-2000.gan -n 4096 --seed 7 --json
      ganexport diff unet.gan :int8 --size 256x256 --size 720x1280 -n 16
    """
    from ganexport.comparison.comparison import require_picture
    from ganexport.comparison.picture import png_from_comparison
    from ganexport.comparison.report import json_from_comparisons, text_from_comparisons
    from ganexport.comparison.side import side_from_text
    from ganexport.comparison.sizes import (
        compare_at_sizes,
        latents_at,
        problems_at_sizes,
        sizes_from_texts,
        worst_comparison,
    )
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically

    held_to = _floors(floors)
    if bound is not None and not 0 <= bound < float("inf"):
        raise InputError("--bound is not one", got=bound, expected="a number, 0 or more")
    _require_png(output)
    side_a = side_from_text(a)
    side_b = side_from_text(b, side_a)
    shown = require_picture(side_a.spec) if output is not None else None
    at = sizes_from_texts(sizes, side_a.spec)
    counts = latents_at(at, latents, chosen=bool(sizes))
    with progress_bar(sum(counts), "comparing") as progress:
        found = compare_at_sizes(
            side_a, side_b, at, counts, seed=seed, first=first, device=device, keep=keep, progress=progress
        )
    problems = problems_at_sizes(found, [comparison.problems(bound, held_to) for comparison in found])
    written = str(output) if output is not None else None
    click.echo(
        json.dumps(json_from_comparisons(found, problems, written), indent=2)
        if as_json
        else text_from_comparisons(found, side_a, side_b)
    )
    if output is not None and shown is not None:
        worst = worst_comparison(found, shown.name)
        (pictured,) = (o for o in worst.outputs if o.tensor.name == shown.name)
        write_atomically(output, png_from_comparison(worst, pictured))
        click.echo(f"written: {output}", err=as_json)
    if problems and not as_json:
        click.echo("\n".join(["", *problems]))
    sys.exit(1 if problems else 0)


def _floors(texts: tuple[str, ...]) -> Floors | None:
    from ganexport.commands.precision import floors_from_text
    from ganexport.parity import Floors

    given = floors_from_text(texts)
    nothing = {"psnr_db": float("-inf"), "ssim": float("-inf"), "levels": float("inf")}
    return Floors(**(nothing | given)) if given else None


def _require_png(output: Path | None) -> None:
    """Raises `InputError` or `OutputError` before minutes of comparing, and not after."""
    from ganruntime.errors import InputError
    from ganruntime.writers import require_file_name

    if output is None:
        return
    if output.suffix.lower() != ".png":
        raise InputError(f"{output}: the picture is a PNG file", expected="-o NAME.png")
    require_file_name(output)
