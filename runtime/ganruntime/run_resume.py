"""Runs that go on: what a folder that was begun before says to load, whatever would be picked by now.

`ganexport tune`, another installed backend or a verdict that was added change what `auto` picks, and a run of several
picks would be refused, for its images would not be those of one. So what was left to `auto` is what the record says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ganruntime.bundle import Bundle, Variant
from ganruntime.choice import choose
from ganruntime.cores import usable_cores
from ganruntime.errors import GanError, InputError
from ganruntime.heads import bundle_with_output
from ganruntime.runs import RUN_NAME, Request, read_run
from ganruntime.sessions.devices import parse_device


def begun_request(
    folder: Path,
    bundle: Bundle,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Request | None:
    """The request of the run in `folder`, if it is one of this bundle and has nothing that was named here otherwise.

    None too where there is no run, or its record is malformed: opening the folder to write there says what is wrong.
    """
    if not (folder / RUN_NAME).is_file():
        return None
    try:
        request, _ = read_run(folder)
    except InputError:
        return None
    variant = next((v for v in bundle.manifest.variants if v.name == request.variant), None)
    if variant is None or bundle.manifest.files[variant.file].sha256 != request.graph_sha256:
        return None
    agrees = (
        (device == "auto" or parse_device(device) == parse_device(request.device))
        and backend in ("auto", request.backend)
        and _is_named(bundle, variant, precision)
        and (threads is None or request.threads in (None, threads))
    )
    return request if agrees else None


def load_arguments(request: Request, threads: int | None = None) -> dict[str, Any]:
    """What `ganruntime.load` is told to run a request as it was begun; `threads` where the request tells none."""
    return {
        "device": request.device,
        "backend": request.backend,
        "precision": request.variant,
        "buckets": request.buckets,
        "threads": request.threads or threads,
        "streams": request.streams,
    }


def picked_otherwise(
    request: Request, bundle: Bundle, *, device: str, backend: str, precision: str, threads: int | None, tuning: str
) -> str | None:
    """What a load of these arguments would run now, where that is another than the request's; None where it is not."""
    try:
        choice = choose(bundle_with_output(bundle, "auto"), device, backend, precision, threads=threads, tuning=tuning)
    except GanError as error:
        return error.problem
    threads, streams = choice.threads, choice.streams
    if request.threads is not None:
        threads = threads or usable_cores()
    if request.streams is not None:
        streams = streams or 1
    now = choice.variant.name, choice.backend, choice.device, threads, streams
    then = request.variant, request.backend, request.device, request.threads or threads, request.streams
    return None if now == then else _said(*now)


def begun_as(request: Request) -> str:
    """What runs, for people: `fp32 on onnxruntime, cpu, 2 threads`."""
    return _said(request.variant, request.backend, request.device, request.threads, request.streams)


def _said(variant: str, backend: str, device: str, threads: int | None, streams: int | None) -> str:
    counts = {"thread": threads, "stream": streams}
    said = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items() if n is not None]
    return ", ".join([f"{variant} on {backend}", device, *said])


def _is_named(bundle: Bundle, variant: Variant, precision: str) -> bool:
    if precision in [v.name for v in bundle.manifest.variants]:  # a name is that variant and no other
        return precision == variant.name
    return precision in ("auto", variant.precision)
