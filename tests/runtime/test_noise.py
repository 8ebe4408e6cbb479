"""Noise: pinned bytes, a slow twin, indifference to how it is asked for, and the distributions that it claims."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import mpmath
import noise_reference as reference
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime import noise
from ganruntime.errors import InputError, SpecError
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Noise, Scalar, TensorSpec, Tokens

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS: dict[str, Callable[..., np.ndarray]] = {
    "normal": noise.normal,
    "uniform": noise.uniform,
    "sphere": noise.sphere,
    "ball": noise.ball,
}
SEEDS, FIRSTS = (0, 7, 2**64 - 1), (0, 2**40, 2**63)
STREAMS = (0, noise.stream_of("z"))

# SHA-256 over rows first, first + 1, first + 2 of every seed, first and stream above, in this order. A different hash
# here is a different image for every seed that anybody ever wrote down.
GOLDEN = {
    ("normal", 1): "90d95541c605414a218b5f679d59843c21c949e370e77beffd4cb70a9769153c",
    ("normal", 7): "ef3d6da008b27366c63d47ac90e2e40060bfd44352f695b99cb8c9b4e68d0517",
    ("normal", 8): "9363ba16e0bb99e0fcd136bde6ea67a95ff6293b75fe1267e785cf0267800465",
    ("normal", 100): "a2bdd781abe2c22c864e82b95dc24ccd8b611f2035ea5be419df9ea8bd3393aa",
    ("normal", 512): "eabe69f1f214e3a9a3c6cbca40183fc6613d2183e5a4389adb191e9853913f31",
    ("normal", 5000): "6c6da04de9fc3ec742d3aab64d7e04e5ec11cafba173056bb87df5b318836732",
    ("normal", 20000): "a90763aa7a32afd59a8801e0df543c965d58f6242a31e02e41383ce3e62414f4",
    ("uniform", 1): "955fce17b1fedc80a35bf3f9b1ea68e4861f495ad53cc0630043c9fdad1e9a6f",
    ("uniform", 7): "3ba5658eb8dcaeda6b64fc914a8ff167826943dec910092c2a1fb78c96a3eeba",
    ("uniform", 8): "7f1912f657920d01fbcc7da874aa13be5b9b551fdfe520c8faf31066e9f64947",
    ("uniform", 100): "d46fdc6ac36c306078715f80f098f2a33f8a43cce0ea73fb7fe318b7301e6426",
    ("uniform", 512): "f0c89475d5ab6b5adae064aa9f3d2d9f3bf525782fd2f8ae972804cf4d3e7130",
    ("uniform", 5000): "e3d2c55b12af305c1d97b306a6d6be541a996fc32317689d8c17f2e2abd6ef28",
    ("uniform", 20000): "b25e04ac00ef34b96d9bb03c24951d6ac3faf9d6367b702a4dc59e81f082a536",
    ("sphere", 1): "0eb6c55cc830c4cb2db24a6bf5863e62abed01cdac306b697205fddfdb2f82f4",
    ("sphere", 7): "6f0407590f27beb24ba02bbf3ce4754cf3083dcc0b25da8fcb7370e8e90d90c2",
    ("sphere", 8): "664bffc1521fb6f027d0120b71c59efb059e06fd716e646a00064a9733be3826",
    ("sphere", 100): "c4c71f0b45d4aa406c0095ff78358f31d5bf799bc3730faa066c09983f31d8be",
    ("sphere", 512): "bd2d76fe5ffc998dbc2a337071d3ec538a1e0cad6dc67432da80e52e635ada0b",
    ("sphere", 5000): "c92b897809282d92ce33b69797c6edb5f22605768bc4b463f16734391726ec21",
    ("sphere", 20000): "9d71294d39b6e0e00bdd47b9328939eef283d0fa3875ce2b395f93a8f7b6f2c4",
    ("ball", 1): "52a33ad495faa6052208c893049fae95c364df56ff79551c1e1c6a7e225d0126",
    ("ball", 7): "d30f589a01392d6adc4b82e482f6e41417c63a9bb4511f4992a81f28e808dc01",
    ("ball", 8): "4e76ed4f951570ca9becc2b94afd2b64bf7ccd032ac95eafdc2ae3e0dba2e010",
    ("ball", 100): "b68d0820e375a45952b553ac96755c024da2d3bca9588e7dabe83a244394d32d",
    ("ball", 512): "f1471ba50fa45e09cdd997f6be88ac99219f147e70666373b018f839865fae25",
    ("ball", 5000): "40a463dd37e57b542ff718b1478d3af57bec9e560c8ccd1bbcc19bcebd03bd98",
    ("ball", 20000): "ade6a973fe8760bfab0b6d12e92fc3ba73797438cab0224aa6d646c28f69f7e9",
}
# SHA-256 over 100 labels of every seed and first above; (classes, size of the input).
GOLDEN_LABELS = {
    (2, 1): "6ac82076a1b228b34cd45f7a92434c03394241df9093a5bffed6185cd93d3c27",
    (2, 9): "6b8818f15fba903beadbc54779b28ca9ac91ddcd4657bbc894e75fc5ed09f74f",
    (3, 1): "17d6cd0f7bfa25263ea1fd039d8f0f0effdcbd4b860c72b910f3da5d264a85e0",
    (3, 9): "6c5fa642507fc378dce8ae2f0291c6e4e0a84b40caaa3a0795f264c8fe4a91a4",
    (10, 1): "217d8819e454b5cfcbafcc48b76f2ba00e9835e36022a7d601622ef2d23b2b36",
    (10, 9): "091b2cbeebd8ba92083efc18ea2e816f5a7a4dffe8c2796dbe03157c4b79552b",
    (1000, 1): "8afdbb5c89913c0777b5d924e5a0285254a4b307f8973b2ac810ce4370f372df",
    (1000, 9): "459d690c6a207f90a9228054815b950da7ae9cdb1d1fbc40634f679cd89acb04",
}


def label_tensor(classes: int, size: int = 1) -> TensorSpec:
    return TensorSpec("label", "int64", (size,) if size > 1 else (), Label(tuple(str(c) for c in range(classes))))


@pytest.mark.parametrize(("distribution", "size"), GOLDEN)
def test_the_bytes_are_those_of_every_release(distribution: str, size: int) -> None:
    digest = hashlib.sha256()
    for seed, first, stream in itertools.product(SEEDS, FIRSTS, STREAMS):
        rows = DISTRIBUTIONS[distribution](seed, first, 3, size, stream=stream)
        assert rows.dtype == np.float32
        assert rows.shape == (3, size)
        assert rows.flags.c_contiguous
        digest.update(rows.astype("<f4").tobytes())
    assert digest.hexdigest() == GOLDEN[distribution, size]


@pytest.mark.parametrize(("classes", "size"), GOLDEN_LABELS)
def test_the_labels_are_those_of_every_release(classes: int, size: int) -> None:
    digest = hashlib.sha256()
    tensor = label_tensor(classes, size)
    for seed, first in itertools.product(SEEDS, FIRSTS):
        rows = noise.labels(tensor, seed, first, 100)
        assert rows.shape == (100, *tensor.shape)
        digest.update(rows.astype("<i8").tobytes())
    assert digest.hexdigest() == GOLDEN_LABELS[classes, size]


def test_the_first_numbers_can_be_read() -> None:
    first = [-0.8060376048088074, 1.3579541444778442, 0.24550855159759521, -1.062396764755249]
    assert noise.normal(0, 0, 1, 4)[0].tolist() == first
    assert noise.stream_of("z") == 0x2B3199E49A514E59


# Random123's known-answer vectors for philox4x64 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (2**64 - 1,) * 4,
            (2**64 - 1,) * 2,
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
        ),
    ],
)
def test_the_twin_is_philox(counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]) -> None:
    assert reference.philox4x64(counter, key) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 100, 513])
def test_every_bit_is_the_twins(distribution: str, size: int) -> None:
    for seed, index, stream in [(0, 0, 0), (7, 3, 1), (2**64 - 1, 2**40 + 1, STREAMS[1]), (1, 2**64 - 1, 2**64 - 1)]:
        fast = DISTRIBUTIONS[distribution](seed, index, 1, size, stream=stream)[0]
        slow = np.array(getattr(reference, distribution)(seed, index, size, stream), np.float32)
        assert fast.tobytes() == slow.tobytes()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_row_longer_than_a_piece_is_the_twins(distribution: str) -> None:
    fast = DISTRIBUTIONS[distribution](3, 2, 2, 20_000)
    for row, index in zip(fast, (2, 3), strict=True):
        slow = np.array(getattr(reference, distribution)(3, index, 20_000), np.float32)
        assert row.tobytes() == slow.tobytes()


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_labels_are_the_twins(classes: int) -> None:
    tensor = label_tensor(classes, 5)
    fast = noise.labels(tensor, 9, 2**33, 20)
    slow = [reference.labels(9, 2**33 + i, 5, classes, noise.stream_of("label")) for i in range(20)]
    assert fast.tolist() == slow


def test_every_row_of_the_table_is_the_twins() -> None:
    """Words that reach each of the 32 octaves, in many of its segments, and both ends of the range."""
    words = {0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1}
    for exponent in range(31):
        words |= {2**exponent * (256 + segment) // 256 for segment in range(0, 256, 5)}
    words |= {2**32 - 1 - w for w in words}
    array = np.array(sorted(words), np.uint32)
    fast = np.empty(len(array), np.float32)
    noise._normal_from_words(array.view(np.int32), fast)
    assert fast.tolist() == [reference.normal_from_word(int(w)) for w in array]


def test_opposite_words_give_opposite_numbers_and_the_ends_are_finite() -> None:
    words = np.concatenate([np.arange(2000), 2**31 - 1 - np.arange(2000)]).astype(np.int32)
    there, back = np.empty(len(words), np.float32), np.empty(len(words), np.float32)
    noise._normal_from_words(words, there)
    noise._normal_from_words(~words, back)  # ~w + 1/2 = -(w + 1/2)
    assert np.array_equal(there, -back)
    assert there.max() == pytest.approx(6.3379577, abs=1e-6)
    assert abs(there).min() < 1e-7


@settings(deadline=None, max_examples=60)
@given(
    distribution=st.sampled_from(sorted(DISTRIBUTIONS)),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**64 - 200),
    size=st.sampled_from([1, 3, 8, 17, 100, 1024, 9000]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    data=st.data(),
)
def test_no_split_order_or_repetition_changes_a_byte(
    distribution: str, seed: int, first: int, size: int, cuts: list[int], data: st.DataObject
) -> None:
    draw, count = DISTRIBUTIONS[distribution], 40
    whole = draw(seed, first, count, size)
    edges = [0, *sorted(cuts), count]
    ranges = data.draw(st.permutations(list(itertools.pairwise(edges))))
    for start, end in [*ranges, *ranges[:1]]:
        part = draw(seed, first + start, end - start, size)
        assert part.tobytes() == whole[start:end].tobytes()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**64 - 1), first=st.integers(0, 2**40), cut=st.integers(0, 30), classes=st.integers(1, 999))
def test_no_split_changes_a_label_or_an_input(seed: int, first: int, cut: int, classes: int) -> None:
    spec = GeneratorSpec(
        "conditional",
        (
            TensorSpec("z", "float32", (2, 3), Latent("sphere", 2.0)),
            TensorSpec("eps", "float32", (5,), Noise(0.5)),
            TensorSpec("grain", "float32", (4,), Noise(0.5, "uniform")),
            TensorSpec("label", "int32", (), Label(tuple(str(c) for c in range(classes)))),
            TensorSpec("psi", "float32", (), Scalar(0.7)),
        ),
        (TensorSpec("image", "float32", (1, 4, 4), Image()),),
    )
    whole = noise.inputs(spec, seed, first, 30)
    parts = [noise.inputs(spec, seed, first, cut), noise.inputs(spec, seed, first + cut, 30 - cut)]
    for name, array in whole.items():
        assert np.concatenate([part[name] for part in parts]).tobytes() == array.tobytes()
    assert {name: (a.dtype.name, a.shape) for name, a in whole.items()} == {
        "z": ("float32", (30, 2, 3)),
        "eps": ("float32", (30, 5)),
        "grain": ("float32", (30, 4)),
        "label": ("int32", (30,)),
        "psi": ("float32", (30,)),
    }


def test_many_threads_get_the_same_bytes() -> None:
    cases = [(d, seed, size) for d in DISTRIBUTIONS for seed in range(4) for size in (5, 512, 9001)]
    expected = {case: DISTRIBUTIONS[case[0]](case[1], 11, 20, case[2]).tobytes() for case in cases}

    def work(turn: int) -> bool:
        order = np.random.default_rng(turn).permutation(len(cases))
        return all(
            DISTRIBUTIONS[cases[i][0]](cases[i][1], 11, 20, cases[i][2]).tobytes() == expected[cases[i]] for i in order
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(32)))


@given(counter=st.integers(0, 2**256 - 1), seed=st.integers(0, 2**64 - 1), stream=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=200)
def test_the_philox_that_is_kept_is_a_new_one(counter: int, seed: int, stream: int) -> None:
    noise._philox(7, 7, 7).random_raw(seed % 5)  # what an earlier draw leaves over
    kept = noise._philox(counter, seed, stream).random_raw(9)
    assert np.array_equal(kept, np.random.Philox(counter=counter, key=seed | stream << 64).random_raw(9))


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    noise.normal(1, 0, 10, 100)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]


def test_seeds_indices_streams_and_inputs_are_independent() -> None:
    base = noise.normal(1, 0, 1, 20_000)[0].astype(np.float64)
    others = {
        "next seed": noise.normal(2, 0, 1, 20_000),
        "next index": noise.normal(1, 1, 1, 20_000),
        "next stream": noise.normal(1, 0, 1, 20_000, stream=1),
        "far index": noise.normal(1, 2**63, 1, 20_000),
    }
    for name, other in others.items():
        correlation = float(np.corrcoef(base, other[0])[0, 1])
        assert abs(correlation) < 5 / np.sqrt(20_000), name
    z, eps = (TensorSpec(name, "float32", (64,), Latent()) for name in ("z", "eps"))
    assert not np.array_equal(noise.latents(z, 1, 0, 4), noise.latents(eps, 1, 0, 4))


def test_consecutive_indices_share_no_word() -> None:
    """A row takes whole blocks: with sizes that do not fill one, no number of a row may come again in the next."""
    for size in (1, 7, 9, 100):
        rows = noise.uniform(0, 0, 200, size)
        assert len(np.unique(rows)) > 0.999 * rows.size


# The normal table


@pytest.fixture(scope="module")
def table_script() -> ModuleType:
    path = str(ROOT / "scripts/make-normal-table")
    loader = SourceFileLoader("make_normal_table", path)
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def test_the_table_can_be_made_again(table_script: ModuleType) -> None:
    mpmath.mp.dps = 60
    rows = reference._table()
    samples = [(exponent, segment) for exponent in range(-1, 31, 3) for segment in (0, 1, 97, 254, 255)]
    for exponent, segment in [*samples, (30, 0), (30, 255)]:
        index = (exponent + 1023) % 32 * 256 + segment
        assert rows[index] == table_script.row(exponent, segment), (exponent, segment)
    assert len(rows) == 8192


def quantile(f: float) -> mpmath.mpf:
    """x with P(X > x) = |f| / 2^32, in 30 digits."""
    u = mpmath.mpf(abs(f)) / 2**32
    return mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * u)


def table_value(f: np.ndarray) -> np.ndarray:
    table = noise._quantile_table()
    a, b, c = table[np.array([reference.row_of_table(v) for v in f.tolist()]), :3].T
    return ((c * f * f + b) * f * f + a) * f


def test_the_table_is_as_exact_as_its_docstring_says() -> None:
    """Dense in every segment against SciPy; at the worst points and at random ones against 30 digits."""
    points = []
    for exponent in range(-1, 31):
        low = 2.0**exponent * (1 + np.arange(256)[:, None] / 256)
        f = np.floor(low + 2.0**exponent / 256 * np.arange(24) / 24) + 0.5
        points.append(f[(f >= 2.0**exponent) & (f < 2.0 ** (exponent + 1))])
    f = np.unique(np.concatenate(points))
    x, exact = table_value(f), -scipy.special.ndtri(f / 2**32)
    error = np.abs(x - exact)
    assert error.max() < 3.1e-8
    assert (error / exact)[exact > 0.01].max() < 8e-8
    mpmath.mp.dps = 30
    worst = np.argsort(error)[-20:]
    chosen = np.concatenate([f[worst], np.random.default_rng(0).choice(f, 150)])
    for value, found in zip(chosen.tolist(), table_value(chosen).tolist(), strict=True):
        truth = quantile(value)
        assert abs(found - truth) < 3.1e-8
        assert truth <= 0.01 or abs(found - truth) / truth < 8e-8


def test_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_table", None)
    monkeypatch.setattr(noise, "_TABLE_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"normal_table\.bin"):
        noise.normal(0, 0, 1, 1)


# The distributions


def test_normal_numbers_are_normal() -> None:
    x = noise.normal(12, 0, 2000, 500).ravel().astype(np.float64)
    n = x.size
    # Standard errors of the first four moments of N(0, 1) over n numbers: 1, √2, √15, √96, each over √n.
    for power, (moment, spread) in enumerate([(0, 1), (1, 2**0.5), (0, 15**0.5), (3, 96**0.5)], start=1):
        assert abs((x**power).mean() - moment) < 4.5 * spread / n**0.5
    assert scipy.stats.kstest(x[:300_000], "norm").pvalue > 1e-3
    tails = [(2.0, scipy.stats.norm.sf(2.0)), (3.5, scipy.stats.norm.sf(3.5)), (4.5, scipy.stats.norm.sf(4.5))]
    for bound, p in tails:
        for found in ((x > bound).sum(), (x < -bound).sum()):
            assert scipy.stats.binomtest(int(found), n, p).pvalue > 1e-4


def test_uniform_numbers_are_uniform_and_on_their_grid() -> None:
    x = noise.uniform(12, 0, 1000, 300)
    assert x.min() >= -1.0
    assert x.max() < 1.0
    steps = x.astype(np.float64) * 2**23
    assert np.array_equal(steps, np.round(steps))
    assert scipy.stats.kstest(x.ravel(), "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.parametrize("size", [2, 3, 16, 512])
def test_points_on_the_sphere_are_uniform(size: int) -> None:
    x = noise.sphere(3, 0, 4000, size).astype(np.float64)
    assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 2e-7
    # A coordinate of a point on the sphere: (x + 1) / 2 ~ Beta((n - 1) / 2, (n - 1) / 2).
    beta = scipy.stats.beta((size - 1) / 2, (size - 1) / 2, loc=-1, scale=2)
    for axis in {0, size - 1}:
        assert scipy.stats.kstest(x[:, axis], beta.cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_points_in_the_ball_are_uniform(size: int) -> None:
    x = noise.ball(4, 0, 4000, size).astype(np.float64)
    radius = np.linalg.norm(x, axis=1)
    assert radius.max() <= 1 + 1e-7
    assert scipy.stats.kstest(radius**size, "uniform").pvalue > 1e-3
    assert np.abs(x.mean(axis=0)).max() < 5 / np.sqrt(4000)


def test_a_sphere_in_one_dimension_is_two_points() -> None:
    x = noise.sphere(0, 0, 1000, 1)
    assert set(np.unique(x)) == {-1.0, 1.0}
    assert abs(float(x.mean())) < 0.15


def test_labels_are_uniform_over_the_classes() -> None:
    found = np.bincount(noise.labels(label_tensor(10), 1, 0, 50_000), minlength=10)
    assert len(found) == 10
    assert scipy.stats.chisquare(found).pvalue > 1e-3


# Inputs and their errors


def test_scale_and_shape_are_those_of_the_role() -> None:
    plain = TensorSpec("z", "float32", (4, 3), Latent("uniform"))
    scaled = TensorSpec("z", "float32", (4, 3), Latent("uniform", 2.5))
    assert np.array_equal(noise.latents(scaled, 1, 2, 6), noise.latents(plain, 1, 2, 6) * np.float32(2.5))
    stream = noise.stream_of("z")
    assert np.array_equal(noise.latents(plain, 1, 2, 6).reshape(6, 12), noise.uniform(1, 2, 6, 12, stream=stream))
    single = TensorSpec("z", "float32", (), Latent())
    assert noise.latents(single, 0, 0, 5).shape == (5,)


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_no_rows_are_no_rows(draw: Callable[..., np.ndarray]) -> None:
    assert draw(0, 5, 0, 7).shape == (0, 7)


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 0, 1, 4), "seed"),
        ((2**64, 0, 1, 4), "seed"),
        ((True, 0, 1, 4), "seed"),
        ((0.0, 0, 1, 4), "seed"),
        (("7", 0, 1, 4), "seed"),
        ((None, 0, 1, 4), "seed"),
        ((0, -1, 1, 4), "first"),
        ((0, 2**64, 1, 4), "first"),
        ((0, 1.5, 1, 4), "first"),
        ((0, False, 1, 4), "first"),
        ((0, 0, -1, 4), "count"),
        ((0, 0, 2.0, 4), "count"),
        ((0, 0, 2**48, 4), "count"),
        ((0, 2**64 - 1, 2, 4), "range"),
        ((0, 0, 1, 0), "row"),
        ((0, 0, 1, -3), "row"),
        ((0, 0, 1, 2.5), "row"),
        ((0, 0, 1, True), "row"),
    ],
)
def test_what_is_no_index_is_an_error(draw: Callable[..., np.ndarray], arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw(*arguments)


@pytest.mark.parametrize("stream", [-1, 2**64, 1.0, True])
def test_what_is_no_stream_is_an_error(stream: Any) -> None:
    with pytest.raises(InputError, match="stream"):
        noise.normal(0, 0, 1, 4, stream=stream)


def test_numpy_integers_are_integers() -> None:
    expected = noise.normal(2**63, 5, 3, 9)
    assert np.array_equal(noise.normal(np.uint64(2**63), np.int8(5), np.int64(3), np.uint16(9)), expected)  # type: ignore[arg-type]


def test_out_is_filled_or_refused() -> None:
    out = np.full((4, 9), np.nan, np.float32)
    assert noise.normal(1, 2, 4, 9, out=out) is out
    assert np.array_equal(out, noise.normal(1, 2, 4, 9))
    bad = [
        np.empty((4, 18), np.float32)[:, :9],
        np.empty((9, 4), np.float32).T,
        np.empty((4, 9), np.float64),
        np.empty((4, 8), np.float32),
        np.empty((5, 9), np.float32),
    ]
    for array in bad:
        with pytest.raises(InputError, match="out"):
            noise.normal(1, 2, 4, 9, out=array)  # type: ignore[arg-type]


def test_only_noise_is_drawn_from_noise() -> None:
    label, tokens = label_tensor(3), TensorSpec("text", "int64", (5,), Tokens(10))
    with pytest.raises(InputError, match="label"):
        noise.latents(label, 0, 0, 1)
    with pytest.raises(InputError, match="text"):
        noise.labels(tokens, 0, 0, 1)
    with pytest.raises(SpecError, match="vary"):
        noise.labels(TensorSpec("label", "int64", (None,), Label(("a", "b"))), 0, 0, 1)


def test_what_only_the_caller_has_is_left_out() -> None:
    spec = GeneratorSpec(
        "text",
        (TensorSpec("z", "float32", (4,), Latent()), TensorSpec("text", "int64", (5,), Tokens(10))),
        (TensorSpec("image", "float32", (1, 4, 4), Image()),),
    )
    assert set(noise.inputs(spec, 0, 0, 2)) == {"z"}
