"""`ganexport replay`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from ganexport.commands.stopping import sigterm_stops


@click.command(name="replay")
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--index", type=click.IntRange(0, 2**64 - 1), help="Of an image in a shard or a folder.")
@click.option("--member", help="Of a shard: the name of an image or of its record.")
@click.option("--bundle", type=click.Path(path_type=Path), help="NAME.gan; by default the one that the run names.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the image that was made again, as a PNG.")
@click.option("--device", help="Another device than the record's.")
@click.option("--backend", help="Another backend than the record's.")
@click.option("--precision", help="Another precision, or variant, than the record's.")
@click.option("--bucket", type=click.IntRange(1), help="Another batch size than the record's.")
@click.option("--threads", type=click.IntRange(1), help="Another number of threads on the CPU than the record's.")
@click.option(
    "--input",
    "given",
    multiple=True,
    metavar="NAME=PATH",
    help="Where a file lies that the run was given, or its folder; by default where it lay. Its hash is checked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@sigterm_stops()
def command(
    record: Path,
    index: int | None,
    member: str | None,
    bundle: Path | None,
    output: Path | None,
    device: str | None,
    backend: str | None,
    precision: str | None,
    bucket: int | None,
    threads: int | None,
    given: tuple[str, ...],
    as_json: bool,
) -> int:
    """Make an image of a run again, and say whether it is identical: exit 0 if it is, 1 if not.

    RECORD is a record (JSON), a shard with --index or --member, an image in the folder of a run, or that folder with
    --index. The same graph on the same backend, device, batch size and threads gives the same image to the last bit;
    what is another here is named, and the difference measured against the bound that the bundle publishes.

    \b
    Example:
      ganexport replay shards/shard-000000.tar --index 17
      ganexport replay digits/seed7-00000017.png
      ganexport replay shards/ --index 17 --backend onnxruntime --bucket 1
    """
    from ganruntime.bundle import read_bundle
    from ganruntime.encoding import Encoding
    from ganruntime.errors import InputError
    from ganruntime.files import write_atomically
    from ganruntime.input_files import named_texts
    from ganruntime.replay import bundle_note, recorded_image, replay

    if output is not None and output.suffix.lower() != ".png":
        raise InputError(f"{output} is not a name for a PNG", expected="NAME.png")
    recorded = recorded_image(record, member, index)
    path = bundle or recorded.bundle_path
    if path is None:
        raise InputError(f"{recorded.where} does not say where its bundle is", remedy="--bundle NAME.gan")
    answer = replay(
        recorded,
        path,
        device=device,
        backend=backend,
        precision=precision,
        bucket=bucket,
        threads=threads,
        inputs={name: Path(text) for name, text in named_texts(given).items()},
    )
    if output is not None:
        write_atomically(output, Encoding().bytes_from_image(answer.image))
    said = recorded.record
    what = f"seed {said.seed} index {said.index}"
    note = bundle_note(said, read_bundle(path))
    finite = answer.psnr_db is not None and math.isfinite(answer.psnr_db)
    holds = None
    if answer.bound is not None and answer.levels is not None and answer.psnr_db is not None:
        holds = answer.bound.holds(answer.levels, answer.psnr_db)
    if as_json:
        data = {
            "where": recorded.where,
            "identical": answer.identical,
            "compared": answer.compared,
            "differences": list(answer.differences),
            "psnr_db": answer.psnr_db if finite else None,
            "levels": answer.levels,
            "bound": None if answer.bound is None else {"levels": answer.bound.levels, "psnr_db": answer.bound.psnr_db},
            "within_bound": holds,
            "note": note,
        }
        click.echo(json.dumps(data, indent=2))
        return 0 if answer.identical else 1
    height, width, channels = answer.image.shape
    with_what = {
        "pixels": "all pixels",
        "picture": f"all pixels before {said.image_format.upper()} lost some",
        "hash": "SHA-256 of the pixels",
    }.get(answer.compared, "")
    if answer.identical:
        lines = [f"identical: {what}, {width} × {height} × {channels}, {with_what}"]
    else:
        lines = [f"not identical: {what} of {recorded.where}"]
        if answer.compared == "size":
            lines.append("  the picture has another size")
        elif answer.psnr_db is None:
            lines.append("  only the hash of its pixels is recorded: how far apart they are cannot be said")
        elif finite:
            lines.append(f"  PSNR {answer.psnr_db:.1f} dB, largest difference {answer.levels} level(s)")
        else:
            lines.append("  the pictures are equal, and their record is of another image")
    lines += [f"  {difference}" for difference in answer.differences]
    if note:
        lines.append(f"  {note}; the graph decides")
    if answer.differences:
        outcome = {None: "", True: ": within", False: ": BEYOND"}[holds]
        lines.append(
            "  identity is promised for the same graph, backend, device, batch size and threads; else the published "
            f"bound: {answer.bound}{outcome}"
        )
    elif not answer.identical:
        lines.append(
            "  graph, backend, device, batch size and threads are the same: this machine's kernels are others,"
        )
        lines.append("  or the picture was changed after it was drawn")
    click.echo("\n".join(lines))
    return 0 if answer.identical else 1
