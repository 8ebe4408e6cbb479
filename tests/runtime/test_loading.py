"""Loading: which variant is taken, what is warmed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_bundles import small_spec, verdict, write_small_bundle

import ganruntime
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from ganruntime.errors import BackendError, BundleError, BundleIntegrityError, InputError
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession


def test_loading_warms_every_bucket_once(paths: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = OnnxRuntimeSession.prepared

    def counting(self: OnnxRuntimeSession, inputs: Arrays, out: Arrays) -> Callable[[], None]:
        run = real(self, inputs, out)

        def counted() -> None:
            batches.append(len(inputs["z"]))
            run()

        return counted

    monkeypatch.setattr(OnnxRuntimeSession, "prepared", counting)
    monkeypatch.setattr(OnnxRuntimeSession, "run", lambda *_: pytest.fail("small inputs run on arrays that are kept"))
    generator = ganruntime.load(paths[True], device="cpu", buckets=[8, 2, 8])
    assert batches == [2, 8]
    generator.generate(11)
    assert batches[2:] == [8, 8] or batches[2:] == [8, 2, 2]
    assert set(batches) == {2, 8}


def test_a_generator_says_what_runs_and_why(paths: dict[bool, Path]) -> None:
    with ganruntime.load(paths[False], threads=1) as generator:
        found = generator.describe()
    assert found["generator"] == "small"
    assert found["backend"] == "onnxruntime"
    assert found["threads"] == 1
    assert found["buckets"] == [1, 4, 16, 64]
    assert found["device_chosen_because"]
    json.dumps(found)
    named = ganruntime.load(paths[False], device="cpu", backend="onnxruntime", precision="fp32")
    assert named.describe()["device_chosen_because"] == "asked for"
    assert named.spec == small_spec()


def test_a_bundle_that_is_open_can_be_loaded(paths: dict[bool, Path]) -> None:
    assert ganruntime.load(read_bundle(paths[False]), device="cpu").generate(1).shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "torch"}, "'torch' is not a backend"),
        ({"backend": None}, "not a backend"),
        ({"device": "gpu"}, "'gpu' is not a device"),
        ({"device": 0}, "not a device"),
        ({"precision": "fp64"}, "no onnx variant 'fp64'"),
        ({"precision": None}, "no onnx variant"),
        ({"buckets": []}, "bucket"),
        ({"buckets": (0,)}, "bucket"),
        ({"buckets": 8}, "bucket"),
        ({"threads": 0}, "threads"),
        ({"threads": -2}, "threads"),
        ({"threads": 1.5}, "threads"),
        ({"threads": "2"}, "threads"),
        ({"threads": True}, "threads"),
    ],
)
def test_an_option_that_is_none_is_an_error(paths: dict[bool, Path], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ganruntime.load(paths[False], **({"device": "cpu"} | arguments))


def test_there_must_be_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        ganruntime.load(tmp_path / "none.gan")


def test_an_engine_is_not_there_unless_it_was_built(paths: dict[bool, Path]) -> None:
    with pytest.raises(BackendError, match="no verified tensorrt variant") as error:
        ganruntime.load(paths[False], backend="tensorrt")
    assert "ganexport to-trt" in str(error.value)


# Verdicts


def loaded_variant(path: Path, precision: str = "auto") -> str:
    return ganruntime.load(path, device="cpu", precision=precision, buckets=(1,)).session.variant.name


def test_what_is_not_verified_is_never_taken_unasked(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "a.gan", verified=False)
    with pytest.raises(BackendError, match="no verified onnx variant") as error:
        ganruntime.load(path, device="cpu")
    assert "fp32 (unverified)" in str(error.value)
    assert f"ganexport verify {path}" in str(error.value)
    assert loaded_variant(path, "fp32") == "fp32"
    by_definition = replace(verdict(), backend="reference")
    with bundle_changed(path) as draft:
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (by_definition,)))
    with pytest.raises(BackendError, match="no verified onnx variant"):
        ganruntime.load(path, device="cpu")
    with bundle_changed(path) as draft:
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (verdict(), verdict(passed=False, device="x"))))
    with pytest.raises(BackendError, match="no verified onnx variant") as error:
        ganruntime.load(path, device="cpu")
    assert "fp32 (failed)" in str(error.value)
    assert loaded_variant(path, "fp32") == "fp32"


def test_the_first_verified_variant_is_taken_unasked(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "a.gan", verified=False)
    with bundle_changed(path) as draft:
        draft.put_variant(Variant("broken", "fp16", "onnx", "model.onnx", (verdict(passed=False),)))
        draft.put_variant(Variant("good", "fp16", "onnx", "model.onnx", (verdict(),)))
        draft.put_variant(Variant("better", "fp32", "onnx", "model.onnx", (verdict(),)))
        draft.put_variant(Variant("bf16", "fp16", "onnx", "model.onnx", (verdict(passed=False),)))
        draft.put_variant(Variant("other", "bf16", "onnx", "model.onnx", (verdict(),)))
    assert loaded_variant(path) == "good"
    # By precision, a verified one comes first; a name is a name, whatever else has that precision.
    assert loaded_variant(path, "fp16") == "good"
    assert loaded_variant(path, "fp32") == "fp32"
    assert loaded_variant(path, "broken") == "broken"
    assert loaded_variant(path, "bf16") == "bf16"


def test_an_edited_graph_is_not_loaded(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "a.gan")
    data = bytearray((path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "model.onnx").write_bytes(data)
    with pytest.raises(BundleIntegrityError, match=r"model\.onnx was changed"):
        ganruntime.load(path, device="cpu")
