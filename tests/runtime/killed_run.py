"""Run as a script: bulk runs killed with SIGKILL, at chosen moments or at random ones, and started again to the end.

Arguments: a folder, `files` or `tar`, and the moments, each `NAME:NTH`, or `random:ROUNDS:SEED`; before them `careless`
for writers that do what the real ones must not. Prints one JSON object: for each moment the files in which the folder
differs from that of an uninterrupted run. A process of its own, because it forks: the children share what was imported,
so that a start takes milliseconds.

Moments:
    begin        run.json is written, and not renamed yet
    begun        run.json is there, and nothing else
    in-file      half of a piece of a shard or image is written
    before-name  a shard or image is complete, under its partial name
    after-name   it has its name, and no line yet
    in-line      half of its line is written
    after-line   its line is written
    resuming     files are checked at a second start, which is killed as well
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ganruntime import runs, shards
from ganruntime.generator import Generator
from ganruntime.pipeline import write_images
from ganruntime.runs import RunFolder, request_from
from ganruntime.sessions.fake import FakeSession
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Scalar, TensorSpec
from ganruntime.writers import Destination, writer_for

SPEC = GeneratorSpec(
    "killed",
    (
        TensorSpec("z", "float32", (4,), Latent()),
        TensorSpec("label", "int64", (), Label(("a", "b", "c"))),
        TensorSpec("truncation", "float32", (), Scalar()),
    ),
    (TensorSpec("image", "float32", (1, 8, 8), Image()),),
)
SEED, FIRST, COUNT, SHARD_IMAGES, BUCKETS = 7, 90, 150, 40, (1, 4, 16)  # neither a multiple of the other
MOMENTS = ("begin", "begun", "in-file", "before-name", "after-name", "in-line", "after-line", "resuming")


def draw(folder: Path, format: str) -> None:
    generator = Generator(FakeSession(SPEC, BUCKETS))
    request = request_from(
        generator.describe(),
        SPEC,
        None,
        seed=SEED,
        first=FIRST,
        count=COUNT,
        inputs={"truncation": 0.5},
        format=format,
        shard_images=SHARD_IMAGES if format == "tar" else None,
    )
    writer = writer_for(Destination(folder, format), SPEC, request, workers=2)
    write_images(generator, writer, seed=SEED, first=FIRST, inputs={"truncation": 0.5})


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, nth: int) -> None:
    """Makes this process kill itself the nth time (from 0) that it comes to a moment."""
    left = [nth]

    def now() -> bool:
        left[0] -= 1
        return left[0] < 0

    def before_and_after(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            before(*arguments, **options)
            result = real(*arguments, **options)
            after(*arguments, **options)
            return result

        setattr(owner, name, wrapped)

    def nothing(*arguments: Any, **options: Any) -> None:
        pass

    def is_record(path: Path) -> bool:
        return path.name.endswith("run.json.partial")

    if moment in ("begin", "before-name"):
        before_and_after(
            Path,
            "replace",
            lambda path, target: die() if is_record(path) == (moment == "begin") and now() else None,
            nothing,
        )
    elif moment in ("begun", "after-name"):
        before_and_after(
            Path,
            "replace",
            nothing,
            lambda path, target: die() if is_record(path) == (moment == "begun") and now() else None,
        )
    elif moment == "in-file":

        def half_of_a_file(path: Path, data: bytes) -> None:
            if now():
                with path.open("wb") as file:
                    file.write(data[: len(data) // 2])
                die()

        def half_of_a_piece(stream: Any, data: bytes) -> None:
            if now():
                stream._file.write(data[: len(data) // 2])
                stream._file.flush()
                die()

        before_and_after(Path, "write_bytes", half_of_a_file, nothing)
        before_and_after(shards.TarStream, "_write", half_of_a_piece, nothing)
    elif moment == "in-line":
        real_write = os.write

        def half_of_a_line(descriptor: int, data: bytes) -> None:
            if now():
                real_write(descriptor, data[: len(data) // 2])
                die()

        before_and_after(os, "write", half_of_a_line, nothing)
    elif moment == "after-line":
        before_and_after(os, "write", nothing, lambda *_: die() if now() else None)
    elif moment == "resuming":
        before_and_after(runs, "_is_whole", nothing, lambda *_: die() if now() else None)
    else:
        raise ValueError(moment)


def be_careless() -> None:
    """Files are written under their own names, and whatever has a name at the next start is taken for whole."""

    def lines_for_what_there_is(folder: RunFolder, file_count: int) -> int:
        path = folder.path / runs.FILES_NAME
        lines = []
        while folder.done < file_count and (folder.path / folder._name_of(folder.done)).exists():
            file = folder.path / folder._name_of(folder.done)
            entry = {"file": file.name, "sha256": runs.sha256_of(file), "size_bytes": file.stat().st_size}
            lines.append(json.dumps(entry, sort_keys=True) + "\n")
            folder.done += 1
        path.write_text("".join(lines))
        return path.stat().st_size

    RunFolder.partial = lambda folder, name: folder.path / name  # type: ignore[method-assign]
    RunFolder._whole_lines = lines_for_what_there_is  # type: ignore[method-assign]


def in_a_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    found = bytes_of(folder)
    return sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))


def main(folder: Path, format: str, careless: bool, moments: list[str]) -> dict[str, Any]:
    assert status_of(in_a_child(lambda: draw(folder / "whole", format))) == 0
    expected, answer = bytes_of(folder / "whole"), {}

    def start(path: Path, *killed_at: tuple[str, int]) -> int:
        def work() -> None:
            if careless:
                be_careless()
            for moment, nth in killed_at:
                arm(moment, nth)
            draw(path, format)

        return in_a_child(work)

    for text in moments:
        path = folder / text.replace(":", "-")
        name, *numbers = text.split(":")
        if name == "random":
            answer[text] = killed_at_random(path, start, int(numbers[0]), random.Random(int(numbers[1])))
            kills = answer[text]["kills"]
        else:
            nth, kills = int(numbers[0]), 1
            if name == "resuming":
                assert status_of(start(path, ("after-line", nth + 1))) == -signal.SIGKILL
            assert status_of(start(path, (name, nth))) == -signal.SIGKILL, f"{text} never came"
            answer[text] = {}
        assert status_of(start(path)) == 0, text
        answer[text] |= {"differ": differences(path, expected), "kills": kills}
        shutil.rmtree(path)
    return answer


def killed_at_random(path: Path, start: Callable[[Path], int], rounds: int, randomly: random.Random) -> dict[str, Any]:
    """Kills a run again and again, later and later, until it had begun to write; says in how many rounds it had."""
    kills = within = 0
    for i in range(100 * rounds):  # where cores are taken, even the first file takes its time
        if i >= rounds and within:
            break
        child = start(path)
        time.sleep(randomly.uniform(0.0, 0.004 * (i + 1)))
        os.kill(child, signal.SIGKILL)
        kills += status_of(child) == -signal.SIGKILL
        within += path.exists() and any(p.suffix in (".png", ".tar") for p in path.iterdir())
    return {"kills": kills, "within": within}


if __name__ == "__main__":
    careless = sys.argv[3] == "careless"
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], careless, sys.argv[4 if careless else 3 :])))
