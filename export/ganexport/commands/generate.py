"""`ganexport generate`."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ganexport.commands.progress import progress_bar
from ganruntime.spec import GeneratorSpec, Label

_SEEDS = click.IntRange(0, 2**64 - 1)


@click.command(name="generate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-n", "--count", default=64, show_default=True, type=click.IntRange(1), help="How many images.")
@click.option("--seed", default=0, show_default=True, type=_SEEDS, help="Image i of a seed is always the same image.")
@click.option("--first", default=0, show_default=True, type=_SEEDS, help="Index of the first image.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder, NAME.npz or NAME.png.")
@click.option("--label", help="A class name or index, for conditional generators; drawn from the seed by default.")
@click.option("--truncation", type=float, help="ψ, for generators that take it.")
@click.option("--columns", type=click.IntRange(1), help="Columns of a sheet.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="fp32, …, or a variant's name.")
@click.option("--threads", type=click.IntRange(1), help="Compute threads on the CPU; by default all that it may use.")
def command(
    bundle: Path,
    count: int,
    seed: int,
    first: int,
    output: Path,
    label: str | None,
    truncation: float | None,
    columns: int | None,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> None:
    """Draw images: a folder of PNG files, an array (NAME.npz, `images` uint8 [n, H, W, C]) or a sheet (NAME.png).

    Image i of a seed does not depend on how many are drawn or in which order, so a run that was stopped goes on
    with --first.

    \b
    Example:
      ganexport generate digits.gan -n 1000 --seed 7 -o digits/
      ganexport generate digits.gan -n 64 --seed 7 -o sheet.png
    """
    from ganruntime.errors import BackendError, InputError, OutputError
    from ganruntime.generator import load
    from ganruntime.writers import PngFolder, writer_for

    if first + count > 2**64:
        raise InputError("the last index is too large", got=first + count - 1, expected="below 2**64")
    generator = load(bundle, device, backend, precision, threads=threads)
    chosen: dict[str, Any] = {"label": _label(label, generator.spec), "truncation": truncation}
    generator.generate(0, seed=seed, first=first, **chosen)  # refuses what does not fit before a file is made
    drawing_seconds, start = 0.0, time.perf_counter()
    writer = writer_for(output, generator.spec, count, seed, first, columns)
    terminate = signal.signal(signal.SIGTERM, _stop)
    try:
        with generator, writer, progress_bar(count, "drawing") as progress:
            images = generator.stream(count, seed=seed, first=first, **chosen)
            while True:
                mark = time.perf_counter()
                chunk = next(images, None)
                drawing_seconds += time.perf_counter() - mark
                if chunk is None:
                    break
                writer.add(chunk)
                progress(len(chunk))
    except (OutputError, BackendError, KeyboardInterrupt) as error:
        done = writer.written
        so_far = f"{done:,} of {count:,} images are in {output}, whole"
        if done < count:
            # From the start of a batch: cut into the same batches, the rest comes out the same to the last bit.
            done -= done % generator.session.buckets[-1]
            again = {
                "--seed": seed,
                "--first": first + done,
                "-o": output if isinstance(writer, PngFolder) or not done else _beside(output, first + done),
                "--label": label,
                "--truncation": truncation,
                "--columns": columns,
                "--device": device,
                "--backend": backend,
                "--precision": precision,
                "--threads": threads,
            }
            options = [str(word) for pair in again.items() if pair[1] not in (None, "auto") for word in pair]
            rest = shlex.join(["ganexport", "generate", str(bundle), "-n", str(count - done), *options])
            so_far += f"\n            go on with: {rest}"
        if isinstance(error, KeyboardInterrupt):
            click.echo(f"\nstopped: {so_far}", err=True)
            sys.exit(130)
        remedy = f"{error.remedy}\n            {so_far}" if error.remedy else so_far
        raise type(error)(error.problem, got=error.got, expected=error.expected, remedy=remedy) from error
    finally:
        signal.signal(signal.SIGTERM, terminate)
    seconds = time.perf_counter() - start
    about = generator.describe()
    click.echo(
        f"{count:,} images in {seconds:.2f} s -> {output}\n"
        f"{count / seconds:,.0f} images/s, drawing alone {count / drawing_seconds:,.0f} images/s: "
        f"{about['variant']} on {about['backend']} {about['device']} ({about['device_chosen_because']})"
    )


def _label(text: str | None, spec: GeneratorSpec) -> str | int | None:
    """A class name as it is, and an index as a number; names come first, for classes may be called 0 to 9."""
    names = {name for t in spec.inputs if isinstance(t.role, Label) for name in t.role.classes}
    return int(text) if text is not None and text not in names and text.isdecimal() else text


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _beside(output: Path, first: int) -> Path:
    """A second file for what is missing: the first one holds images already."""
    return output.with_name(f"{output.stem}-from-{first}{output.suffix}")
