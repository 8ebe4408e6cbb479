"""The equality contract: in one bucket the same bits however a run is cut, ordered or threaded; else the bound."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_bundles import write_small_bundle

from ganruntime.bundle import read_bundle
from ganruntime.chunks import Chunk
from ganruntime.generator import Generator, load
from ganruntime.pipeline import drawn

COUNT, SEED, FIRST = 40, 11, 95
BUCKETS, THREADS = (1, 4, 16, 64), (1, 2, 3)
BOUND = 1e-6  # of the float outputs of this network, in its own range of 2

Loaded = dict[tuple[int, int], Generator]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("equality") / "conditional.gan", conditional=True)


@pytest.fixture(scope="module")
def loaded(path: Path) -> Iterator[Loaded]:
    """A generator for each bucket and number of threads."""
    generators = {
        (bucket, threads): load(path, "cpu", "onnxruntime", buckets=[bucket], threads=threads)
        for bucket in BUCKETS
        for threads in THREADS
    }
    yield generators
    for generator in generators.values():
        generator.close()


@pytest.fixture(scope="module")
def whole(loaded: Loaded) -> dict[int, NDArray[np.uint8]]:
    return {bucket: loaded[bucket, 1].generate(COUNT, seed=SEED, first=FIRST) for bucket in BUCKETS}


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """[0, COUNT) in pieces, in any order: (start, count) each."""
    inner = draw(st.sets(st.integers(1, COUNT - 1), max_size=12))
    ends = [0, *sorted(inner), COUNT]
    return draw(st.permutations([(a, b - a) for a, b in itertools.pairwise(ends)]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(BUCKETS), st.sampled_from(THREADS), cuts())
def test_in_one_bucket_no_cut_order_or_thread_changes_a_bit(
    loaded: Loaded, whole: dict[int, NDArray[np.uint8]], bucket: int, threads: int, pieces: list[tuple[int, int]]
) -> None:
    found = np.empty_like(whole[bucket])
    for start, count in pieces:
        found[start : start + count] = loaded[bucket, threads].generate(count, seed=SEED, first=FIRST + start)
    assert np.array_equal(found, whole[bucket])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(BUCKETS), st.sampled_from(THREADS), cuts(), st.booleans())
def test_in_one_bucket_the_pipeline_changes_no_bit(
    loaded: Loaded,
    whole: dict[int, NDArray[np.uint8]],
    bucket: int,
    threads: int,
    pieces: list[tuple[int, int]],
    overlapped: bool,
) -> None:
    chunks = [Chunk(start, count) for start, count in pieces]
    with drawn(loaded[bucket, threads], chunks, seed=SEED, first=FIRST, overlapped=overlapped) as results:
        for result in results:
            assert np.array_equal(result.images, whole[bucket][result.start : result.start + len(result.images)])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(BUCKETS), st.integers(1, 30), st.integers(0, 2**64 - 1))
def test_a_row_s_neighbours_change_no_bit_of_its_values(loaded: Loaded, bucket: int, others: int, seed: int) -> None:
    """The float outputs themselves, before they are rounded to pixels; with other latents and labels around."""
    generator = loaded[bucket, 2]
    z, other = generator.latents(1, seed=SEED), generator.latents(others, seed=seed)
    place = seed % (others + 1)
    rows = {
        "z": np.concatenate([other[:place], z, other[place:]]),
        "label": np.array([*([seed % 3] * place), 1, *([0] * (others - place))], np.int64),
        "truncation": np.array([*([0.25] * place), 0.5, *([1.0] * (others - place))], np.float32),
    }
    alone = generator.outputs({name: array[place : place + 1] for name, array in rows.items()})["image"][0]
    assert np.array_equal(generator.outputs(rows)["image"][place], alone)


def test_threads_that_share_a_generator_change_no_bit(loaded: Loaded, whole: dict[int, NDArray[np.uint8]]) -> None:
    generator = loaded[16, 2]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: generator.generate(1, seed=SEED, first=FIRST + i), [*range(COUNT)] * 4))
    assert np.array_equal(np.concatenate(parts), np.concatenate([whole[16]] * 4))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BUCKETS), st.sampled_from(BUCKETS), st.integers(0, 2**64 - 41))
def test_across_buckets_the_bound_holds(loaded: Loaded, one: int, other: int, first: int) -> None:
    inputs = {
        "z": loaded[one, 1].latents(COUNT, seed=SEED, first=first),
        "label": np.arange(COUNT) % 3,
        "truncation": np.linspace(0, 1, COUNT, dtype=np.float32),
    }
    a, b = (loaded[bucket, 1].outputs(inputs)["image"] for bucket in (one, other))
    assert np.abs(a - b).max() <= BOUND
    images = [loaded[bucket, 1].generate(COUNT, seed=SEED, first=first).astype(int) for bucket in (one, other)]
    assert np.abs(images[0] - images[1]).max() <= 1


def test_the_published_bound_is_no_smaller(path: Path) -> None:
    assert all(v.bound >= BOUND for variant in read_bundle(path).manifest.variants for v in variant.verdicts)


def test_another_network_breaks_the_bound(loaded: Loaded, tmp_path: Path) -> None:
    """The negative control: the comparison sees what a wrong weight does."""
    other = write_small_bundle(tmp_path / "other.gan", conditional=True, seed=1)
    with load(other, "cpu", "onnxruntime", buckets=[16]) as generator:
        images = generator.generate(COUNT, seed=SEED).astype(int)
    assert np.abs(images - loaded[16, 1].generate(COUNT, seed=SEED)).max() > 1
