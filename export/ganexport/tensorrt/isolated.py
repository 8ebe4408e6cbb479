"""`run_isolated`: TensorRT's builder in a process of its own, so that its crash is an error here and no more.

A native builder may be ended by a bug (SIGSEGV, SIGABRT) or by the kernel (SIGKILL, when memory is short). A service
that builds must outlive that, and say what happened and how to see it again: a step that failed leaves its folder,
with the ONNX file it failed on, and the command that repeats it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganexport.tensorrt.build_failure import for_less
from ganexport.tensorrt.job import JOB, LOG, MODEL, Job, Made, reproduce_command
from ganexport.tensorrt.job_process import error_from_message
from ganexport.tensorrt.progress import OnProgress
from ganruntime.errors import EngineError, GanError, OutputError

_MODULE = "ganexport.tensorrt.job_process"
_SAID_SHOWN = 3
_LINE = "\n            "  # under the text of `got` and `remedy`
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}


@dataclass
class _Heard:
    """What came through the pipe."""

    phase: str = ""
    said: list[str] = field(default_factory=list)
    error: GanError | None = None
    done: bool = False


def run_isolated(job: Job, on_progress: OnProgress | None = None) -> Made:
    """Does a job in a process of its own.

    Ctrl-C asks TensorRT to stop at its next step, and waits for that; a second one ends the process at once.

    Raises:
        as `engine_from_onnx` and `readback_from_engine` do; and
        EngineError: the process crashed or was killed: by which signal, in which phase, and what to do. Its remedy
            names the folder that was kept and the command that does the build again.
        OutputError: the temporary folder cannot be written.
    """
    folder = _new_folder()
    try:
        try:
            job.write(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write a build's folder {folder}",
                got=error.strerror or str(error),
                remedy="set TMPDIR to a folder with room",
            ) from error
        heard, status = _run(folder, on_progress)
        if heard.error is not None:
            raise heard.error
        if not heard.done or status != 0:
            raise _ended_without_a_word(status, heard, folder, job)
        made = Made.read(folder, job)
    except EngineError as error:
        raise _with_reproduction(error, _kept(folder)) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _new_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="ganexport-build-"))
    except OSError as error:
        raise OutputError(
            "cannot make a temporary folder to build in",
            got=error.strerror or str(error),
            remedy="set TMPDIR to a folder that may be written",
        ) from error


def _run(folder: Path, on_progress: OnProgress | None) -> tuple[_Heard, int]:
    """(what came through the pipe, exit status as `subprocess` gives it)."""
    heard = _Heard()
    interrupts = 0
    with _process(folder) as (process, lines):
        while True:
            try:
                line = lines.readline()
                if not line:
                    break
                _hear(line, heard, on_progress)
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts == 1:
                    process.send_signal(signal.SIGINT)
                else:
                    process.kill()
        status = process.wait()
    if interrupts:
        raise KeyboardInterrupt
    return heard, status


def _hear(line: str, heard: _Heard, on_progress: OnProgress | None) -> None:
    try:
        kind, *rest = json.loads(line)
    except ValueError:
        return  # half a line, of a process that was ended in the middle of it
    if kind == "progress":
        heard.phase = rest[1] or heard.phase
        if on_progress is not None:
            on_progress(rest[0], rest[1])
    elif kind == "said":
        heard.said.append(rest[1])
    elif kind == "error":
        heard.error = error_from_message(rest[0])
    elif kind == "done":
        heard.done = True


@contextlib.contextmanager
def _process(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """The child, and the lines that it writes into the pipe; on leaving, it has ended."""
    reading, writing = os.pipe()
    # It finds what this process finds, and nothing of the working folder's (-P), where a `tensorrt` may lie about.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
    command = [sys.executable, "-P", "-m", _MODULE, str(folder), "--pipe", str(writing)]
    with contextlib.ExitStack() as closing:
        lines = closing.enter_context(os.fdopen(reading, encoding="utf-8", errors="replace"))
        try:
            with (folder / LOG).open("wb") as log:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,  # never written to: that it closes tells the child of our end
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                    start_new_session=True,  # the terminal's Ctrl-C reaches this process only, which passes it on
                )
        except OSError as error:
            raise OutputError("cannot start a process to build in", got=error.strerror or str(error)) from error
        finally:
            os.close(writing)
        try:
            yield process, lines
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _ended_without_a_word(status: int, heard: _Heard, folder: Path, job: Job) -> EngineError:
    smaller = f"build for less: {for_less(job.options, job.bundle)}"
    last = [t.strip() for t in heard.said if t.strip()] or _log_tail(folder)
    where = f"in the phase {heard.phase!r}" if heard.phase else "before its first phase"
    if status >= 0:
        return EngineError(
            "TensorRT's process ended without a word",
            got=_LINE.join([f"exit status {status}, {where}", *last[-_SAID_SHOWN:]]),
        )
    name = _signal_name(-status)
    got = _LINE.join([f"{name}, {where}", *last[-_SAID_SHOWN:]])
    if -status == signal.SIGKILL:
        return EngineError(
            "TensorRT's process was killed while it built the engine: most likely by the kernel, for want of memory",
            got=got,
            remedy=f"`dmesg | grep -i oom` says whether it was; free memory, give the container more, or {smaller}",
        )
    if -status in _CRASHES:
        return EngineError(
            f"TensorRT crashed while it built the engine ({name})",
            got=got,
            remedy="another TensorRT release or another --optimization-level may not; report it to NVIDIA with "
            f"the folder below, which is all it takes, or {smaller}",
        )
    return EngineError(f"TensorRT's process was ended from outside by {name}", got=got, remedy="build again")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _log_tail(folder: Path) -> list[str]:
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _kept(folder: Path) -> Path:
    """The folder under a name that its content gives: a build that fails again and again fills no disk."""
    content = hashlib.sha256((folder / JOB).read_bytes() + hashlib.sha256((folder / MODEL).read_bytes()).digest())
    name = folder.with_name(f"ganexport-failed-build-{content.hexdigest()[:12]}")
    with contextlib.suppress(OSError):  # another user's, in a /tmp that is shared: then the name stays as it is
        if name.is_dir():
            shutil.rmtree(name)
        return folder.rename(name)
    return folder


def _with_reproduction(error: EngineError, folder: Path) -> EngineError:
    lines = [] if error.remedy is None else [error.remedy]
    lines.append(f"do it again with: {reproduce_command(folder)}")
    lines.append(f"the ONNX file and the log are in {folder}")
    return type(error)(error.problem, got=error.got, expected=error.expected, remedy=_LINE.join(lines))
