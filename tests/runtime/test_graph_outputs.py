"""The straight way of a request that fills a bucket, held to the general one: the same bits, the same errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundles import small_spec, write_small_bundle

from ganruntime import graph_outputs, piece_runner
from ganruntime.choice import installed
from ganruntime.errors import BackendError, GanError, InputError
from ganruntime.generator import Generator, load
from ganruntime.sessions.fake import FakeSession
from ganruntime.spec import GeneratorSpec, Scalar, TensorSpec

BUCKETS = (1, 4)
BACKENDS = [backend for backend in ("onnxruntime", "openvino") if installed(backend)]


def with_two_inputs() -> GeneratorSpec:
    spec = small_spec()
    strength = TensorSpec("strength", "float32", (), Scalar(1.0, (0.0, 1.0)))
    return GeneratorSpec(spec.name, (*spec.inputs, strength), spec.outputs)


@pytest.fixture(scope="module", params=["fake", *BACKENDS])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """Every bucket has run in the general way, so that the straight one is open."""
    if request.param == "fake":
        made = Generator(FakeSession(with_two_inputs(), BUCKETS))
    else:
        path = write_small_bundle(tmp_path_factory.mktemp("straight") / "small.gan")
        made = load(path, "cpu", request.param, buckets=BUCKETS, threads=2)
    for bucket in BUCKETS:
        made.outputs(rows_of(made, bucket, 0))
    assert len(made._outputs._buckets) == len(BUCKETS)
    yield made
    made.close()


def rows_of(generator: Generator, n: int, seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    return {t.name: draws.standard_normal((n, *t.shape)).astype(np.float32) for t in generator.spec.inputs}


def straight_alone(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(inputs: object) -> None:
        raise AssertionError("it went the general way")

    monkeypatch.setattr(generator._outputs, "in_general", refused)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 9), seed=st.integers(0, 2**32), scale=st.sampled_from([1.0, 1e-30, 1e30, -1.0]))
def test_both_ways_give_the_same_bits(generator: Generator, n: int, seed: int, scale: float) -> None:
    rows = {name: array * np.float32(scale) for name, array in rows_of(generator, n, seed).items()}
    found, expected = generator.outputs(rows), generator._outputs.in_general(rows)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes()
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_what_fills_a_bucket_goes_the_straight_way(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    rows = rows_of(generator, bucket, 5)
    expected = generator._outputs.in_general(rows)
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in rows.items()}
    straight_alone(generator, monkeypatch)
    for given_rows in (rows, strided):
        for name, array in generator.outputs(given_rows).items():
            assert np.array_equal(array, expected[name])


def test_results_are_the_callers_own(generator: Generator) -> None:
    rows, others = rows_of(generator, 1, 1), rows_of(generator, 1, 2)
    first = generator.outputs(rows)
    kept = {name: array.copy() for name, array in first.items()}
    second = generator.outputs(others)
    for name, array in first.items():
        assert np.array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])
        array.fill(7)  # nor does what a caller does with one show in a later one
    assert all(np.array_equal(array, kept[name]) for name, array in generator.outputs(rows).items())


def test_inputs_are_read_and_not_kept(generator: Generator) -> None:
    rows = rows_of(generator, 4, 3)
    before = {name: array.copy() for name, array in rows.items()}
    found = generator.outputs(rows)
    assert all(np.array_equal(array, before[name]) for name, array in rows.items())
    for array in rows.values():
        array.fill(0)
    expected = generator.outputs(before)
    assert all(np.array_equal(array, expected[name]) for name, array in found.items())


class Marked(np.ndarray):
    """A subclass, which may do anything: it goes the general way."""


WRONG: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "infinite": lambda rows: rows | {"z": np.where(np.arange(rows["z"].size) == 2, np.inf, 0).astype(np.float32)[None]},
    "not a number": lambda rows: rows | {"z": np.full_like(rows["z"], np.nan)},
    "another width": lambda rows: rows | {"z": rows["z"][:, :-1]},
    "no batch": lambda rows: rows | {"z": np.float32(0)},
    "missing": lambda rows: {name: array for name, array in rows.items() if name != "z"},
    "one too many": lambda rows: rows | {"noise": rows["z"]},
    "under another name": lambda rows: {"x" if name == "z" else name: array for name, array in rows.items()},
    "complex": lambda rows: rows | {"z": rows["z"].astype(np.complex64)},
    "infinite in float32": lambda rows: rows | {"z": np.full(rows["z"].shape, 1e300)},
    "nothing": lambda rows: {},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_the_same_error_either_way(generator: Generator, wrong: str) -> None:
    rows = WRONG[wrong](rows_of(generator, 1, 1))
    with pytest.raises(GanError) as found:
        generator.outputs(rows)
    with pytest.raises(GanError) as expected:
        generator._outputs.in_general(rows)
    assert type(found.value) is type(expected.value) is InputError
    assert str(found.value) == str(expected.value)


def test_what_is_wrong_with_a_second_input_is_the_same_error_either_way() -> None:
    with Generator(FakeSession(with_two_inputs(), BUCKETS)) as generator:
        rows = rows_of(generator, 1, 1)
        generator.outputs(rows)
        one = rows["strength"]
        for other in (one.repeat(2), one.astype(np.complex64), np.full_like(one, np.inf), np.full_like(one, -np.nan)):
            with pytest.raises(InputError) as found:
                generator.outputs(rows | {"strength": other})
            with pytest.raises(InputError) as expected:
                generator._outputs.in_general(rows | {"strength": other})
            assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    "other",
    [
        lambda z: z.astype(np.float64),
        lambda z: z.astype(">f4"),
        lambda z: z.view(Marked),
        lambda z: z.tolist(),
        lambda z: (z * np.float32(1e25)).astype(np.float32),  # finite, and its squares are not
    ],
    ids=["float64", "other byte order", "a subclass", "a list", "squares overflow"],
)
def test_what_is_not_plain_goes_the_general_way(generator: Generator, other: Callable[[Any], Any]) -> None:
    rows = rows_of(generator, 1, 1)
    asked: list[object] = []
    general = generator._outputs.in_general
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator._outputs, "in_general", lambda inputs: asked.append(inputs) or general(inputs))
        generator.outputs(rows | {"z": other(rows["z"])})
    assert len(asked) == 1


@pytest.mark.parametrize("session", ["labels", "lanes", "many values"])
def test_what_the_straight_way_cannot_run_has_none(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec(conditional=session == "labels")
    if session == "many values":
        monkeypatch.setattr(graph_outputs, "_SUMMED_VALUES", 1)
    with Generator(FakeSession(spec, BUCKETS, lanes=2 if session == "lanes" else 1)) as generator:
        rows = {t.name: np.zeros((1, *t.shape), t.dtype) for t in spec.inputs}
        generator.outputs(rows)
        assert generator._outputs._buckets == {}
        generator.outputs(rows)


def test_threads_that_share_a_generator_get_their_own_rows(generator: Generator) -> None:
    requests = [rows_of(generator, 1 + 3 * (seed % 2), seed) for seed in range(24)]
    expected = [generator._outputs.in_general(rows) for rows in requests]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(generator.outputs, requests * 4))
    for outputs, wanted in zip(found, expected * 4, strict=True):
        assert all(np.array_equal(outputs[name], array) for name, array in wanted.items())


def test_a_run_that_fails_leaves_the_way_open() -> None:
    with Generator(FakeSession(small_spec(), BUCKETS, fail_on={1})) as generator:
        rows = rows_of(generator, 1, 1)
        expected = generator.outputs(rows)
        with pytest.raises(BackendError):
            generator.outputs(rows)
        found = generator.outputs(rows)
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


@pytest.mark.parametrize("backend", ["fake", *BACKENDS])
def test_a_generator_that_was_closed_says_so(backend: str, tmp_path: Path) -> None:
    made = (
        Generator(FakeSession(small_spec(), BUCKETS))
        if backend == "fake"
        else load(write_small_bundle(tmp_path / "small.gan"), "cpu", backend, buckets=BUCKETS, threads=1)
    )
    rows = rows_of(made, 1, 1)
    made.outputs(rows)
    made.close()
    with pytest.raises(BackendError, match="closed"):
        made.outputs(rows)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_told_to_load_for_itself() -> None:
    with Generator(FakeSession(small_spec(), BUCKETS)) as generator:
        rows = rows_of(generator, 1, 1)
        generator.outputs(rows)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                generator.outputs(rows)
            except BackendError as error:
                code = 0 if "another process" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        generator.outputs(rows)
        assert generator._runner._process is piece_runner._process
