"""Reading bundles that were edited at random: whole, or an error of ours, and never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundles import with_file, write_small_bundle

from ganruntime.bundle import read_bundle
from ganruntime.errors import BundleError, BundleIntegrityError, SpecError

fuzz = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("fuzz") / "whole.gan")


def read_everything(path: Path) -> None:
    """Everything short of running it. Any error but ours fails the test."""
    try:
        bundle = read_bundle(path)
        for variant in bundle.manifest.variants:
            bundle.graph(variant)
        bundle.golden()
    except (BundleError, SpecError) as error:
        message = str(error)
    else:
        return
    assert str(path) in message


edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)


def edited(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    result = bytearray(data)
    for position, value in changes:
        result[position % len(result)] = value
    return bytes(result[: len(result) - cut % len(result)])


@fuzz
@given(changes=edits, cut=st.just(0) | st.integers(0, 10**6))
def test_random_edits_of_the_manifest(whole: Path, changes: list[tuple[int, int]], cut: int) -> None:
    manifest = whole / "manifest.json"
    before = manifest.read_bytes()
    try:
        manifest.write_bytes(edited(before, changes, cut))
        read_everything(whole)
    finally:
        manifest.write_bytes(before)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@fuzz
@given(data=st.data(), value=json_values)
def test_random_values_in_the_manifest(whole: Path, data: st.DataObject, value: Any) -> None:
    manifest = whole / "manifest.json"
    before = manifest.read_bytes()
    tree = json.loads(before)
    place: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    try:
        manifest.write_text(json.dumps(tree))
        read_everything(whole)
    finally:
        manifest.write_bytes(before)


@fuzz
@given(name=st.sampled_from(["model.onnx", "golden.npz"]), changes=edits, cut=st.just(0) | st.integers(0, 10**6))
def test_random_edits_of_files_that_the_manifest_vouches_for(
    whole: Path, name: str, changes: list[tuple[int, int]], cut: int
) -> None:
    before = {n: (whole / n).read_bytes() for n in ("manifest.json", name)}
    try:
        with_file(whole, name, edited(before[name], changes, cut))
        read_everything(whole)
    finally:
        for n, content in before.items():
            (whole / n).write_bytes(content)


@fuzz
@given(name=st.sampled_from(["model.onnx", "golden.npz"]), changes=edits.filter(bool), cut=st.integers(0, 10**6))
def test_random_edits_of_files_never_pass_their_hash(
    whole: Path, name: str, changes: list[tuple[int, int]], cut: int
) -> None:
    before = (whole / name).read_bytes()
    after = edited(before, changes, cut)
    bundle = read_bundle(whole)
    try:
        (whole / name).write_bytes(after)
        if after != before:
            with pytest.raises(BundleIntegrityError, match=name):
                bundle.read(name)
    finally:
        (whole / name).write_bytes(before)
