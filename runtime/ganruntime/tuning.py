"""Tunings in use: whether a bundle's record of what is fastest is of this machine, and what it says to run.

A pick is taken whole or not at all, and only where:

1. something was left to it: the backend or the precision is `auto`, and everything that was named (backend, precision
   or variant, threads, streams) is what it says too;
2. the record was made on this machine with the versions of the backends that are here now;
3. the variant's file is the one that was measured, and its verdicts by that backend hold;
4. the variant is fp32, or a floor was given to `ganexport tune`, and its verdict is not below it.

What was not taken is said with the reason (`Generator.describe()["tuning"]`), and the load goes on as without a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ganruntime.bundle import Bundle, Machine, Pick, Tuning, Variant, Verdict
from ganruntime.bundle.tuning import OBJECTIVES
from ganruntime.errors import InputError
from ganruntime.machine import backend_version, differences, this_machine
from ganruntime.sessions.devices import parse_device

CHOICES = (*OBJECTIVES, "off")
EXACT = "fp32"


@dataclass(frozen=True)
class Asked:
    """What a load was told, `auto` or None where it was not."""

    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    streams: int | None = None


@dataclass(frozen=True)
class Tuned:
    """What a record says to run, or why it says nothing. `about` is for `Generator.describe()`."""

    pick: Pick | None
    why: str
    about: Mapping[str, Any] = field(default_factory=dict)


def tuned_for(
    bundle: Bundle,
    device: str,
    objective: str,
    asked: Asked,
    backends: Mapping[str, bool],
) -> Tuned:
    """The pick that a load on `device` takes.

    Args:
        objective: `throughput`, `latency` or `off`.
        backends: those that run on this kind of device, and whether each is installed.

    Raises:
        InputError: the objective is none.
    """
    if objective not in CHOICES:
        raise InputError(f"{objective!r} is not a tuning", expected=", ".join(CHOICES))
    if not bundle.manifest.tunings:
        return _not_taken("the bundle was not tuned")
    if objective == "off":
        return _not_taken('tuning="off" was asked for')
    if "auto" not in (asked.backend, asked.precision):
        return _not_taken("backend and precision were asked for")
    record, why = record_for(bundle, device, backends)
    if record is None:
        return _not_taken(why)
    pick = record.picks[objective]
    why = _why_not(bundle, record, pick, asked)
    return _not_taken(why, record) if why else _taken(objective, record, pick)


def record_for(bundle: Bundle, device: str, backends: Mapping[str, bool]) -> tuple[Tuning | None, str]:
    """The tuning of this machine with these versions, or None and what is different from the nearest there is."""
    tunings = [t for t in bundle.manifest.tunings if t.machine.device == parse_device(device)[0]]
    if not tunings:
        return None, f"the bundle was tuned on {bundle.manifest.tunings[-1].machine.device}, not on {device}"
    here = this_machine(device)
    of_machine = [t for t in tunings if t.machine == here]
    if not of_machine:
        return None, f"it was tuned on another machine: {_nearest(tunings, here)}"
    versions = versions_here(backends)
    for tuning in of_machine:
        if dict(tuning.versions) == versions:
            return tuning, ""
    changed = _version_changes(of_machine[-1].versions, versions)
    return None, f"it was tuned with other versions: {', '.join(changed)}"


def versions_here(backends: Mapping[str, bool]) -> dict[str, str]:
    """{backend: version} of those that are installed."""
    return {backend: backend_version(backend) for backend, is_here in sorted(backends.items()) if is_here}


def worst_psnr_db(variant: Variant, backend: str, kind: str) -> float | None:
    """The PSNR of the worst sample in a variant's verdicts by a backend on a kind of device; None without a verdict
    that holds."""
    own = [v for v in variant.verdicts if _is_of(v, backend, kind)]
    if not own or not all(v.passed for v in own):
        return None
    figures = [e for v in own for name, e in v.errors.items() if name.rpartition(".")[2] == "psnr_db"]
    return min(figures, default=None)


def _is_of(verdict: Verdict, backend: str, kind: str) -> bool:
    return verdict.backend == backend and verdict.device.partition(":")[0] == kind


def _why_not(bundle: Bundle, record: Tuning, pick: Pick, asked: Asked) -> str:
    """Why a pick of this machine is not taken; empty where it is."""
    named = {"backend": asked.backend, "threads": asked.threads, "streams": asked.streams}
    for name, value in named.items():
        if value not in ("auto", None, getattr(pick, name)):
            return f"it was tuned to {name} {getattr(pick, name)}, and {name} {value} was asked for"
    variant = next((v for v in bundle.manifest.variants if v.name == pick.variant), None)
    if variant is None:
        return f"it was tuned to {pick.variant}, which is not there, or whose outputs are not those asked for"
    # A name is that variant and no other: of "fp32" and "fp32-cpu", both of precision fp32, the first is a name too.
    is_name = asked.precision in [v.name for v in bundle.manifest.variants]
    if asked.precision not in ("auto", variant.name if is_name else variant.precision):
        return f"it was tuned to {variant.name}, and {asked.precision} was asked for"
    if bundle.manifest.files[variant.file].sha256 != pick.file_sha256:
        return f"{variant.name} was made anew since it was tuned"
    own = [v for v in variant.verdicts if _is_of(v, pick.backend, record.machine.device)]
    if pick.backend not in record.versions or not own or not all(v.passed for v in own):
        return f"{variant.name}, to which it was tuned, is not verified by {pick.backend} now"
    if variant.precision != EXACT:
        if record.floor_psnr_db is None:
            return f"{variant.name} is below fp32, and no floor was given when it was tuned"
        worst = worst_psnr_db(variant, pick.backend, record.machine.device)
        if worst is None or worst < record.floor_psnr_db:
            got = "no figure" if worst is None else f"{worst:.1f} dB"
            return f"{variant.name} has {got} on {pick.backend} now, under the floor {record.floor_psnr_db:g} dB"
    if (pick.threads or 1) > record.machine.cores or (pick.streams or 1) > (pick.threads or 1):
        return "its threads or streams are more than this machine has"
    return ""


def _not_taken(why: str, record: Tuning | None = None) -> Tuned:
    when = {} if record is None else {"time_utc": record.time_utc}
    return Tuned(None, why, {"used": False, "because": why} | when)


def _taken(objective: str, record: Tuning, pick: Pick) -> Tuned:
    measured = {
        "batch": pick.bucket,
        "milliseconds": pick.milliseconds,
        "images_per_second": pick.images_per_second,
        "configurations": pick.configurations,
    }
    if pick.untuned is not None:
        measured["untuned_milliseconds"] = pick.untuned.milliseconds
    why = (
        f"it was the fastest of {pick.configurations} configurations on this machine for {objective}, measured at "
        f"{record.time_utc}: {pick.milliseconds:.3g} ms for a batch of {pick.bucket}"
    )
    about = {
        "used": True,
        "because": why,
        "objective": objective,
        "time_utc": record.time_utc,
        "floor_psnr_db": record.floor_psnr_db,
        "measured": measured,
    }
    return Tuned(pick, why, about)


def _nearest(tunings: list[Tuning], here: Machine) -> str:
    found = [differences(t.machine, here) for t in tunings]
    nearest: list[str] = min(found, key=len)
    return "; ".join(nearest)


def _version_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{backend} {then.get(backend, 'not installed')} then, {now.get(backend, 'not installed')} here"
        for backend in sorted({*then, *now})
        if then.get(backend) != now.get(backend)
    ]
