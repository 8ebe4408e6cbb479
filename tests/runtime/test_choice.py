"""What a load takes: what was named, or the best that is installed and verified here; and it says why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_bundles import verdict, write_small_bundle

import ganruntime
from ganruntime import choice as module
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from ganruntime.choice import candidates, choose, installed
from ganruntime.errors import BackendError, InputError, MissingDependencyError
from ganruntime.sessions import onnxruntime as ort_module

by_ort = verdict()
by_openvino = replace(by_ort, backend="openvino")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`machine("onnxruntime", gpu=…)`: which backends are installed, and whether ONNX Runtime has a GPU."""

    def with_backends(*backends: str, gpu: bool = False) -> None:
        monkeypatch.setattr(module, "installed", lambda backend: backend in backends)
        best = ("cuda:0", "1 GPU(s) answer") if gpu else ("cpu", "no GPU answers")
        monkeypatch.setattr(ort_module, "best_device", lambda: best)
        monkeypatch.setattr(module, "gpu_count", lambda: int(gpu))

    return with_backends


def bundle_with(tmp_path: Path, *verdicts: Any) -> Any:
    path = write_small_bundle(tmp_path / "a.gan", verified=False)
    with bundle_changed(path) as draft:
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", verdicts))
    return read_bundle(path)


@pytest.mark.parametrize(
    ("backends", "verdicts", "taken", "why"),
    [
        (["onnxruntime", "openvino"], [by_ort], "onnxruntime", "verified on cpu by onnxruntime"),
        (["onnxruntime", "openvino"], [by_ort, by_openvino], "onnxruntime", "verified on cpu by onnxruntime"),
        (["onnxruntime", "openvino"], [by_openvino], "openvino", "verified on cpu by openvino"),
        (["onnxruntime"], [by_ort], "onnxruntime", "openvino is not installed"),
        (["openvino"], [by_ort, by_openvino], "openvino", "onnxruntime is not installed"),
        (["openvino"], [by_ort], "openvino", "the variant was verified by: onnxruntime cpu"),
        # It failed in one backend: the other takes it all the same.
        (["onnxruntime", "openvino"], [replace(by_ort, passed=False), by_openvino], "openvino", "onnxruntime does not"),
        (["onnxruntime", "openvino"], [by_ort, replace(by_openvino, passed=False)], "onnxruntime", "verified on cpu"),
    ],
)
def test_auto_takes_what_is_installed_and_verified_here(
    machine: Any, tmp_path: Path, backends: list[str], verdicts: list[Any], taken: str, why: str
) -> None:
    machine(*backends)
    bundle = bundle_with(tmp_path, *verdicts)
    for device in ("auto", "cpu"):
        found = choose(bundle, device, "auto", "auto")
        assert (found.backend, found.device, found.variant.name) == (taken, "cpu", "fp32")
        if why != "onnxruntime does not":
            assert why in found.backend_why


def test_a_device_is_never_changed_to_suit_a_backend(machine: Any, tmp_path: Path) -> None:
    machine("onnxruntime", "openvino", gpu=True)
    bundle = bundle_with(tmp_path, by_openvino)  # verified on the CPU only, and the GPU is what there is
    found = choose(bundle, "auto", "auto", "auto")
    assert (found.backend, found.device, found.device_why) == ("onnxruntime", "cuda:0", "1 GPU(s) answer")
    assert "verified by: openvino cpu" in found.backend_why
    assert choose(bundle, "cpu", "auto", "auto").backend == "openvino"


def test_a_verdict_of_another_version_counts_and_is_told(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("onnxruntime")
    monkeypatch.setattr(module, "backend_version", lambda backend: "1.31.1")
    for then, why in (("1.20.0", "by onnxruntime 1.20.0, and 1.31.1 is here;"), ("1.31.1", "by onnxruntime;")):
        bundle = bundle_with(tmp_path, replace(by_ort, versions={"onnxruntime": then}))
        assert f"verified on cpu {why}" in choose(bundle, "cpu", "auto", "auto").backend_why


def test_what_was_named_is_what_is_taken(machine: Any, tmp_path: Path) -> None:
    machine("onnxruntime", "openvino")
    bundle = bundle_with(tmp_path, by_openvino)
    for backend in ("onnxruntime", "openvino"):
        found = choose(bundle, "auto", backend, "auto")
        assert (found.backend, found.device, found.backend_why) == (backend, "cpu", "asked for")
        assert found.device_why
    with pytest.raises(InputError, match="'torch' is not a backend"):
        choose(bundle, "auto", "torch", "auto")


def test_nothing_verified_is_an_error_that_lists_what_there_is(machine: Any, tmp_path: Path) -> None:
    machine("onnxruntime", "openvino")
    for verdicts in ([], [replace(by_ort, passed=False)], [replace(by_ort, backend="reference")]):
        bundle = bundle_with(tmp_path, *verdicts)
        with pytest.raises(BackendError, match="no verified onnx variant"):
            choose(bundle, "auto", "auto", "auto")
        assert choose(bundle, "auto", "auto", "fp32").backend == "onnxruntime"


@pytest.mark.parametrize(
    ("device", "words", "extras"),
    [
        ("auto", "no backend is installed that runs on cpu", ["ganexport[cpu]", "ganexport[openvino]"]),
        ("cpu", "no backend is installed that runs on cpu", ["ganexport[cpu]", "ganexport[openvino]"]),
        ("cuda:1", "no backend is installed that runs on cuda:1", ["ganexport[gpu]", "ganexport[trt]"]),
    ],
)
def test_without_any_backend_the_extras_are_named(
    machine: Any, tmp_path: Path, device: str, words: str, extras: list[str]
) -> None:
    machine()
    with pytest.raises(MissingDependencyError, match=words) as error:
        choose(bundle_with(tmp_path, by_ort), device, "auto", "auto")
    assert all(extra in (error.value.remedy or "") for extra in extras)


def test_a_gpu_without_a_backend_for_it_is_an_error_of_the_backend(machine: Any, tmp_path: Path) -> None:
    """onnxruntime for the CPU is installed: it is what is asked, and it says what it lacks."""
    machine("onnxruntime", "openvino")
    found = choose(bundle_with(tmp_path, by_ort), "cuda", "auto", "auto")
    assert (found.backend, found.device) == ("onnxruntime", "cuda")


def test_a_variants_status_is_by_a_backends_own_verdicts_first() -> None:
    failed = replace(by_ort, passed=False)
    variant = Variant("v", "fp32", "onnx", "m", (failed, by_openvino))
    assert [variant.status_by(b) for b in (None, "onnxruntime", "openvino", "other")] == [
        "failed", "failed", "verified", "failed",
    ]  # fmt: skip
    assert Variant("v", "fp32", "onnx", "m").status_by("onnxruntime") == "unverified"


def test_candidates_go_by_the_backend(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, by_ort, replace(by_openvino, passed=False))
    assert [v.name for v in candidates(bundle, "onnx", "auto", "onnxruntime")] == ["fp32"]
    with pytest.raises(BackendError, match="no verified onnx variant") as error:
        candidates(bundle, "onnx", "auto", "openvino")
    assert "fp32 (failed)" in str(error.value)


def test_installed_means_that_it_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed("json")
    assert not installed("no_such_backend")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not installed("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    assert installed("onnxruntime")


def test_a_generator_says_which_backend_and_why(bundle_path: Path) -> None:
    with ganruntime.load(bundle_path, "cpu", threads=1) as generator:
        about = generator.describe()
    assert about["backend"] == "onnxruntime"
    assert about["device_chosen_because"] == "asked for"
    assert "verified on cpu by onnxruntime" in about["backend_chosen_because"]
