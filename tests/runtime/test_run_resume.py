"""What a folder that was begun before says to load: where it is of this bundle, and of what was named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_bundles import verdict, write_small_bundle

from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.cores import usable_cores
from ganruntime.run_resume import begun_as, begun_request, load_arguments, picked_otherwise
from ganruntime.runs import BundleRecord, Request, RunFolder, request_from


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = write_small_bundle(tmp_path / "a.gan")
    with bundle_changed(path) as draft:
        draft.put_variant(Variant("other", "fp32", "onnx", "model.onnx", (verdict(),)))
    return read_bundle(path)


def request(bundle: Bundle, **changes: Any) -> Request:
    described = {
        "variant": "fp32",
        "precision": "fp32",
        "backend": "onnxruntime",
        "device": "cpu",
        "buckets": [4],
        "versions": {},
        "threads": 3,
    }
    return request_from(described | changes, bundle.spec, bundle, seed=7, first=0, count=4)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    RunFolder(tmp_path / "run", request(bundle), BundleRecord(), str, 4).close()
    return tmp_path / "run"


AGREES: list[dict[str, Any]] = [
    {},
    {"device": "cpu"},
    {"backend": "onnxruntime"},
    {"precision": "fp32"},
    {"threads": 3},
]
DIFFERS: list[dict[str, Any]] = [
    {"device": "cuda"},
    {"backend": "openvino"},
    {"precision": "int8"},
    {"precision": "other"},  # of fp32 too, and a variant's name
    {"threads": 2},
]


@pytest.mark.parametrize("named", AGREES + DIFFERS, ids=str)
def test_the_record_is_taken_where_it_has_what_was_named(bundle: Bundle, folder: Path, named: dict[str, Any]) -> None:
    assert begun_request(folder, bundle, **named) == (request(bundle) if named in AGREES else None)


def test_a_folder_of_nothing_or_of_another_bundle_says_nothing(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    assert begun_request(tmp_path / "empty", bundle) is None
    other = read_bundle(write_small_bundle(tmp_path / "b.gan", seed=1))
    assert begun_request(folder, other) is None
    (folder / "run.json").write_text("{")
    assert begun_request(folder, bundle) is None


def test_all_of_it_is_loaded_and_said(bundle: Bundle) -> None:
    begun = request(bundle, backend="openvino", streams=2)
    assert load_arguments(begun) == {
        "device": "cpu",
        "backend": "openvino",
        "precision": "fp32",
        "buckets": (4,),
        "threads": 3,
        "streams": 2,
    }
    assert begun_as(begun) == "fp32 on openvino, cpu, 3 threads, 2 streams"
    untold = replace(begun, threads=None, streams=None)
    assert load_arguments(untold, threads=5)["threads"] == 5
    assert begun_as(untold) == "fp32 on openvino, cpu"


def test_what_would_be_picked_now_is_told_where_it_is_another(bundle: Bundle) -> None:
    named: dict[str, Any] = {"device": "auto", "backend": "auto", "precision": "auto", "threads": None}
    cores = usable_cores()
    for begun, expected in (
        (request(bundle, threads=cores), None),
        (request(bundle, threads=None), None),
        (request(bundle, threads=cores + 1), f"fp32 on onnxruntime, cpu, {cores} thread{'s' if cores > 1 else ''}"),
        (request(bundle, variant="other", threads=None), "fp32 on onnxruntime, cpu"),
    ):
        assert picked_otherwise(begun, bundle, tuning="off", **named) == expected
    # What is not there any more is told as well.
    gone = picked_otherwise(request(bundle), bundle, tuning="off", **(named | {"precision": "int8"}))
    assert gone is not None
    assert "int8" in gone
