"""A run folder: what a training is of, how far it has come, and what it drew on the way.

    run.json                    recipe, settings, data with its fingerprint, seed, device, processes, threads, versions
    checkpoint/                 the last one, `gantrain.checkpoint`
    best/                       the generator that scored best so far, `gantrain.best`; none before the first score
    log.jsonl                   a line every `log_every` steps; all but its "timing" repeats with the seed
    index.html                  the page of the run, `gantrain.run_page`: for a browser, at any time
    tensorboard/                the log for TensorBoard, `gantrain.event_files`; only with tensorboard=true
    samples/step-000100.png     the same latents each time: those that `ganexport generate --seed SEED` begins with

The folder appears at once with a checkpoint of step 0 inside, and each checkpoint takes the place of the last in one
step, so that a kill at any moment leaves a run that can be resumed and exported.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import PIL.Image

from ganruntime.errors import CheckpointError, InputError, OutputError
from ganruntime.files import write_atomically
from gantrain.checkpoint import FOLDER_IN_RUN, json_text, read_json

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class RunRecord:
    """run.json. Everything but `device`, `threads`, `versions` and how often things are written decides the result.

    `processes` train together, each with `threads`: they decide the result as parts of a batch do.
    """

    recipe: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    seed: int
    device: str
    threads: int
    versions: Mapping[str, str]
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "recipe": self.recipe,
            "settings": dict(self.settings),
            "data": dict(self.data),
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "processes": self.processes,
            "versions": dict(self.versions),
        }


def checkpoint_of(run: Path) -> Path:
    return run / FOLDER_IN_RUN


def sample_of(run: Path, step: int) -> Path:
    return run / SAMPLES_FOLDER / f"step-{step:06d}.png"


def sample_sheets(run: Path | str) -> dict[int, Path]:
    """The sample sheets of a run by step, in order."""
    sheets: dict[int, Path] = {}
    for path in sorted((Path(run) / SAMPLES_FOLDER).glob("step-*.png")):
        digits = path.stem.removeprefix("step-")
        if digits.isdecimal():
            sheets[int(digits)] = path
    return dict(sorted(sheets.items()))


def check_new(run: Path) -> None:
    """Raises `InputError` unless a new run may be put at `run`: nothing is there, or an empty folder."""
    if run.is_dir() and not run.is_symlink() and not any(run.iterdir()):
        return
    if (run / RUN_FILE).is_file():
        raise InputError(
            f"{run} holds a run already", remedy="add --resume to go on with it, or choose another folder with --out"
        )
    if run.exists() or run.is_symlink():
        raise InputError(
            f"{run} exists and is no run of ours", remedy="choose another folder with --out; nothing was touched"
        )


def read_run(run: Path) -> RunRecord:
    """Reads run.json.

    Raises:
        InputError: there is no run at `run`.
        CheckpointError: run.json is damaged, or of a newer schema.
    """
    path = run / RUN_FILE
    if not path.is_file():
        raise InputError(
            f"{run} holds no run to resume" if run.is_dir() else f"{run} does not exist, so there is no run to resume",
            expected=f"a folder with {RUN_FILE}",
            remedy="leave out --resume to start one",
        )
    table = read_json(path)
    version = table.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version is not one that this release reads",
            got=version,
            expected=SCHEMA_VERSION,
            remedy="pip install --upgrade ganexport",
        )
    table.setdefault("processes", 1)  # not in a record of an earlier release
    kinds = {
        "recipe": str,
        "settings": dict,
        "data": dict,
        "seed": int,
        "device": str,
        "threads": int,
        "processes": int,
        "versions": dict,
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(table.get(name), kind)]
    if wrong or set(table) != set(kinds):
        raise CheckpointError(
            f"{path} is not a run's record",
            got=", ".join(wrong or sorted(set(table) - set(kinds))),
            expected=", ".join(kinds),
            remedy="start a new run; the generator in checkpoint/ can still be exported",
        )
    return RunRecord(**table)


def write_run(run: Path, record: RunRecord) -> None:
    """Writes run.json. Raises `OutputError`."""
    write_atomically(run / RUN_FILE, json_text(record.to_json()).encode())


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the run against a second process that would train into it. The lock goes with the process.

    Raises:
        InputError: another process is training into this run.
    """
    descriptor = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is training into {run}", remedy="wait for it, stop it, or choose another --out"
            ) from error
        except OSError:
            # Some network file systems have no locks. Then there is none to respect either.
            pass
        yield
    finally:
        os.close(descriptor)


def truncate_log(run: Path, step: int) -> None:
    """Drops lines of log.jsonl after `step` (a killed run may be ahead of its checkpoint), and sheets after it."""
    path = run / LOG_FILE
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            logged = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            break  # the end of a line that was being written
        if not line.endswith(b"\n") or logged > step:
            break
        kept.append(line)
    write_atomically(path, b"".join(kept))
    for sheet_step, sheet in sample_sheets(run).items():
        if sheet_step > step:
            with writing(sheet):
                sheet.unlink()


@contextlib.contextmanager
def log_of(run: Path) -> Iterator[TextIO]:
    """log.jsonl, open to append. Raises `OutputError`."""
    path = run / LOG_FILE
    with writing(path):
        file = path.open("a", encoding="utf-8")
    try:
        yield file
    finally:
        # What could not be flushed has been reported when it was written.
        with contextlib.suppress(OSError):
            file.close()


def log(file: TextIO, line: Mapping[str, Any]) -> None:
    """Appends a line and hands it to the system, so that a kill does not lose it. Raises `OutputError`."""
    with writing(Path(file.name)):
        file.write(json.dumps(line, allow_nan=False) + "\n")
        file.flush()


def write_sheet(path: Path, sheet: PIL.Image.Image) -> None:
    """Writes a PNG, whole or not at all. Raises `OutputError`."""
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` inside into an `OutputError` that names the path."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write {path}",
            got=error.strerror or str(error),
            remedy="free some space or check the permissions, then go on with --resume",
        ) from error
