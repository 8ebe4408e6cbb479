"""`ganexport generate`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ganexport.commands.progress import progress_bar
from ganexport.commands.stopping import sigterm_stops
from ganruntime.spec import GeneratorSpec, Label

if TYPE_CHECKING:
    from ganruntime.image_writer import ImageWriter
    from ganruntime.writers import Destination

_SEEDS = click.IntRange(0, 2**64 - 1)


@click.command(name="generate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-n", "--count", type=click.IntRange(1), help="How many images. [default: 64; one per picture of an --input folder]"
)
@click.option("--seed", default=0, show_default=True, type=_SEEDS, help="Image i of a seed is always the same image.")
@click.option("--first", default=0, show_default=True, type=_SEEDS, help="Index of the first image.")
@click.option("-o", "--output", required=True, help="FOLDER/, NAME.npz, NAME.npy or NAME.png (a sheet).")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["files", "tar", "npz", "npy", "sheet"]),
    help="files: a file per image; tar: WebDataset-style shards. [default: what the path says; files for a folder]",
)
@click.option(
    "--image-format",
    default="png",
    show_default=True,
    type=click.Choice(["png", "jpeg", "webp"]),
    help="Of the files in a folder or in shards.",
)
@click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP. [default: 95 and 90]")
@click.option("--shard-images", type=click.IntRange(1), help="Images in a shard of --format tar. [default: 1024]")
@click.option("--encoders", type=click.IntRange(1), help="Threads that encode images; by default one per core.")
@click.option("--label", help="A class name or index, for conditional generators; drawn from the seed by default.")
@click.option("--truncation", type=float, help="ψ, for generators that take it.")
@click.option(
    "--input",
    "given",
    multiple=True,
    metavar="NAME=FILE",
    help="An input that no seed gives, or another than it gives: a picture for all images; a folder of pictures, one "
    "for each; an array (.npy, .npz, .json); or a value: a number, a class name, JSON in brackets. Repeatable.",
)
@click.option("--columns", type=click.IntRange(1), help="Columns of a sheet.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="fp32, …, or a variant's name.")
@click.option("--threads", type=click.IntRange(1), help="Compute threads on the CPU; by default all that it may use.")
@click.option(
    "--tuning",
    default="throughput",
    show_default=True,
    type=click.Choice(["throughput", "latency", "off"]),
    help="What of `ganexport tune` is taken on the machine that it was run on, where backend or precision is auto.",
)
def command(
    bundle: Path,
    count: int | None,
    seed: int,
    first: int,
    output: str,
    format_: str | None,
    image_format: str,
    quality: int | None,
    shard_images: int | None,
    encoders: int | None,
    label: str | None,
    truncation: float | None,
    given: tuple[str, ...],
    columns: int | None,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
    tuning: str,
) -> None:
    """Draw images: a folder of files, tar shards, one array (`images` uint8 [n, H, W, C]) or a sheet.

    Image i of a seed does not depend on how many are drawn or in which order. A folder or shards that were stopped, or
    killed, go on with the same command: what is whole is checked and kept, and the end is the same to the last bit.

    \b
    Example:
      ganexport generate digits.gan -n 1000 --seed 7 -o digits/
      ganexport generate digits.gan -n 64 --seed 7 -o sheet.png
      ganexport generate digits.gan -n 1000000 --seed 7 -o shards/ --format tar
      ganexport generate digits.gan -n 1000 --seed 7 -o digits-jpeg/ --image-format jpeg --quality 90
      ganexport generate faces.gan -n 64 --label glasses --truncation 0.7 -o faces.png
      ganexport generate pix2pix.gan --input photo=photos/ -o drawings/
      ganexport generate motion.gan --input photo=me.png --input pose=poses.npy --input strength=0.5 -o frames/
    """
    from ganruntime.bundle import read_bundle
    from ganruntime.encoding import Encoding
    from ganruntime.errors import BackendError, GanError, InputError, OutputError
    from ganruntime.generator import load
    from ganruntime.input_files import inputs_from_texts, named_texts
    from ganruntime.pipeline import write_images
    from ganruntime.run_resume import begun_as, begun_request, load_arguments, picked_otherwise
    from ganruntime.runs import FOLDER_FORMATS, BundleRecord, request_from
    from ganruntime.writers import SHARD_IMAGES, destination_from_path, require_drawable, writer_for

    destination = destination_from_path(output, format_)
    encoding = Encoding(image_format, quality)
    _refuse_options_without_use(destination, image_format, quality, shard_images)
    opened = read_bundle(bundle)
    named: dict[str, Any] = {"device": device, "backend": backend, "precision": precision, "threads": threads}
    begun = begun_request(destination.path, opened, **named) if destination.format in FOLDER_FORMATS else None
    if begun is None:
        generator = load(opened, tuning=tuning, **named)
    else:
        now = picked_otherwise(begun, opened, tuning=tuning, **named)
        if now is not None:
            said = f"{destination.path} goes on as it was begun: {begun_as(begun)}; picked now would be: {now}"
            click.echo(said, err=True)
        try:
            generator = load(opened, **load_arguments(begun, threads))
        except GanError as error:
            raise type(error)(
                f"{destination.path} does not go on here as it was begun, {begun_as(begun)}: {error.problem}",
                got=error.got,
                expected=error.expected,
                remedy="go on with it on a machine like the one that it was begun on, or choose another folder",
            ) from error
    chosen: dict[str, Any] = {
        name: value
        for name, value in (("label", label_from_text(label, generator.spec)), ("truncation", truncation))
        if value is not None
    }
    if truncation is not None:
        inputs_from_texts(generator.spec, {"truncation": str(truncation)})  # refuses what is out of its range
    values, files = inputs_from_texts(generator.spec, named_texts(given))
    labelled = next((t.name for t in generator.spec.inputs if isinstance(t.role, Label)), "label")
    for option, name in (("label", labelled), ("truncation", "truncation")):
        if option in chosen and (name in values or name in files.names):
            raise InputError(f"input {name!r} was given twice", got=f"--{option} and --input {name}=", expected="one")
    chosen |= values
    files.require_all(chosen)
    count = count or files.default_count(first, chosen)
    if first + count > 2**64:
        raise InputError("the last index is too large", got=first + count - 1, expected="below 2**64")
    files.require_range(first, count)
    if destination.format not in FOLDER_FORMATS:
        files.require_one_size(first, count, str(destination.path))
    generator.generate(
        0, seed=seed, first=first, **(chosen | dict(files.rows(first, 0)))
    )  # refuses what does not fit before a file is made
    request = request_from(
        generator.describe(),
        opened.spec,
        opened,
        seed=seed,
        first=first,
        count=count,
        inputs=chosen,
        format=destination.format,
        encoding=encoding,
        shard_images=(shard_images or SHARD_IMAGES) if destination.format == "tar" else None,
        files=files.digests,
    )
    require_drawable(destination, generator.spec, request, columns)
    record = BundleRecord(str(bundle.resolve()), opened.manifest_sha256)
    with sigterm_stops():
        writer = writer_for(
            destination, generator.spec, request, record, columns=columns, workers=encoders, files=files
        )
        kept, start = writer.written, time.perf_counter()
        options = {
            "--seed": seed,
            "--format": format_,
            "--image-format": image_format if image_format != "png" else None,
            "--quality": quality,
            "--shard-images": shard_images,
            "--encoders": encoders,
            "--label": label,
            "--truncation": truncation,
            "--input": given or None,
            "--columns": columns,
            "--device": device,
            "--backend": backend,
            "--precision": precision,
            "--threads": threads,
            "--tuning": tuning if tuning != "throughput" else None,
        }
        try:
            with generator, progress_bar(count - kept, "drawing") as progress:
                write_images(generator, writer, seed=seed, first=first, inputs=chosen, files=files, progress=progress)
        except (OutputError, BackendError, InputError, KeyboardInterrupt) as error:
            so_far = f"{writer.written:,} of {count:,} images are in {destination.path}, whole"
            if writer.written < count:
                rest = _rest(bundle, destination, output, writer, first, generator.session.buckets[-1], options)
                so_far += f"\n            go on with: {rest}"
            if isinstance(error, KeyboardInterrupt):
                click.echo(f"\nstopped: {so_far}", err=True)
                sys.exit(130)
            remedy = f"{error.remedy}\n            {so_far}" if error.remedy else so_far
            raise type(error)(error.problem, got=error.got, expected=error.expected, remedy=remedy) from error
    seconds = time.perf_counter() - start
    about = generator.describe()
    if kept:
        click.echo(f"{kept:,} of {count:,} images were there already, whole")
    if kept < count:
        drawn = count - kept
        click.echo(
            f"{drawn:,} images in {seconds:.2f} s -> {destination.path}\n{drawn / seconds:,.0f} images/s: "
            f"{about['variant']} on {about['backend']} {about['device']} ({about['device_chosen_because']})"
            + (", as tuned" if about["tuning"]["used"] else "")
        )


def _refuse_options_without_use(
    destination: Destination, image_format: str, quality: int | None, shard_images: int | None
) -> None:
    from ganruntime.errors import InputError

    if shard_images is not None and destination.format != "tar":
        raise InputError("only shards have --shard-images", got=str(destination.path), remedy="--format tar")
    if (image_format != "png" or quality is not None) and destination.format not in ("files", "tar"):
        raise InputError(
            "--image-format and --quality are for folders and shards",
            got=f"{destination.path} ({destination.format})",
            remedy="-o FOLDER/",
        )


def _rest(
    bundle: Path,
    destination: Destination,
    output: str,
    writer: ImageWriter,
    first: int,
    largest_bucket: int,
    options: dict[str, Any],
) -> str:
    """The command that draws what is missing: the same one for a folder, one for a second file otherwise."""
    if destination.format in ("files", "tar"):
        again: dict[str, Any] = {"-n": writer.count, "--first": first or None, "-o": output}
    else:
        # From the start of a batch: cut into the same batches, the rest comes out the same to the last bit.
        done = writer.written - writer.written % largest_bucket
        path = _beside(destination.path, first + done) if done else destination.path
        again = {"-n": writer.count - done, "--first": first + done, "-o": path}
    words = []
    for name, value in (again | options).items():
        for one in value if isinstance(value, tuple) else (value,):
            words += [] if one in (None, "auto") else [name, str(one)]
    return shlex.join(["ganexport", "generate", str(bundle), *words])


def label_from_text(text: str | None, spec: GeneratorSpec) -> str | int | None:
    """A class name as it is, and an index as a number; names come first, for classes may be called 0 to 9."""
    names = {name for t in spec.inputs if isinstance(t.role, Label) for name in t.role.classes}
    return int(text) if text is not None and text not in names and text.isdecimal() else text


def _beside(output: Path, first: int) -> Path:
    """A second file for what is missing: the first one holds images already."""
    return output.with_name(f"{output.stem}-from-{first}{output.suffix}")
