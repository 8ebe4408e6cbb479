"""`ganexport tune`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ganexport.tuning.tune import Result, Row
    from ganruntime.bundle import Bundle, Pick


@click.command(name="tune")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.option(
    "--floor",
    metavar="psnr=DB",
    help="Pick below fp32 too, where the worst sample of the variant's verdict is not under this.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Try this backend only; may be given again.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="Try this precision or variant only; may be given again.",
)
@click.option(
    "--batch",
    "batches",
    default="1,4,16,64",
    show_default=True,
    metavar="N,N,…",
    help="Batch sizes: the smallest is for latency, the largest for throughput. An engine has its own.",
)
@click.option("--seconds", default=60.0, show_default=True, type=float, help="How long to measure; proofs come on top.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Verify variants that have no verdict by a backend in the version that is here, or leave them out.",
)
@click.option("--dry-run", is_flag=True, help="Measure and say, and write nothing into the bundle.")
@click.option("--forget", is_flag=True, help="Remove what was recorded for this machine, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    bundle: Path,
    floor: str | None,
    device: str,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    batches: str,
    seconds: float,
    verify: bool,
    dry_run: bool,
    forget: bool,
    as_json: bool,
) -> None:
    """Measure what runs a bundle fastest on this machine, and record it.

    Every variant on every installed backend, with all, half and one of the threads and with OpenVINO's streams, takes
    interleaved turns at every batch size. Only what is verified by that backend is tried, and before a time counts its
    outputs are held against the golden samples; settings that change a bit of them are left out. The fastest for
    throughput (the largest batch) and for latency (the smallest) are written into the bundle, for this machine and
    these versions of the backends alone: ganruntime.load takes them where backend or precision is auto, and everywhere
    else takes no notice of them. Without --floor nothing below fp32 is picked.

    \b
    Example:
      ganexport tune digits.gan
      ganexport tune digits.gan --floor psnr=40 --seconds 120
      ganexport tune digits.gan --backend openvino --dry-run --json
    """
    from ganexport.commands.bench import batches_from_text
    from ganexport.tuning.tune import Settings, record, tune_bundle
    from ganexport.tuning.tune import forget as forget_tunings
    from ganruntime.bundle import read_bundle

    opened = read_bundle(bundle)
    if forget:
        gone = forget_tunings(opened, device)
        click.echo(
            json.dumps({"forgotten": gone}) if as_json else f"{bundle}: {gone} tuning(s) of this machine removed"
        )
        return
    settings = Settings(
        device, backends, precisions, floor_from_text(floor), batches_from_text(batches), seconds, verify
    )
    result = tune_bundle(opened, settings, _say)
    if not dry_run:
        record(opened, result)
    data = _as_json(result) | {"recorded": not dry_run}
    click.echo(json.dumps(data, indent=2) if as_json else _as_text(opened, result, dry_run))


def floor_from_text(text: str | None) -> float | None:
    """`psnr=40` as 40.0. Raises `InputError`."""
    from ganruntime.errors import InputError

    if text is None:
        return None
    key, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if key != "psnr" or not 0 <= number < float("inf"):
        raise InputError("--floor is not one", got=repr(text), expected="psnr=NUMBER, in dB")
    return number


def _say(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(line, err=True)


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "device": result.device,
        "device_chosen_because": result.device_why,
        "configurations": [
            {
                "name": row.configuration.name,
                "backend": row.configuration.backend,
                "variant": row.configuration.variant,
                "precision": row.precision,
                "threads": row.configuration.threads,
                "streams": row.configuration.streams,
                "untuned": row.configuration == result.untuned,
                "batches": {
                    str(batch): {"milliseconds": time.seconds * 1000, "rounds": time.rounds}
                    for batch, time in row.times.items()
                },
            }
            for row in result.rows
        ],
        "left_out": [{"name": item.name, "why": item.why} for item in result.left_out],
        "verified_on_the_spot": [f"{variant}@{backend}" for variant, backend in result.verdicts],
        "tuning": result.tuning.to_json(),
    }


def _as_text(bundle: Bundle, result: Result, dry_run: bool) -> str:
    from ganexport.tables import table

    buckets = sorted({bucket for row in result.rows for bucket in row.times})
    header = ["configuration", *(f"{b} [ms]" for b in buckets), "images/s", ""]
    rows = [
        [row.configuration.name, *(_time_text(row, b) for b in buckets), _rate_text(row), _mark(row, result)]
        for row in result.rows
    ]
    machine = result.tuning.machine
    where = machine.gpu or f"{machine.cpu}, {machine.cores} core(s)"
    versions = ", ".join(f"{name} {version}" for name, version in result.tuning.versions.items())
    lines = [f"{bundle.path} on {result.device} ({result.device_why}): {where}; {versions}"]
    lines += ["", table(rows, header, frozenset(range(1, len(buckets) + 2))), ""]
    lines.append("~ far behind after one turn; images/s of the largest batch")
    lines += [f"left out: {item.name}: {item.why}" for item in result.left_out]
    lines += [f"verified on the spot: {variant} by {backend}" for variant, backend in result.verdicts]
    lines += [f"{objective}: {_pick_text(pick)}" for objective, pick in result.tuning.picks.items()]
    lines.append(
        "nothing was recorded (--dry-run)"
        if dry_run
        else f"recorded in {bundle.path}, for this machine and these versions"
    )
    return "\n".join(lines)


def _time_text(row: Row, bucket: int) -> str:
    time = row.times.get(bucket)
    if time is None:
        return ""
    return ("~" if time.rounds == 1 else "") + milliseconds_text(time.seconds * 1000)


def milliseconds_text(milliseconds: float) -> str:
    """Three digits, or all of those before the point: 0.123, 45.6, 1,770."""
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _rate_text(row: Row) -> str:
    largest = max(row.times)
    return f"{largest / row.times[largest].seconds:,.0f}"


def _mark(row: Row, result: Result) -> str:
    own = row.configuration
    marks = [
        objective
        for objective, pick in result.tuning.picks.items()
        if (pick.backend, pick.variant, pick.threads, pick.streams)
        == (own.backend, own.variant, own.threads, own.streams)
    ]
    return ", ".join([*(["as without a tuning"] if own == result.untuned else []), *marks])


def _pick_text(pick: Pick) -> str:
    from ganexport.tuning.configurations import Configuration

    name = Configuration(pick.backend, pick.variant, pick.threads, pick.streams).name
    took, rate = milliseconds_text(pick.milliseconds), f"{pick.images_per_second:,.0f}"
    text = f"{name}, {took} ms for a batch of {pick.bucket} ({rate} images/s)"
    if pick.untuned is None:
        return text
    if (pick.untuned.backend, pick.untuned.variant, pick.untuned.milliseconds) == (
        pick.backend,
        pick.variant,
        pick.milliseconds,
    ):
        return f"{text}, as without a tuning"
    return f"{text}, {pick.untuned.milliseconds / pick.milliseconds:.2f} times the speed without a tuning"
