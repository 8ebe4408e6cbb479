"""The spec: round trips, and an error that names the place for everything that is not one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.errors import SpecError
from ganruntime.spec import (
    DISTRIBUTIONS,
    DTYPES,
    GeneratorSpec,
    Image,
    Keypoints,
    Label,
    Latent,
    Logits,
    Mask,
    Noise,
    Provenance,
    Role,
    Scalar,
    TensorSpec,
    Tokens,
    Vector,
)

Z = TensorSpec("z", "float32", (8,), Latent())
IMAGE = TensorSpec("image", "float32", (3, 16, 16), Image())
EVERYTHING = GeneratorSpec(
    "every-role_1.0",
    (
        TensorSpec("z", "float32", (4, 512), Latent("ball", 0.5)),
        TensorSpec("eps", "float32", (1, 8, 8), Noise(2.0)),
        TensorSpec("label", "int64", (), Label(("katze", "犬", "chien"))),
        TensorSpec("text", "int32", (77,), Tokens(49_408, 49_407)),
        TensorSpec("source", "uint8", (None, None, 3), Image("HWC", (0, 255))),
        TensorSpec("psi", "float16", (), Scalar(0.7, (0.0, 1.5))),
        TensorSpec("points", "float32", (17, 2), Keypoints((0, 1))),
        TensorSpec("style", "bfloat16", (512,), Vector()),
    ),
    (
        IMAGE,
        TensorSpec("mask", "float32", (19, 16, 16), Mask()),
        TensorSpec("pose", "float32", (17, 2), Keypoints()),
        TensorSpec("scores", "float32", (10,), Logits()),
        TensorSpec("code", "float32", (64,), Vector()),
    ),
    Provenance("dcgan", "faces", 12_000, 2**64 - 1, {"fid": 12.5}, {"torch": "2.13.0"}),
)


def plain(**changes: Any) -> GeneratorSpec:
    return GeneratorSpec(**({"name": "g", "inputs": (Z,), "outputs": (IMAGE,)} | changes))


def test_a_spec_of_every_role_comes_back_equal() -> None:
    text = EVERYTHING.dumps()
    again = GeneratorSpec.loads(text)
    assert again == EVERYTHING
    assert again.dumps() == text
    assert GeneratorSpec.from_json(EVERYTHING.to_json()) == EVERYTHING


def test_the_text_is_canonical_and_pinned() -> None:
    spec = GeneratorSpec(
        "dcgan-digits",
        (TensorSpec("z", "float32", (100,), Latent()),),
        (TensorSpec("image", "float32", (1, 32, 32), Image()),),
        Provenance(recipe="dcgan", steps=2000),
    )
    assert spec.dumps() == json.dumps(json.loads(spec.dumps()), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert json.loads(spec.dumps()) == {
        "schema_version": 1,
        "name": "dcgan-digits",
        "inputs": [
            {
                "name": "z",
                "dtype": "float32",
                "shape": [100],
                "role": {"kind": "latent", "distribution": "normal", "scale": 1.0},
            }
        ],
        "outputs": [
            {
                "name": "image",
                "dtype": "float32",
                "shape": [1, 32, 32],
                "role": {"kind": "image", "layout": "CHW", "range": [-1.0, 1.0]},
            }
        ],
        "provenance": {"recipe": "dcgan", "dataset": "", "steps": 2000, "seed": 0, "metrics": {}, "versions": {}},
    }


def test_a_spec_answers_what_is_asked_of_it() -> None:
    assert EVERYTHING.latent == EVERYTHING.inputs[0]
    assert EVERYTHING.image == IMAGE
    assert EVERYTHING.input("psi").role == Scalar(0.7, (0.0, 1.5))
    assert (IMAGE.channels, IMAGE.size, Z.size) == (3, 768, 8)
    assert EVERYTHING.input("source").channels == 3
    assert EVERYTHING.input("label").size == 1
    assert Z.channels is None
    with pytest.raises(SpecError, match="no input 'w'"):
        EVERYTHING.input("w")
    with pytest.raises(SpecError, match="vary"):
        _ = EVERYTHING.input("source").size
    nothing = GeneratorSpec(
        "v", (TensorSpec("x", "float32", (3,), Vector()),), (TensorSpec("y", "float32", (3,), Vector()),)
    )
    assert nothing.latent is None
    assert nothing.image is None


def test_a_spec_can_be_a_key_and_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EVERYTHING.name = "other"  # type: ignore[misc]
    assert hash(Z) == hash(TensorSpec("z", "float32", [8], Latent()))  # type: ignore[arg-type]
    assert TensorSpec("z", "float32", [8], Latent()).shape == (8,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: Latent("gauss"), r"latent\.distribution"),
        (lambda: Latent(["normal"]), r"latent\.distribution"),
        (lambda: Latent(scale=0), r"latent\.scale"),
        (lambda: Latent(scale=-1.0), r"latent\.scale"),
        (lambda: Latent(scale=float("nan")), r"latent\.scale"),
        (lambda: Latent(scale=10**400), r"latent\.scale"),
        (lambda: Latent(scale=True), r"latent\.scale"),
        (lambda: Noise(scale="1"), r"noise\.scale"),
        (lambda: Noise(distribution="sphere"), r"noise\.distribution"),
        (lambda: Noise(scale=float("inf")), r"noise\.scale"),
        (lambda: Label(()), r"label\.classes"),
        (lambda: Label("abc"), r"label\.classes"),
        (lambda: Label(("a", "a")), r"label\.classes"),
        (lambda: Label(("a", "")), r"label\.classes"),
        (lambda: Label(("a", 3)), r"label\.classes"),
        (lambda: Label(("a", "\ud800")), r"label\.classes"),
        (lambda: Tokens(0), r"tokens\.vocabulary_size"),
        (lambda: Tokens(10, 10), r"tokens\.padding"),
        (lambda: Tokens(10, -1), r"tokens\.padding"),
        (lambda: Tokens(1.0), r"tokens\.vocabulary_size"),
        (lambda: Image("NCHW"), r"image\.layout"),
        (lambda: Image(range=(1, -1)), r"image\.range"),
        (lambda: Image(range=(1, 1)), r"image\.range"),
        (lambda: Image(range=(0, 1, 2)), r"image\.range"),
        (lambda: Image(range="01"), r"image\.range"),
        (lambda: Image(range=(0, float("inf"))), r"image\.range"),
        (lambda: Scalar(2.0), r"scalar\.default"),
        (lambda: Scalar(None), r"scalar\.default"),
        (lambda: Keypoints((0, 0)), r"keypoints\.range"),
        (lambda: TensorSpec("", "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec("1z", "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec("z z", "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec("z\n", "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec("z" * 129, "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec(None, "float32", (8,), Latent()), "name"),
        (lambda: TensorSpec("z", "float64", (8,), Vector()), "dtype"),
        (lambda: TensorSpec("z", ["float32"], (8,), Vector()), "dtype"),
        (lambda: TensorSpec("z", "float32", 8, Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (0,), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (-1,), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (True,), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (8.0,), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (2**31,), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (2**16, 2**16), Vector()), "shape"),
        (lambda: TensorSpec("z", "float32", (8,), Role()), "role"),
        (lambda: TensorSpec("z", "float32", (8,), "latent"), "role"),
        (lambda: TensorSpec("z", "float16", (8,), Latent()), "dtype"),
        (lambda: TensorSpec("z", "float32", (None,), Latent()), "shape"),
        (lambda: TensorSpec("z", "float32", (None,), Noise()), "shape"),
        (lambda: TensorSpec("y", "float32", (), Label(("a",))), "dtype"),
        (lambda: TensorSpec("y", "uint8", (5,), Tokens(9)), "dtype"),
        (lambda: TensorSpec("x", "float32", (16, 16), Image()), "shape"),
        (lambda: TensorSpec("x", "float32", (None, 16, 16), Image()), "shape"),
        (lambda: TensorSpec("x", "float32", (16, 16, None), Image("HWC")), "shape"),
        (lambda: TensorSpec("t", "int64", (), Scalar(0.5)), "default"),
        (lambda: TensorSpec("t", "bool", (), Scalar(2.0, (0, 3))), "default"),
        (lambda: plain(name="two words"), r"spec\.name"),
        (lambda: plain(name=7), r"spec\.name"),
        (lambda: plain(inputs=()), r"spec\.inputs"),
        (lambda: plain(outputs=()), r"spec\.outputs"),
        (lambda: plain(inputs=(Z, Z)), "twice"),
        (lambda: plain(inputs=(TensorSpec("image", "float32", (8,), Latent()),)), "twice"),
        (lambda: plain(inputs=(TensorSpec("m", "float32", (8,), Mask()),)), r"spec\.inputs"),
        (lambda: plain(outputs=(Z,)), r"spec\.outputs"),
        (lambda: Provenance(steps=-1), r"provenance\.steps"),
        (lambda: Provenance(seed=2**64), r"provenance\.seed"),
        (lambda: Provenance(recipe=None), r"provenance\.recipe"),
        (lambda: Provenance(dataset="\udfff"), r"provenance\.dataset"),
        (lambda: Provenance(metrics={"fid": float("nan")}), r"provenance\.metrics"),
        (lambda: Provenance(metrics=[("fid", 1.0)]), r"provenance\.metrics"),
        (lambda: Provenance(metrics={3: 1.0}), r"provenance\.metrics"),
        (lambda: Provenance(versions={"torch": 2}), r"provenance\.versions"),
        (lambda: Provenance(versions="2.0"), r"provenance\.versions"),
    ],
)
def test_what_is_malformed_is_an_error_that_names_its_place(make: Any, place: str) -> None:
    with pytest.raises(SpecError, match=place):
        make()


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    result = copy.deepcopy(data)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


STRANGE = [None, True, 0, -1, 1.5, "x", "", [], {}, [1], [[]], {"a": 1}, 10**400, float("nan"), [None], "\ud800", 1e308]


@pytest.mark.parametrize("path", list(places(EVERYTHING.to_json())), ids=str)
def test_any_strange_value_anywhere_gives_a_spec_or_a_spec_error(path: tuple[Any, ...]) -> None:
    for value in STRANGE:
        try:
            spec = GeneratorSpec.from_json(changed(EVERYTHING.to_json(), path, value))
        except SpecError:
            continue
        assert GeneratorSpec.loads(spec.dumps()) == spec


def objects_in(data: Any) -> list[tuple[Any, ...]]:
    def at(path: tuple[Any, ...]) -> Any:
        place = data
        for key in path:
            place = place[key]
        return place

    # What metrics and versions are called is free.
    return [p for p in places(data) if isinstance(at(p), dict) and p[-1:] not in (("metrics",), ("versions",))]


@pytest.mark.parametrize("path", objects_in(EVERYTHING.to_json()), ids=str)
def test_a_key_that_is_not_known_is_an_error_everywhere(path: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError, match="not known"):
        GeneratorSpec.from_json(changed(EVERYTHING.to_json(), (*path, "colour"), 1))


@pytest.mark.parametrize("key", ["schema_version", "name", "inputs", "outputs"])
def test_a_missing_key_is_an_error(key: str) -> None:
    data = EVERYTHING.to_json()
    del data[key]
    with pytest.raises(SpecError):
        GeneratorSpec.from_json(data)


def test_what_has_a_default_may_be_left_out() -> None:
    data = plain().to_json()
    del data["provenance"]
    data["inputs"][0]["role"] = {"kind": "latent"}
    data["outputs"][0]["role"] = {"kind": "image"}
    assert GeneratorSpec.from_json(data) == plain()
    data["inputs"][0] |= {"dtype": "int64", "role": {"kind": "label"}}
    with pytest.raises(SpecError, match="lacks a key"):
        GeneratorSpec.from_json(data)


def test_a_newer_schema_says_what_to_do() -> None:
    with pytest.raises(SpecError, match="newer") as error:
        GeneratorSpec.from_json(plain().to_json() | {"schema_version": 2, "surprise": 1})
    assert "pip install --upgrade" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "NaN", '"spec"', "[" * 100_000, "{}", "\ufeff{}"])
def test_text_that_is_no_spec_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        GeneratorSpec.loads(text)


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
positive = st.floats(1e-6, 1e6)
intervals = st.tuples(st.floats(-1e6, 0, exclude_max=True), st.floats(0, 1e6, exclude_min=True))
dimensions = st.lists(st.integers(1, 64), max_size=3).map(tuple)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
inputs = st.one_of(
    st.builds(
        TensorSpec, names, st.just("float32"), dimensions, st.builds(Latent, st.sampled_from(DISTRIBUTIONS), positive)
    ),
    st.builds(
        TensorSpec,
        names,
        st.just("int64"),
        st.just(()),
        st.lists(texts, min_size=1, unique=True).map(lambda c: Label(tuple(c))),
    ),
    st.builds(TensorSpec, names, st.just("float16"), dimensions, intervals.map(lambda r: Scalar(0.0, r))),
    st.builds(TensorSpec, names, st.sampled_from(DTYPES), dimensions, st.just(Vector())),
)
outputs = st.builds(
    TensorSpec,
    names,
    st.just("float32"),
    st.tuples(st.integers(1, 4), st.integers(1, 64), st.integers(1, 64)),
    intervals.map(lambda r: Image("CHW", r)),
)


@settings(deadline=None, max_examples=100)
@given(
    name=names,
    tensors=st.tuples(st.lists(inputs, min_size=1, max_size=4), st.lists(outputs, min_size=1, max_size=2)).filter(
        lambda sides: len({t.name for side in sides for t in side}) == len(sides[0]) + len(sides[1])
    ),
    metrics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_spec_comes_back_equal(name: str, tensors: Any, metrics: dict[str, float], seed: int) -> None:
    spec = GeneratorSpec(name, *map(tuple, tensors), Provenance(seed=seed, metrics=metrics))
    assert GeneratorSpec.loads(spec.dumps()) == spec
