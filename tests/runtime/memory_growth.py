"""Run as a script: how much resident memory grows while images are streamed, or bundles loaded and closed.

Arguments: the work, how many times, and how many times more with a leak on purpose, the negative control. Prints one
JSON object with `flat` and, where there is one, `leaking`. A process of its own, so that nothing else is in its memory.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ganruntime.generator import Generator
from ganruntime.sessions.fake import FakeSession
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

SPEC = GeneratorSpec(
    "streamed", (TensorSpec("z", "float32", (8,), Latent()),), (TensorSpec("image", "float32", (3, 32, 32), Image()),)
)
WARM_UP_SHARE = 0.2


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(count: int, keep: list[Any] | None) -> Iterator[int]:
    for chunk in Generator(FakeSession(SPEC, (64,))).stream(count, seed=1):
        if keep is not None:
            keep.append(chunk)
        yield len(chunk)


def shards(count: int, keep: list[Any] | None) -> Iterator[int]:
    """Through the whole pipeline, into a folder that is emptied behind it."""
    from ganruntime.pipeline import drawn
    from ganruntime.runs import request_from
    from ganruntime.writers import Destination, writer_for

    generator = Generator(FakeSession(SPEC, (64,)))
    request = request_from(
        generator.describe(), SPEC, None, seed=1, first=0, count=count, format="tar", shard_images=1024
    )
    with tempfile.TemporaryDirectory() as folder:
        writer = writer_for(Destination(Path(folder), "tar"), SPEC, request, workers=2)
        with writer, drawn(generator, writer.chunks(64), seed=1, first=0) as results:
            for result in results:
                writer.add(result)
                if keep is not None:
                    keep.append(result)
                for shard in Path(folder).glob("*.tar"):
                    shard.unlink()
                yield len(result.images)


def cycles(count: int, keep: list[Any] | None, backend: str = "onnxruntime") -> Iterator[int]:
    from small_bundles import write_small_bundle

    from ganruntime.generator import load

    with tempfile.TemporaryDirectory() as folder:
        path = write_small_bundle(Path(folder) / "small.gan")
        for _ in range(count):
            generator = load(path, "cpu", backend, buckets=(1, 4), threads=2)
            generator.generate(3, seed=1)
            if keep is not None:
                keep.append(generator)
            else:
                generator.close()
            yield 1


def openvino_cycles(count: int, keep: list[Any] | None) -> Iterator[int]:
    return cycles(count, keep, "openvino")


WORK = {"stream": stream, "shards": shards, "cycles": cycles, "openvino_cycles": openvino_cycles}


def growth(work: str, count: int, leak: bool) -> dict[str, int]:
    done, start, kept = 0, 0, []
    for step in WORK[work](count, kept if leak else None):
        done += step
        if not start and done >= WARM_UP_SHARE * count:
            start = resident_bytes()
    grown = resident_bytes() - start
    return {
        "done": done,
        "growth_bytes": grown,
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "kept": len(kept),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    work, count, leaking = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {"flat": growth(work, count, leak=False)}
    if leaking:
        found["leaking"] = growth(work, leaking, leak=True)
    print(json.dumps(found))
