"""Configurations: what a load can be told about backend, variant, threads and streams, as far as it is worth a try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganruntime.bundle import Variant
from ganruntime.choice import SETTINGS


@dataclass(frozen=True)
class Configuration:
    """One way to run a bundle. threads, streams: None where the backend has none."""

    backend: str
    variant: str
    threads: int | None = None
    streams: int | None = None

    @property
    def name(self) -> str:
        """Such as `fp32@openvino, 2 threads, 2 streams`."""
        counts = [
            f"{count} {word}{'s' if count != 1 else ''}"
            for count, word in ((self.threads, "thread"), (self.streams, "stream"))
            if count is not None
        ]
        return ", ".join([f"{self.variant}@{self.backend}", *counts])


def configurations_of(variant: Variant, backend: str, kind: str, cores: int) -> list[Configuration]:
    """The settings of a backend on a kind of device for a variant; the first is what a load without settings runs.

    Threads: all cores, half of them, and one: a small network loses more to waiting for threads than it wins. Streams,
    where a backend has them: with all threads as many as there are, half of them and two; with fewer threads one.
    """
    known = SETTINGS.get(backend, ()) if kind == "cpu" else ()
    if "threads" not in known:
        return [Configuration(backend, variant.name)]
    fewer = sorted({max(1, cores // 2), 1} - {cores}, reverse=True)
    if "streams" not in known:
        return [Configuration(backend, variant.name, threads) for threads in (cores, *fewer)]
    streams = sorted({1, min(2, cores), max(1, cores // 2), cores})
    settings = [(cores, n) for n in streams] + [(threads, 1) for threads in fewer]
    return [Configuration(backend, variant.name, threads, n) for threads, n in settings]


def base_of(configurations: Sequence[Configuration], configuration: Configuration) -> Configuration:
    """The first one of the same backend and variant: what it is without settings."""
    own = (configuration.backend, configuration.variant)
    return next(c for c in configurations if (c.backend, c.variant) == own)
