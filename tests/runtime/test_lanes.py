"""Sessions with several pieces under way: the same images, in order, and nobody waits for a session that is held."""

from __future__ import annotations

import itertools
from collections.abc import Generator as Pieces
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from bulk_requests import COLOUR
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.chunks import Chunk, chunks_of
from ganruntime.errors import BackendError, InputError
from ganruntime.generator import Generator
from ganruntime.pipeline import CHUNKS_AHEAD, drawn
from ganruntime.requests import request_from_rows, request_from_seed
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import FakeSession

BUCKETS = (1, 4, 8)


class Watched(FakeSession):
    """Tells when a piece is asked for, to be put on the lane that comes free, and when one is taken off."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(COLOUR, BUCKETS, **arguments)
        self.log: list[str] = []

    def run_many(self, pieces: Iterable[tuple[Arrays, Arrays]]) -> Pieces[Arrays, None, None]:
        def told() -> Iterator[tuple[Arrays, Arrays]]:
            for piece in pieces:
                self.log.append("ask")
                yield piece

        return super().run_many(told())

    def run(self, inputs: Arrays, out: Arrays) -> None:
        self.log.append("take")
        super().run(inputs, out)

    @property
    def most_asked_for(self) -> int:
        return max(itertools.accumulate({"ask": 1, "take": -1}[step] for step in self.log))


def make(lanes: int = 2, **arguments: Any) -> Generator:
    return Generator(Watched(lanes=lanes, **arguments))


def log_of(generator: Generator) -> list[str]:
    session = generator.session
    assert isinstance(session, Watched)
    return session.log


PLAIN = Generator(FakeSession(COLOUR, BUCKETS))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 90), st.integers(1, 30), st.integers(1, 3))
def test_a_stream_is_the_same_on_any_number_of_lanes(count: int, size: int, lanes: int) -> None:
    labels = np.arange(count) % 3
    arguments: dict[str, Any] = {"seed": 7, "first": 5, "chunk_images": size, "label": labels, "truncation": 0.5}
    found = list(make(lanes).stream(count, **arguments))
    expected = list(PLAIN.stream(count, **arguments))
    assert [len(chunk) for chunk in found] == [chunk.count for chunk in chunks_of(0, count, size)]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 30), st.integers(1, 3))
def test_the_pipeline_draws_the_same_on_any_number_of_lanes(count: int, size: int, lanes: int) -> None:
    chunks = list(chunks_of(0, count, size))
    with drawn(make(lanes), chunks, seed=7, first=5, inputs={"label": "two"}) as results:
        found = list(results)
    assert [d.start for d in found] == [c.start for c in chunks]
    expected = [PLAIN.generate(c.count, seed=7, first=5 + c.start, label="two") for c in chunks]
    assert all(np.array_equal(d.images, e) for d, e in zip(found, expected, strict=True))
    assert all((d.inputs["label"] == 2).all() for d in found)


def test_chunks_of_a_stream_overlap() -> None:
    generator = make()
    list(generator.stream(48, seed=7))
    # Six chunks of the largest bucket: two are under way when the third is asked for, and the first is taken then.
    assert log_of(generator) == ["ask"] * 3 + ["take", "ask"] * 3 + ["take"] * 3


def test_requests_larger_than_a_bucket_overlap_with_the_next() -> None:
    generator = make()
    spec = generator.spec
    requests = [request_from_seed(spec, n, 7, first, None, None, {}) for n, first in ((9, 0), (3, 9), (1, 12))]
    found: list[NDArray[Any]] = []
    generator.draw_each(requests, found.append)
    assert np.array_equal(np.concatenate(found), PLAIN.generate(13, seed=7))
    assert log_of(generator) == ["ask"] * 3 + ["take", "ask"] + ["take"] * 3


def test_chunks_of_the_pipeline_overlap_and_are_bounded() -> None:
    generator = make()
    begun: list[int] = []

    def chunks() -> Iterator[Chunk]:
        for chunk in chunks_of(0, 800, 8):
            begun.append(chunk.start)
            yield chunk

    with drawn(generator, chunks(), seed=7, first=0) as results:
        for number, _ in enumerate(results):
            # In the queue before inference, under way, drawn, and handed out.
            assert len(begun) <= number + 1 + 2 * (CHUNKS_AHEAD + 1) + 2
    session = generator.session
    assert isinstance(session, Watched)
    assert session.most_asked_for == 3
    assert session.log.count("ask") == session.log.count("take") == 100


def test_whoever_takes_images_may_draw_as_well() -> None:
    generator = make(3)
    expected = PLAIN.generate(4, seed=1)
    with drawn(generator, chunks_of(0, 200, 8), seed=7, first=0) as results:
        for _ in results:
            assert np.array_equal(generator.generate(4, seed=1), expected)
    for _ in generator.stream(100, seed=7):
        assert np.array_equal(generator.generate(4, seed=1), expected)


def test_others_have_their_turn_before_a_long_run_is_over() -> None:
    """A group of pieces at a time: the session is let go in between, whatever else there is to draw."""
    generator = make()
    groups: list[int] = []
    real = generator.session.run_many

    def noted(pieces: Any) -> Any:
        groups.append(0)

        def counted() -> Iterator[Any]:
            for piece in pieces:
                groups[-1] += 1
                yield piece

        return real(counted())

    generator.session.run_many = noted  # type: ignore[method-assign]
    rows = noise.inputs(COLOUR, 7, 0, 8)
    generator.draw_each((request_from_rows(COLOUR, rows) for _ in range(20)), lambda images: None)
    assert groups == [8, 8, 4]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_an_error_comes_in_its_place(lanes: int) -> None:
    expected = PLAIN.generate(24, seed=7)
    found: list[NDArray[Any]] = []
    with pytest.raises(BackendError, match="told to fail"):
        found.extend(make(lanes, fail_on={3}).stream(80, seed=7))
    assert np.array_equal(np.concatenate(found), expected)
    with drawn(make(lanes, fail_on={3}), chunks_of(0, 80, 8), seed=7, first=0) as results:
        found.clear()
        with pytest.raises(BackendError, match="told to fail"):
            found.extend(result.images for result in results)
    assert np.array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_an_error_of_the_noise_comes_after_what_is_under_way(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.inputs

    def fails(spec: Any, seed: int, first: int, n: int) -> Any:
        if first == 32:
            raise InputError("no noise today")
        return real(spec, seed, first, n)

    expected = PLAIN.generate(32, seed=7)
    monkeypatch.setattr("ganruntime.pipeline.noise.inputs", fails)
    found: list[NDArray[Any]] = []
    with (
        drawn(make(lanes), chunks_of(0, 80, 8), seed=7, first=0) as results,
        pytest.raises(InputError, match="no noise today"),
    ):
        found.extend(result.images for result in results)
    assert np.array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_leaving_early_lets_the_session_go(taken: int) -> None:
    generator = make()
    with drawn(generator, chunks_of(0, 8000, 8), seed=7, first=0) as results:
        for _ in range(taken):
            next(results)
    assert np.array_equal(generator.generate(3, seed=1), PLAIN.generate(3, seed=1))
    for _ in generator.stream(100, seed=7):
        break
    assert np.array_equal(generator.generate(3, seed=1), PLAIN.generate(3, seed=1))
