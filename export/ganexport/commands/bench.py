"""`ganexport bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganexport.commands.progress import progress_bar


@click.command(name="bench")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="The run or checkpoint folder that the bundle was exported from: eager PyTorch runs its network.",
)
@click.option(
    "--batch",
    "batches",
    default="1,16,64",
    show_default=True,
    metavar="N,N,…",
    help="Batch sizes of the offline scenario.",
)
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=float,
    help="How long each contender runs at each batch size, over all rounds.",
)
@click.option("--rounds", default=7, show_default=True, type=int, help="Turns that this time is cut into.")
@click.option(
    "--threads", type=int, metavar="N", help="Compute threads of every contender. [default: what this process may use]"
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N, for every contender.")
@click.option(
    "--backend",
    default="onnxruntime",
    show_default=True,
    type=click.Choice(["onnxruntime", "openvino"]),
    help="What the runtime runs on; openvino is then measured plain as well.",
)
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    metavar="NAME",
    help="One more to measure; may be given again. The names stand above.",
)
@click.option("--only", is_flag=True, help="Measure those and eager PyTorch, and none of the other defaults.")
@click.option(
    "--slo-ms",
    type=float,
    metavar="MS",
    help="Measure the server scenario too: the highest rate of Poisson arrivals whose p99 stays within this.",
)
@click.option(
    "--server-requests",
    default=1000,
    show_default=True,
    type=int,
    help="Requests of each of its trials, at least; a trial also lasts --seconds and ten times the limit, at least.",
)
@click.option("--max-delay-ms", default=2.0, show_default=True, type=float, help="Of the batcher in that scenario.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where bench.json, bench.md and the pictures go; they replace those of an earlier run. [default: NAME-bench]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of tables.")
def command(
    bundle: Path,
    against: Path,
    batches: str,
    seconds: float,
    rounds: int,
    threads: int | None,
    device: str,
    backend: str,
    contenders: tuple[str, ...],
    only: bool,
    slo_ms: float | None,
    server_requests: int,
    max_delay_ms: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure the runtime against eager PyTorch and a plain ONNX Runtime loop.

    Every contender runs the same latents on the same device with the same threads, from latents in memory to float
    outputs in memory; ours is measured to uint8 images as well. Outputs are held against eager PyTorch's first: fp32
    within its bound, lower precisions to their floors. Who draws something else has no times, and is listed with the
    reason. Contenders take turns, in an order that rotates from round to round.

    Offline: images per second in batches. Single stream: one image after another, with the latency's percentiles.
    Server, with --slo-ms: Poisson arrivals of single latents, each timed from when it was due; ours behind the batcher,
    plain backends behind a lock.

    \b
    Contenders beside the defaults:
      channels-last, bf16-autocast, torch-compile   PyTorch with what its documentation advises
      onnxruntime:VARIANT, openvino:VARIANT         a bare loop over a variant of the bundle
      ganruntime:VARIANT@BACKEND/STREAMS            ours; each part may be left out; ganruntime_uint8:… to pixels

    Exit codes: 1 where a contender failed, 3 where one is over 10 % faster when the same latent comes again, and so has
    a hidden cache; the results are written all the same.

    \b
    Example:
      ganexport bench digits.gan --against runs/digits
      ganexport bench digits.gan --against runs/digits --batch 1,8,256 --seconds 20 --rounds 15 -o results/
      ganexport bench digits.gan --against runs/digits --contender torch-compile --slo-ms 50
      ganexport bench digits.gan --against runs/digits --only --contender ganruntime:int8@openvino/2
    """
    from ganexport.benchmark.contender import import_torch
    from ganexport.benchmark.pictures import PICTURES, pictures_from_result
    from ganexport.benchmark.plot import require_matplotlib
    from ganexport.benchmark.result_text import markdown_from_result, text_from_result
    from ganexport.benchmark.scenarios import bench_bundle, slices
    from ganexport.benchmark.settings import Settings
    from ganexport.source import Source
    from ganruntime.bundle import read_bundle
    from ganruntime.files import write_atomically

    settings = Settings(
        batches_from_text(batches),
        seconds,
        rounds,
        threads,
        device,
        backend,
        contenders,
        only,
        slo_ms,
        server_requests,
        max_delay_ms,
    )
    opened = read_bundle(bundle)
    import_torch()
    require_matplotlib()  # before minutes of measuring, not after
    from gantrain.checkpoint import load_generator

    module, spec = load_generator(against)
    source = Source(module, spec, f"checkpoint {against.name}")
    folder = output or Path(f"{bundle.resolve().name.removesuffix('.gan')}-bench")
    make_folder(folder)
    with progress_bar(slices(opened, settings), "measuring") as progress:
        result = bench_bundle(opened, source, against, settings, progress=progress)
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    pictures = pictures_from_result(result)
    written = {"bench.json": (text + "\n").encode(), "bench.md": markdown_from_result(result, list(pictures)).encode()}
    for name, data in (written | pictures).items():
        write_atomically(folder / name, data)
    for name in PICTURES.difference(pictures):  # of an earlier run, which this one replaces
        (folder / name).unlink(missing_ok=True)
    click.echo(text if as_json else text_from_result(result))
    click.echo(f"written: {', '.join(str(folder / name) for name in written | pictures)}", err=as_json)
    if as_json:
        for flag in result.flags:
            click.echo(f"FLAGGED: {flag}", err=True)
    if result.exit_code:
        raise click.exceptions.Exit(result.exit_code)


def batches_from_text(text: str) -> tuple[int, ...]:
    """`1,16,64` as batch sizes. Raises `InputError`."""
    from ganruntime.errors import InputError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError("--batch is not a list of batch sizes", got=repr(text), expected="such as 1,16,64") from None


def make_folder(folder: Path) -> None:
    """Makes a folder to write into. Raises `OutputError`."""
    from ganruntime.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}",
            got=error.strerror or str(error),
            remedy="choose another one with -o",
        ) from error
