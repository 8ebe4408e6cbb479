"""Tunings: which configuration was measured to be the fastest, on which machine, with which versions.

Written by `ganexport tune`, read by `ganruntime.tuning`, which takes a record on the machine that it was made on and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ganruntime.bundle.fields import integer, mapping, number, require, string, table, tuple_of

OBJECTIVES = ("throughput", "latency")
_MOST_CORES = 65_536
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00\Z")


@dataclass(frozen=True)
class Machine:
    """A machine as far as the speed of a generator depends on it.

    device: `cpu` or `cuda`, what the generator runs on.
    cpu, architecture: the processor's model and architecture, such as `x86_64`. instruction_sets: those that decide how
        fast a product is, sorted. cores: how many this process may use.
    gpu, driver: of `cuda`, the GPU's name and the driver's version; empty on the CPU.
    """

    device: str
    cpu: str
    architecture: str
    instruction_sets: tuple[str, ...]
    cores: int
    gpu: str = ""
    driver: str = ""

    def __post_init__(self) -> None:
        known = self.device in ("cpu", "cuda")
        require(known, "machine.device", "is not known", got=repr(self.device)[:80], expected="cpu or cuda")
        for name in ("cpu", "architecture", "gpu", "driver"):
            string(getattr(self, name), f"machine.{name}")
        sets = tuple_of(self.instruction_sets, "machine.instruction_sets", string)
        object.__setattr__(self, "instruction_sets", sets)
        integer(self.cores, "machine.cores", 1, _MOST_CORES)


@dataclass(frozen=True)
class Untuned:
    """What a load without the record would have run, and the median time of the same batch."""

    backend: str
    variant: str
    milliseconds: float

    def __post_init__(self) -> None:
        for name in ("backend", "variant"):
            string(getattr(self, name), f"untuned.{name}")
        object.__setattr__(self, "milliseconds", _time(self.milliseconds, "untuned.milliseconds"))


@dataclass(frozen=True)
class Pick:
    """What was the fastest for one objective.

    backend, variant: what runs; file_sha256: of the variant's file, so that another file of that name is noticed.
    threads, streams: as `ganruntime.load` takes them; None where the backend has none.
    bucket: the batch size that was measured; milliseconds: the median time of one such batch.
    untuned: backend, variant and milliseconds of what a load without the record would have run, measured in the same
        turns; None where it would have run nothing.
    configurations: how many were measured.
    """

    backend: str
    variant: str
    file_sha256: str
    threads: int | None
    streams: int | None
    bucket: int
    milliseconds: float
    untuned: Untuned | None
    configurations: int

    def __post_init__(self) -> None:
        for name in ("backend", "variant"):
            string(getattr(self, name), f"pick.{name}")
        digest = string(self.file_sha256, "pick.file_sha256")
        require(bool(_SHA256.match(digest)), "pick.file_sha256", "is not 64 hex digits", got=digest[:80])
        for name in ("threads", "streams"):
            if getattr(self, name) is not None:
                integer(getattr(self, name), f"pick.{name}", 1, _MOST_CORES)
        integer(self.bucket, "pick.bucket", 1)
        object.__setattr__(self, "milliseconds", _time(self.milliseconds, "pick.milliseconds"))
        integer(self.configurations, "pick.configurations", 1)

    @property
    def images_per_second(self) -> float:
        return self.bucket / self.milliseconds * 1000


@dataclass(frozen=True)
class Tuning:
    """One run of `ganexport tune`.

    machine, versions: where, and with which versions of the backends that were there.
    time_utc: when, such as `2026-11-26T04:30:00+00:00`.
    floor_psnr_db: the floor that was given, without which no precision below fp32 is picked; None where none was.
    picks: by objective.
    """

    machine: Machine
    versions: Mapping[str, str]
    time_utc: str
    floor_psnr_db: float | None
    picks: Mapping[str, Pick]

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", mapping(self.versions, "tuning.versions", string))
        when = string(self.time_utc, "tuning.time_utc")
        is_time = bool(_TIME.match(when))
        require(is_time, "tuning.time_utc", "is not a time", got=when[:80], expected="2026-11-26T04:30:00+00:00")
        if self.floor_psnr_db is not None:
            object.__setattr__(self, "floor_psnr_db", number(self.floor_psnr_db, "tuning.floor_psnr_db"))
        require(sorted(self.picks) == sorted(OBJECTIVES), "tuning.picks", "lacks an objective", got=sorted(self.picks))

    @property
    def place(self) -> tuple[Machine, tuple[tuple[str, str], ...]]:
        """Where it was made: a newer tuning of the same machine and versions replaces this one."""
        return self.machine, tuple(sorted(self.versions.items()))

    def to_json(self) -> dict[str, Any]:
        return dict(_plain(self))

    @classmethod
    def from_json(cls, value: object, where: str) -> Tuning:
        """Raises `BundleFormatError`, naming the place."""
        data = _table_of(cls, value, where)
        picks = table(data["picks"], f"{where}.picks", set(OBJECTIVES))
        return cls(
            **data
            | {
                "machine": Machine(**_table_of(Machine, data["machine"], f"{where}.machine")),
                "picks": {name: _pick(pick, f"{where}.picks.{name}") for name, pick in picks.items()},
            }
        )


def _pick(value: object, where: str) -> Pick:
    data = _table_of(Pick, value, where)
    untuned = data["untuned"]
    if untuned is not None:
        untuned = Untuned(**_table_of(Untuned, untuned, f"{where}.untuned"))
    return Pick(**data | {"untuned": untuned})


def _table_of(cls: Any, value: object, where: str) -> dict[str, Any]:
    return table(value, where, {f.name for f in fields(cls)})


def _time(value: object, where: str) -> float:
    found = number(value, where)
    require(found > 0, where, "is not above 0", got=found)
    return found


def _plain(value: object) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
