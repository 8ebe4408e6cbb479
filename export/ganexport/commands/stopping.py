"""SIGTERM, which service managers and schedulers send, ends a command as Ctrl-C does: nothing half-written stays."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_stops() -> Iterator[None]:
    """Within it SIGTERM raises `KeyboardInterrupt`. A decorator too."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
