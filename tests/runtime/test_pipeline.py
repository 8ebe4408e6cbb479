"""The pipeline: the same images as without it, bounded, and ended by errors and interruptions."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_requests import COLOUR, GREY, bytes_in, images_in
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.chunks import Chunk, Drawn, buckets_of, chunks_of
from ganruntime.errors import BackendError, InputError
from ganruntime.generator import Generator
from ganruntime.image_writer import ImageWriter
from ganruntime.pipeline import Ahead, drawn, write_images
from ganruntime.runs import request_from
from ganruntime.sessions.fake import FakeSession
from ganruntime.writers import Destination, writer_for

HERE = Path(__file__).parent


def threads_named(*names: str) -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(names)]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert threads_named("noise", "inference", "encoding", "counting") == []


def make(*, conditional: bool = False, fail_on: frozenset[int] = frozenset()) -> Generator:
    return Generator(FakeSession(COLOUR if conditional else GREY, (1, 4, 16), fail_on))


def open_writer(generator: Generator, folder: Path, count: int, format: str = "files", **inputs: Any) -> ImageWriter:
    asked = request_from(
        generator.describe(),
        generator.spec,
        None,
        seed=7,
        first=5,
        count=count,
        inputs=inputs,
        format=format,
        shard_images=24 if format == "tar" else None,
    )
    return writer_for(Destination(folder, format), generator.spec, asked, workers=2)


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
def test_images_are_those_of_generate(overlapped: bool, conditional: bool) -> None:
    generator = make(conditional=conditional)
    inputs = {"label": "two", "truncation": 0.5} if conditional else {}
    chunks = list(chunks_of(0, 50, 16))
    with drawn(generator, chunks, seed=7, first=5, inputs=inputs, overlapped=overlapped) as results:
        found = list(results)
    assert [(d.start, len(d.images)) for d in found] == [(c.start, c.count) for c in chunks]
    expected = generator.generate(50, seed=7, first=5, **inputs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate([d.images for d in found]), expected)
    if conditional:
        assert {name for d in found for name in d.inputs} == {"label", "truncation"}
        assert all((d.inputs["label"] == 2).all() and (d.inputs["truncation"] == 0.5).all() for d in found)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 40), st.booleans())
def test_chunks_cover_a_run_once(count: int, size: int, overlapped: bool) -> None:
    chunks = list(chunks_of(3, count, size))
    assert [i for c in chunks for i in range(c.start, c.start + c.count)] == list(range(3, 3 + count))
    assert all(len(buckets_of(c.count, (1, 4, 16))) == c.count for c in chunks)
    with drawn(make(), chunks, seed=1, first=0, overlapped=overlapped) as results:
        assert [(d.start, len(d.images)) for d in results] == [(c.start, c.count) for c in chunks]


@pytest.mark.parametrize("format", ["files", "tar"])
def test_overlapped_or_not_the_bytes_are_the_same(tmp_path: Path, format: str) -> None:
    for name, overlapped in (("a", True), ("b", False)):
        generator = make(conditional=True)
        writer = open_writer(generator, tmp_path / name, 100, format)
        told: list[int] = []
        write_images(generator, writer, seed=7, first=5, overlapped=overlapped, progress=told.append)
        assert writer.written == sum(told) == 100
    assert bytes_in(tmp_path / "a") == bytes_in(tmp_path / "b")


def test_the_stages_do_overlap() -> None:
    """Noise, inference and what the caller does with an image each wait 20 ms a chunk."""

    class Slow(FakeSession):
        def run(self, inputs: Any, out: Any) -> None:
            time.sleep(0.02)
            super().run(inputs, out)

    def chunks() -> Iterator[Chunk]:
        for chunk in chunks_of(0, 160, 16):
            time.sleep(0.02)
            yield chunk

    seconds = {}
    for overlapped in (False, True):
        generator = Generator(Slow(GREY, (16,)))
        start = time.perf_counter()
        with drawn(generator, chunks(), seed=0, first=0, overlapped=overlapped) as results:
            for _ in results:
                time.sleep(0.02)
        seconds[overlapped] = time.perf_counter() - start
    assert seconds[False] >= 0.6
    assert seconds[True] < 0.75 * seconds[False]


def test_no_more_than_a_few_chunks_are_ahead() -> None:
    asked: list[int] = []

    def chunks() -> Iterator[Chunk]:
        for chunk in chunks_of(0, 10**9, 16):
            asked.append(chunk.start)
            yield chunk

    with drawn(make(), chunks(), seed=0, first=0) as results:
        for taken in range(1, 6):
            next(results)
            time.sleep(0.05)
            assert len(asked) <= taken + 6  # two before each stage, and one in each hand


@pytest.mark.parametrize("format", ["files", "tar"])
@pytest.mark.parametrize("overlapped", [True, False])
def test_an_error_of_the_backend_comes_out_and_whole_files_stay(tmp_path: Path, format: str, overlapped: bool) -> None:
    generator = make(fail_on=frozenset([4]))
    writer = open_writer(generator, tmp_path / "images", 500, format)
    with pytest.raises(BackendError, match="told to fail"):
        write_images(generator, writer, seed=7, first=5, overlapped=overlapped)
    # Four batches of 16; a shard of 24 runs as 16 + 4 + 4, and the fifth run fails.
    assert writer.written == {"files": 64, "tar": 24}[format]
    assert len(images_in(tmp_path / "images")) == {"files": 64, "tar": 1}[format]
    generator = make()
    writer = open_writer(generator, tmp_path / "images", 500, format)
    write_images(generator, writer, seed=7, first=5)
    other = open_writer(generator, tmp_path / "whole", 500, format)
    write_images(generator, other, seed=7, first=5)
    assert bytes_in(tmp_path / "images") == bytes_in(tmp_path / "whole")


def test_an_error_in_the_noise_comes_out() -> None:
    def chunks() -> Iterator[Chunk]:
        yield Chunk(0, 4)
        raise ZeroDivisionError

    with drawn(make(), chunks(), seed=0, first=0) as results:
        assert len(next(results).images) == 4
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_inputs_that_do_not_fit_are_refused_before_anything_runs() -> None:
    for inputs in ({"label": "zero"}, {"truncation": 0.5}, {"nonsense": 1}):
        with pytest.raises(InputError), drawn(make(), [Chunk(0, 4)], seed=0, first=0, inputs=inputs):
            pass


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_early_stops_the_stages(taken: int) -> None:
    with drawn(make(), chunks_of(0, 10**9, 16), seed=0, first=0) as results:
        for _ in range(taken):
            next(results)


@pytest.mark.parametrize("format", ["files", "tar"])
def test_an_interruption_of_the_caller_keeps_what_was_drawn(tmp_path: Path, format: str) -> None:
    generator = make()
    writer = open_writer(generator, tmp_path / "images", 10**6, format)
    told = itertools.count(1)

    def progress(images: int) -> None:
        if next(told) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_images(generator, writer, seed=7, first=5, progress=progress)
    # Six chunks were added: of 16 each, or 16 + 8 three times.
    assert writer.written == {"files": 96, "tar": 72}[format]
    assert len(images_in(tmp_path / "images")) == {"files": 96, "tar": 3}[format]


@pytest.mark.parametrize("format", ["files", "tar"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_leaves_whole_files(tmp_path: Path, format: str, number: signal.Signals) -> None:
    """SIGINT ends a process in order, SIGTERM at once; both leave what a next start takes up."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import killed_run; from pathlib import Path\n"
        "killed_run.COUNT = 100_000; print('begun', flush=True); killed_run.draw(Path(sys.argv[1]), sys.argv[2])\n"
    )
    for round_, wait in enumerate((0.0, 0.05, 0.15, 0.3)):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "images"), format, str(HERE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        if number == signal.SIGINT and (tmp_path / "images").exists():
            assert "KeyboardInterrupt" in err
            assert [p.name for p in (tmp_path / "images").iterdir() if p.name.startswith(".")] == [], round_
    assert len(images_in(tmp_path / "images")) > 0


def test_ahead_is_in_order_and_ends() -> None:
    numbers = Ahead(iter(range(1000)), 3, "counting")
    assert list(numbers) == list(range(1000))
    assert list(numbers) == []
    numbers.close()
    numbers.close()


def test_ahead_gives_an_error_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise KeyError("x")

    numbers: Ahead[int] = Ahead(source(), 2, "counting")
    assert [next(numbers) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(numbers)
    numbers.close()


def test_a_writer_takes_what_the_pipeline_gives(tmp_path: Path) -> None:
    class Counting(ImageWriter):
        def __init__(self) -> None:
            super().__init__(tmp_path, 40)
            self.finished = 0

        def add(self, drawn: Drawn) -> None:
            self.written += len(drawn.images)

        def finish(self) -> None:
            self.finished += 1

    writer = Counting()
    write_images(make(), writer, seed=0, first=0)
    assert (writer.written, writer.finished) == (40, 1)
