#!/usr/bin/env python3
"""An asyncio worker: jobs come in as lines of JSON, PNG files go out, and many jobs share each batch.

    printf '{"id": "a", "seed": 7, "index": 3}\n' | python examples/worker.py digits.gan -o images/
    python examples/worker.py digits.gan -o images/ < jobs.jsonl

A job is {"id", "seed", "index"} and may have "label", "truncation" and "timeout_ms". Its answer is a line on standard
output: {"id", "file"} or {"id", "error"}. At the end of the input, or on SIGTERM, the worker takes no more jobs,
finishes those that it has, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ganruntime
from ganruntime.batcher import Batcher
from ganruntime.errors import GanError, Overloaded
from ganruntime.images import pil_from_image

JOBS_AT_ONCE = 256


async def work(batcher: Batcher, folder: Path, lines: asyncio.Queue[bytes | None]) -> None:
    """Answers every line until None; at most `JOBS_AT_ONCE` jobs are under way, and further input waits in its pipe."""
    places = asyncio.Semaphore(JOBS_AT_ONCE)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    stop = asyncio.create_task(stopped.wait())
    async with asyncio.TaskGroup() as jobs:
        while True:
            coming = asyncio.create_task(lines.get())
            await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.is_set() or (line := coming.result()) is None:
                coming.cancel()
                break
            await places.acquire()
            job = jobs.create_task(answer(batcher, folder, line))
            job.add_done_callback(lambda _: places.release())
    stop.cancel()


async def answer(batcher: Batcher, folder: Path, line: bytes) -> None:
    job_id = None
    try:
        job = json.loads(line)
        job_id = job.pop("id")
        images = await drawn(batcher, job.pop("seed"), job.pop("index"), **job)
        file = folder / f"{int(job_id) if isinstance(job_id, int) else Path(str(job_id)).name}.png"
        await asyncio.to_thread(pil_from_image(images[0]).save, file)  # encoding keeps no other job waiting
        found = {"id": job_id, "file": str(file)}
    except (GanError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        found = {"id": job_id, "error": str(error) or type(error).__name__}
    print(json.dumps(found), flush=True)


async def drawn(batcher: Batcher, seed: int, index: int, **arguments: Any) -> Any:
    """uint8 [1, H, W, C]. A full queue is no failure here: nobody is waiting at the other end of a connection."""
    while True:
        try:
            return await batcher.submit_async(seed=seed, first=index, **arguments)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s)


def read_lines(put: Callable[[bytes | None], object]) -> None:
    """Hands on the lines of standard input, and None at its end. For a thread: asyncio waits for pipes and sockets,
    and input may be a file too. Straight from the system, so that no lock is held when the process ends."""
    rest = b""
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            put(line)
    if rest:
        put(rest)
    put(None)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=Path, metavar="NAME.gan")
    options.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    chosen = options.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    lines: asyncio.Queue[bytes | None] = asyncio.Queue(JOBS_AT_ONCE)
    loop = asyncio.get_running_loop()

    def put(line: bytes | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()  # waits for room

    def reading() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: on SIGTERM nobody waits for further input
            read_lines(put)

    threading.Thread(target=reading, daemon=True).start()
    # Loading takes seconds and blocks; nothing else is going on yet. Closing drains.
    with ganruntime.load(chosen.bundle) as generator, generator.batcher() as batcher:
        await work(batcher, chosen.output, lines)
        print(json.dumps(batcher.stats().to_json()), file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (GanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
