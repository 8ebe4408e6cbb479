"""The process in which TensorRT builds: `python -m ganexport.tensorrt.job_process FOLDER`.

Started by `ganexport.tensorrt.isolated`, which listens on a pipe; or by a person, to do again a build that failed.
What crosses the pipe is one JSON list a line: ["progress", fraction, phase], ["said", is an error, text],
["error", {…}] or ["done"].
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from ganexport.tensorrt.job import PLAN, READBACK, Job, Made, run_job
from ganexport.tensorrt.progress import OnProgress, ProgressBar
from ganruntime import errors
from ganruntime.errors import EngineError, GanError, OutputError
from ganruntime.sessions.tensorrt_library import captured_messages

_GRACE_S = 60.0


class Pipe:
    """The writing end. Messages come from several of TensorRT's threads, and each is one whole line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, *message: object) -> None:
        # The other end is gone where its process was killed: the watch over it ends this one.
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()

    def progress(self, fraction: float, phase: str) -> None:
        self.send("progress", fraction, phase)

    def said(self, is_error: bool, text: str) -> None:
        # To the log as well, which outlives a crash.
        print(f"{'error' if is_error else 'warning'}: {text}", file=sys.stderr, flush=True)
        self.send("said", is_error, text)

    def error(self, error: GanError) -> None:
        texts = {name: _text(getattr(error, name)) for name in ("problem", "got", "expected", "remedy")}
        self.send("error", {"kind": type(error).__name__, **texts})


def error_from_message(message: dict[str, str | None]) -> GanError:
    """The error that `Pipe.error` sent, of the same class."""
    kind = getattr(errors, str(message["kind"]), EngineError)
    if not (isinstance(kind, type) and issubclass(kind, GanError)):
        kind = EngineError
    error: GanError = kind(
        str(message["problem"]), got=message["got"], expected=message["expected"], remedy=message["remedy"]
    )
    return error


def main(arguments: list[str] | None = None) -> int:
    """Does the job of a folder. Exit codes: 0 done, 1 an error that was told, 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m ganexport.tensorrt.job_process", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args(arguments)
    faulthandler.enable()
    if words.pipe is None:
        return _for_a_person(words.folder)
    with os.fdopen(words.pipe, "w", encoding="utf-8") as stream:
        return _for_a_process(words.folder, Pipe(stream))


def _for_a_process(folder: Path, pipe: Pipe) -> int:
    threading.Thread(target=_stop_with_the_parent, name="ganexport-parent-watch", daemon=True).start()
    try:
        with captured_messages(pipe.said):
            _do(folder, pipe.progress)
    except GanError as error:
        pipe.error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    pipe.send("done")
    return 0


def _for_a_person(folder: Path) -> int:
    bar = ProgressBar("building")
    try:
        with captured_messages(lambda is_error, text: print(text, file=sys.stderr)):
            made = _do(folder, bar.update)
    except GanError as error:
        bar.close()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        bar.close()
        return 130
    bar.close()
    print(f"built {folder / PLAN} in {made.built.seconds:.0f} s; what each layer got is in {folder / READBACK}")
    return 0


def _do(folder: Path, on_progress: OnProgress) -> Made:
    job = Job.read(folder)
    try:
        made = run_job(job, on_progress)
    except MemoryError as error:
        raise EngineError(
            "this machine ran out of memory while the engine was built",
            remedy=f"free some, or build for a smaller largest batch: {job.options.command(job.bundle)}",
        ) from error
    try:
        made.write(folder)
    except OSError as error:
        raise OutputError(f"cannot write the engine into {folder}", got=error.strerror or str(error)) from error
    return made


def _stop_with_the_parent() -> None:
    """A build must not outlive who asked for it: the parent never writes to our stdin, and its end closes it."""
    # os.read: a thread that waits in sys.stdin would hold its lock while the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_S)
    os._exit(1)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
