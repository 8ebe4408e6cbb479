"""Generators: the same images however they are asked for, and an error for what does not fit."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from small_bundles import CLASSES, small_spec

import ganruntime
from ganruntime import noise
from ganruntime.bundle import read_bundle
from ganruntime.errors import BackendError, InputError
from ganruntime.generator import Generator
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import FakeSession
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Noise, TensorSpec, Vector

Make = Callable[..., Generator]


@pytest.fixture(params=["fake", "onnxruntime"])
def make(request: pytest.FixtureRequest, paths: dict[bool, Path]) -> Make:
    """A generator on either session: make(conditional=…, buckets=…)."""

    def make(*, conditional: bool = False, buckets: tuple[int, ...] = (1, 4, 16)) -> Generator:
        if request.param == "fake":
            return Generator(FakeSession(small_spec(conditional=conditional), buckets))
        return ganruntime.load(paths[conditional], device="cpu", buckets=buckets, threads=1)

    return make


def levels_apart(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max(initial=0))


# The same images, however they are asked for


@pytest.mark.parametrize("n", [0, 1, 3, 16, 17, 50])
@pytest.mark.parametrize("conditional", [False, True])
def test_any_number_of_images(make: Make, n: int, conditional: bool) -> None:
    images = make(conditional=conditional).generate(n, seed=7)
    assert images.shape == (n, 8, 8, 3 if conditional else 1)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    if n > 1:
        assert levels_apart(images[0], images[1]) > 0


@pytest.mark.parametrize("bucket", [1, 4, 16])
@pytest.mark.parametrize("conditional", [False, True])
def test_with_one_bucket_no_split_changes_a_bit(make: Make, bucket: int, conditional: bool) -> None:
    generator = make(conditional=conditional, buckets=(bucket,))
    whole = generator.generate(20, seed=3)
    for cuts in ([0, 4, 20], [0, 1, 2, 19, 20], [0, 16, 20], [0, 0, 7, 20]):
        parts = [generator.generate(b - a, seed=3, first=a) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(generator.generate(20, seed=3), whole)
    assert np.array_equal(generator.generate(1, seed=3, first=13)[0], whole[13])


def test_with_several_buckets_splits_stay_within_a_level(make: Make) -> None:
    generator = make(buckets=(1, 4, 16))
    whole = generator.generate(50, seed=3)
    parts = [generator.generate(1, seed=3, first=i) for i in range(20)]
    assert levels_apart(np.concatenate(parts), whole[:20]) <= 1
    z = generator.latents(50, seed=3)
    one_by_one = np.concatenate([generator.outputs({"z": row[None]})["image"] for row in z])
    assert np.abs(one_by_one - generator.outputs({"z": z})["image"]).max() <= 1e-6


@pytest.mark.parametrize("chunk", [None, 1, 7, 16, 100])
def test_a_stream_is_what_generate_gives(make: Make, chunk: int | None) -> None:
    generator = make(conditional=True, buckets=(4,))
    labels = [i % 3 for i in range(30)]
    psi = np.linspace(0, 1, 30)
    whole = generator.generate(30, seed=5, first=9, label=labels, truncation=psi)
    chunks = list(generator.stream(30, seed=5, first=9, chunk_images=chunk, label=labels, truncation=psi))
    assert [len(c) for c in chunks[:-1]] == [chunk or 4] * (len(chunks) - 1)
    assert np.array_equal(np.concatenate(chunks), whole)
    drawn = np.concatenate(list(generator.stream(30, seed=5, first=9, chunk_images=chunk)))
    assert np.array_equal(drawn, generator.generate(30, seed=5, first=9))
    assert list(generator.stream(0)) == []


def test_a_stream_keeps_little_in_memory_and_stops_when_told(make: Make) -> None:
    stream = make().stream(10**12, seed=1)
    first = [next(stream) for _ in range(3)]
    assert [len(c) for c in first] == [16, 16, 16]
    stream.close()  # type: ignore[attr-defined]


def test_seeds_and_indices_draw_different_images(make: Make) -> None:
    generator = make()
    images = [generator.generate(4, seed=s, first=f) for s, f in [(0, 0), (1, 0), (0, 4), (2**64 - 1, 2**63)]]
    flat = {image.tobytes() for batch in images for image in batch}
    assert len(flat) == 16


def test_images_are_the_pixels_of_the_network(paths: dict[bool, Path]) -> None:
    """Held against a bare session on the same inputs, label and truncation included."""
    generator = ganruntime.load(paths[True], device="cpu")
    bare = onnxruntime.InferenceSession(str(paths[True] / "model.onnx"), providers=["CPUExecutionProvider"])
    spec = small_spec(conditional=True)
    z = noise.latents(spec.inputs[0], 11, 5, 30)
    cases: list[tuple[dict[str, Any], np.ndarray, np.ndarray]] = [
        ({}, noise.labels(spec.inputs[1], 11, 5, 30), np.ones(30)),
        ({"label": "two"}, np.full(30, 2), np.ones(30)),
        ({"label": 1, "truncation": 0.5}, np.full(30, 1), np.full(30, 0.5)),
        ({"label": [*CLASSES] * 10}, np.arange(30) % 3, np.ones(30)),
        ({"label": np.arange(30) % 3, "truncation": np.linspace(0, 1, 30)}, np.arange(30) % 3, np.linspace(0, 1, 30)),
    ]
    for arguments, labels, psi in cases:
        feed = {"z": z, "label": labels.astype(np.int64), "truncation": psi.astype(np.float32)}
        (expected,) = bare.run(["image"], feed)
        pixels = np.rint(np.clip((expected + 1) * 127.5, 0, 255)).transpose(0, 2, 3, 1)
        assert levels_apart(generator.generate(30, seed=11, first=5, **arguments), pixels) <= 1
        assert levels_apart(generator(z, **({"label": labels} | arguments)), pixels) <= 1


def test_golden_samples_come_back(paths: dict[bool, Path]) -> None:
    for path in paths.values():
        golden = read_bundle(path).golden()
        inputs = {k.removeprefix("input."): v for k, v in golden.items() if k.startswith("input.")}
        for buckets in [(1,), (3, 8), (64,)]:
            found = ganruntime.load(path, device="cpu", buckets=buckets).outputs(inputs)
            assert np.abs(found["image"] - golden["output.image"]).max() <= 1e-6


# Latents of one's own


def test_own_latents_are_drawn_from(make: Make) -> None:
    generator = make(buckets=(4,))
    z = generator.latents(10, seed=2, first=3)
    assert z.shape == (10, 8)
    assert z.dtype == np.float32
    expected = generator.generate(10, seed=2, first=3)
    assert np.array_equal(generator(z), expected)
    assert np.array_equal(generator(z.tolist()), expected)
    assert np.array_equal(generator(z.astype(np.float64)), expected)
    assert np.array_equal(generator(np.asfortranarray(z)), expected)
    assert np.array_equal(generator(np.repeat(z, 2, axis=0)[::2]), expected)
    assert np.array_equal(generator(z[4]), expected[4:5])
    assert generator(np.zeros((0, 8))).shape == (0, 8, 8, 1)


def test_own_latents_are_not_written_to(make: Make) -> None:
    generator = make()
    z = generator.latents(5, seed=2)
    z.flags.writeable = False
    before = z.copy()
    generator(z)
    assert np.array_equal(z, before)


def test_own_latents_need_a_label_where_there_is_no_seed(make: Make) -> None:
    generator = make(conditional=True)
    z = generator.latents(3, seed=1)
    with pytest.raises(InputError, match="not given") as error:
        generator(z)
    assert "label" in str(error.value)
    assert np.array_equal(generator(z, label="one"), generator(z, label=1, truncation=1.0))
    assert generator(z[0], label="one").shape == (1, 8, 8, 3)


def test_results_do_not_share_memory(make: Make) -> None:
    generator = make()
    one = generator.generate(16, seed=1)
    kept = one.copy()
    raw = generator.outputs({"z": generator.latents(16, seed=1)})["image"]
    raw_kept = raw.copy()
    generator.generate(16, seed=2)
    assert np.array_equal(one, kept)
    assert np.array_equal(raw, raw_kept)


# What does not fit


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: g.generate(-1), "n is not a count"),
        (lambda g: g.generate(1.0), "n is not a count"),
        (lambda g: g.generate(True), "n is not a count"),
        (lambda g: g.generate("5"), "n is not a count"),
        (lambda g: g.generate(None), "n is not a count"),
        (lambda g: g.generate(2**47), "do not fit the memory"),
        (lambda g: g.generate(1, seed=-1), "seed"),
        (lambda g: g.generate(1, seed=2**64), "seed"),
        (lambda g: g.generate(1, seed=0.5), "seed"),
        (lambda g: g.generate(0, seed=None), "seed"),
        (lambda g: g.generate(1, first=-1), "first"),
        (lambda g: g.generate(1, first=2**64), "first"),
        (lambda g: g.generate(2, first=2**64 - 1), "range"),
        (lambda g: g.generate(3, label="dog"), "'dog' is not a class of 'label'"),
        (lambda g: g.generate(3, label=3), "'label'"),
        (lambda g: g.generate(3, label=["one"]), "'label' has the wrong shape"),
        (lambda g: g.generate(3, truncation=[0.5, 0.5]), "'truncation' has the wrong shape"),
        (lambda g: g.generate(3, truncation=float("nan")), "'truncation' has values that are not finite"),
        (lambda g: g.generate(3, truncation="high"), "'truncation'"),
        (lambda g: g.generate(3, z=np.zeros((2, 8))), "'z' has the wrong shape"),
        (lambda g: g.generate(3, colour=1), "no input 'colour'"),
        (lambda g: list(g.stream(-1)), "n is not a count"),
        (lambda g: list(g.stream(3, chunk_images=0)), "chunk_images"),
        (lambda g: list(g.stream(3, chunk_images=1.5)), "chunk_images"),
        (lambda g: list(g.stream(3, colour=1)), "no input 'colour'"),
        (lambda g: list(g.stream(3, label=["one"] * 2)), "'label' has the wrong shape"),
        (lambda g: list(g.stream(3, first=2**64 - 1)), "range"),
        (lambda g: g.latents(-1), "count"),
        (lambda g: g.latents(1, seed="a"), "seed"),
        (lambda g: g(np.zeros((3, 7)), label=0), "'z' has the wrong shape"),
        (lambda g: g(np.zeros((3, 8, 1)), label=0), "'z' has the wrong shape"),
        (lambda g: g(np.float32(1), label=0), "'z' has the wrong shape"),
        (lambda g: g([[1, 2], [3]], label=0), "'z' is not an array"),
        (lambda g: g(np.full((2, 8), np.inf), label=0), "'z' has values that are not finite"),
        (lambda g: g(np.full((2, 8), 1e200), label=0), "'z' has values that are not finite"),
        (lambda g: g(np.zeros((2, 8), complex), label=0), "'z' has the wrong kind"),
        (lambda g: g("latents", label=0), "'z'"),
        (lambda g: g(None, label=0), "'z'"),
        (lambda g: g.outputs({}), "needs inputs"),
        (lambda g: g.outputs({"z": np.zeros((2, 8))}), "needs inputs"),
        (lambda g: g.outputs({"z": 1.0, "label": 0, "truncation": 1.0}), "'z' has the wrong shape"),
        (lambda g: g.outputs({"z": np.zeros((2, 8)), "label": [0] * 3, "truncation": 1.0}), "'label'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_before_anything_runs(call: Callable[[Generator], Any], words: str) -> None:
    session = FakeSession(small_spec(conditional=True))
    with pytest.raises(InputError, match=words):
        call(Generator(session))
    assert session.batches == []


def test_what_a_generator_does_not_take_is_an_error(make: Make) -> None:
    generator = make()
    with pytest.raises(InputError, match="small takes no label"):
        generator.generate(1, label="one")
    with pytest.raises(InputError, match="no input 'truncation'"):
        generator.generate(1, truncation=0.7)


def test_the_last_index_can_be_drawn(make: Make) -> None:
    generator = make(buckets=(4,))
    images = generator.generate(10, first=2**64 - 10)
    assert np.array_equal(images[-1:], generator.generate(1, first=2**64 - 1))


def test_numpy_integers_are_counts(make: Make) -> None:
    generator = make()
    expected = generator.generate(5, seed=3, first=2)
    assert np.array_equal(generator.generate(np.int64(5), seed=np.uint8(3), first=np.int32(2)), expected)  # type: ignore[arg-type]


# Other generators than image generators with one latent


def test_noise_inputs_are_drawn_each_from_its_own_stream() -> None:
    spec = GeneratorSpec(
        "noisy",
        (
            TensorSpec("z", "float32", (4,), Latent()),
            TensorSpec("n1", "float32", (1, 4, 4), Noise()),
            TensorSpec("y", "int64", (), Label(("a", "b"))),
        ),
        (TensorSpec("image", "float32", (1, 4, 4), Image()),),
    )
    generator = Generator(FakeSession(spec, buckets=(4,)))
    assert np.array_equal(generator.generate(9, seed=1)[5:], generator.generate(4, seed=1, first=5))
    assert not np.array_equal(generator.generate(9, seed=1), generator.generate(9, seed=1, n1=np.zeros((1, 4, 4))))
    assert np.array_equal(generator.generate(9, seed=1, label="b"), generator.generate(9, seed=1, y=1))


def test_a_generator_without_latent_or_image() -> None:
    spec = GeneratorSpec(
        "curve", (TensorSpec("x", "float32", (3,), Vector()),), (TensorSpec("y", "float32", (5,), Vector()),)
    )
    generator = Generator(FakeSession(spec))
    with pytest.raises(InputError, match="takes no latent"):
        generator.latents(1)
    with pytest.raises(InputError, match="takes no latent"):
        generator(np.zeros((1, 3)))
    with pytest.raises(InputError, match="needs inputs"):
        generator.generate(2)
    curves = generator.generate(2, x=np.array([[1, 2, 3], [4, 5, 6.5]]))
    assert (curves.shape, curves.dtype) == ((2, 5), np.float32)


# Failing, closing, many threads, and memory


def test_a_failure_reaches_the_caller_and_the_next_call_works() -> None:
    generator = Generator(FakeSession(small_spec(), buckets=(4,), fail_on=frozenset({1, 3})))
    expected = Generator(FakeSession(small_spec(), buckets=(4,))).generate(4)
    for _ in range(2):
        with pytest.raises(BackendError, match="told to fail"):
            generator.generate(8)
    assert np.array_equal(generator.generate(4), expected)


def test_after_closing_nothing_runs(make: Make) -> None:
    with make() as generator:
        generator.generate(2)
    generator.close()
    for call in (lambda: generator.generate(1), lambda: generator(np.zeros(8)), lambda: next(generator.stream(1))):
        with pytest.raises(BackendError, match="closed"):
            call()
    with pytest.raises(BackendError, match="closed"):
        generator.outputs({"z": np.zeros((1, 8), np.float32)})


def test_sixteen_threads_get_their_own_images(make: Make) -> None:
    generator = make(conditional=True, buckets=(1, 4, 16))
    jobs = [(n, seed, label) for n in (1, 5, 16, 21) for seed in range(6) for label in CLASSES]
    expected = [generator.generate(n, seed=seed, label=label) for n, seed, label in jobs]

    def work(job: int) -> bool:
        n, seed, label = jobs[job]
        if job % 3 == 0:
            found = np.concatenate([*generator.stream(n, seed=seed, label=label, chunk_images=16)])
        else:
            found = generator.generate(n, seed=seed, label=label)
        return levels_apart(found, expected[job]) == 0

    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(jobs)), 4)).tolist()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, order))


def test_closing_while_others_draw_gives_images_or_an_error() -> None:
    generator = Generator(FakeSession(small_spec(), buckets=(1,)))
    expected = generator.generate(200, seed=1)

    def work(_: int) -> bool:
        try:
            return np.array_equal(generator.generate(200, seed=1), expected)
        except BackendError as error:
            return "closed" in str(error)

    with ThreadPoolExecutor(8) as pool:
        results = pool.map(work, range(16))
        generator.close()
        assert all(results)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def growth_of(generator: Generator, calls: int) -> int:
    """What repeated calls of many sizes leave behind, after as many that may fill caches."""
    growth = 0
    for round_ in range(2):
        gc.collect()
        before = resident_bytes()
        for i in range(calls):
            generator.generate(1 + i % 40, seed=i + round_ * calls)
        gc.collect()
        growth = resident_bytes() - before
    return growth


class LeakingSession(FakeSession):
    """The negative control: it keeps 64 KiB of every run."""

    def run(self, inputs: Arrays, out: Arrays) -> None:
        super().run(inputs, out)
        self.kept = [*getattr(self, "kept", []), np.ones(1 << 13)]


def test_memory_does_not_grow(make: Make) -> None:
    calls, limit = 300, 8 << 20
    assert growth_of(make(buckets=(1, 4, 16)), calls) < limit
    assert growth_of(Generator(LeakingSession(small_spec(), buckets=(1, 4, 16))), calls) > limit


@pytest.mark.slow
def test_memory_does_not_grow_over_many_calls(paths: dict[bool, Path]) -> None:
    generator = ganruntime.load(paths[True], device="cpu", threads=1)
    assert growth_of(generator, 5000) < 8 << 20
    for _ in range(50):
        ganruntime.load(paths[True], device="cpu", threads=1).close()
    before = resident_bytes()
    for _ in range(200):
        ganruntime.load(paths[True], device="cpu", threads=1).close()
    assert resident_bytes() - before < 32 << 20
