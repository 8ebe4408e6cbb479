"""Run as a script: kills writers of a bundle at random moments, and reads the bundle after each.

Arguments: folder, `written` or `changed`, rounds, seed. Prints one JSON object. A process of its own, because it forks:
the children share what was imported, so that a round takes milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from ganruntime.bundle import GoldenRecord, Variant, bundle_changed, bundle_written, read_bundle
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

SPEC = GeneratorSpec(
    "killed", (TensorSpec("z", "float32", (4,), Latent()),), (TensorSpec("image", "float32", (1, 4, 4), Image()),)
)
FILES = ("model.onnx", "golden.npz", "engines/a.plan")


def content(name: str, turn: int) -> bytes:
    return f"{name} {turn}\n".encode() * 2000


def write(path: Path, turn: int, *, change: bool) -> None:
    with bundle_changed(path) if change else bundle_written(path, SPEC) as draft:
        for name in FILES:
            draft.add(name, content(name, turn))
        draft.golden = GoldenRecord("golden.npz", turn, 1, "nothing")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx"))
        draft.reports["turn"] = turn


def turn_of(path: Path) -> int:
    """Reads everything. Raises where anything is missing, mixed or half-written."""
    bundle = read_bundle(path)
    turn = bundle.manifest.reports["turn"]
    assert isinstance(turn, int)
    assert bundle.manifest.golden.seed == turn
    for name in FILES:
        assert bundle.read(name) == content(name, turn), name
    assert {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} == {*FILES, "manifest.json"}
    return turn


def main(folder: Path, mode: str, rounds: int, seed: int) -> dict[str, int]:
    path, randomly = folder / "killed.gan", random.Random(seed)
    write(path, 0, change=False)
    turn = left = removed = 0
    for _ in range(rounds):
        done, tell = os.pipe()
        child = os.fork()
        if child == 0:
            for later in range(turn + 1, turn + 10_000):
                write(path, later, change=mode == "changed")
                os.write(tell, b".")
            os._exit(0)
        os.close(tell)
        # Kill it within the write that follows the next or the next but one, however slow this machine is just now.
        start = time.monotonic()
        os.read(done, 1)
        if randomly.random() < 0.5:
            start = time.monotonic()
            os.read(done, 1)
        time.sleep(randomly.uniform(0.0, time.monotonic() - start))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(done)
        found = turn_of(path)
        assert found > turn, (found, turn)
        partial = [p.name for p in folder.iterdir() if p.name != path.name]
        left += bool(partial)
        turn = found + 1
        write(path, turn, change=mode == "changed")
        assert turn_of(path) == turn
        assert [p.name for p in folder.iterdir()] == [path.name]
        removed += len(partial)
    return {"rounds": rounds, "turns": turn, "left_partial": left, "removed": removed}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
