"""Ctrl-C while TensorRT's C++ is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ganruntime.errors import EngineError, GanError

T = TypeVar("T")
_WAIT_S = 0.1


def run_interruptibly(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Runs `work` in a thread of its own, so that Ctrl-C reaches Python while TensorRT's C++ is busy.

    The first Ctrl-C asks the build to stop at its next step (`cancel`) and waits for that; a second one does not wait.

    Raises:
        EngineError: it failed with an error that is none of ours.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # Waited for instead of Thread.join, which in Python 3.11 takes an interrupted thread for one that has ended.
    finished = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # carried to the caller's thread, KeyboardInterrupt too
            errors.append(error)
        finally:
            finished.set()

    thread = threading.Thread(target=run, name="ganexport-tensorrt-build", daemon=True)
    try:
        thread.start()
        while not finished.wait(_WAIT_S):
            pass
    except KeyboardInterrupt:
        cancel()
        # Without an identity after that time it was interrupted before it began.
        while not finished.wait(_WAIT_S) and thread.ident is not None:
            pass
        raise
    if errors:
        if isinstance(errors[0], (GanError, KeyboardInterrupt)):
            raise errors[0]
        raise EngineError(
            "TensorRT failed while it built the engine", got=f"{type(errors[0]).__name__}: {errors[0]}"
        ) from errors[0]
    return results[0]
