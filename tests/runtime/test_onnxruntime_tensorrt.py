"""TensorRT through ONNX Runtime, on doubles: a profile and an engine for each bucket, a cache of the user's own."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_doubles import DriverDouble, OrtDouble
from small_bundles import small_model, small_spec, write_small_bundle

import ganruntime
from ganruntime import noise
from ganruntime.bundle import Variant, read_bundle
from ganruntime.choice import BY_NAME, backends_of, choose
from ganruntime.errors import BackendError, DeviceError, MissingDependencyError, OutputError
from ganruntime.sessions import cuda_memory, devices
from ganruntime.sessions import onnxruntime_tensorrt as module
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.onnxruntime_tensorrt import OnnxRuntimeTensorRTSession, private_folder, user_cache
from ganruntime.spec import Image, TensorSpec

SPEC = small_spec()
MODEL = small_model(SPEC).SerializeToString()
FP32 = Variant("fp32", "fp32", "onnx", "model.onnx")
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}


@pytest.fixture
def reference() -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


@pytest.fixture
def ort(reference: Any, monkeypatch: pytest.MonkeyPatch) -> OrtDouble:
    driver, double = DriverDouble(), OrtDouble()
    for where in (devices, cuda_memory):
        monkeypatch.setattr(where, "cuda_driver", lambda: driver)
    monkeypatch.setattr(module, "driver_version", lambda: "580.65.06")
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13.2"))
    return double


def opened(cache: Path, variant: Variant = FP32, spec: Any = SPEC, **arguments: Any) -> OnnxRuntimeTensorRTSession:
    arguments = {"device": "cuda:1", "buckets": (1, 4), "environment": NO_TF32} | arguments
    return OnnxRuntimeTensorRTSession(spec, variant, MODEL, cache=cache, **arguments)


def test_every_bucket_has_a_profile_an_engine_and_a_graph(ort: OrtDouble, reference: Any, tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as session:
        folder = tmp_path / "cache" / "Double-GPU_580.65.06_tensorrt-10.13.2_onnxruntime-9.9"
        folder /= hashlib.sha256(MODEL).hexdigest()[:32]
        for bucket, providers in zip((1, 4), ort.asked, strict=True):
            (tensorrt, options), (cuda, rest) = providers
            assert (tensorrt, cuda) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
            assert options == {
                "device_id": "1",
                "trt_profile_min_shapes": f"z:{bucket}x8",
                "trt_profile_opt_shapes": f"z:{bucket}x8",
                "trt_profile_max_shapes": f"z:{bucket}x8",
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(folder),
                "trt_engine_cache_prefix": f"batch{bucket}",
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(folder),
                "trt_int8_enable": "0",
                "trt_fp16_enable": "0",
                "trt_cuda_graph_enable": "1",
            }
            assert (rest["device_id"], rest["enable_cuda_graph"]) == ("1", "0")
        assert folder.stat().st_mode & 0o777 == 0o700
        for seed in (1, 2):
            for bucket in (4, 1):
                inputs, out = noise.inputs(SPEC, seed, 0, bucket), empty_outputs(SPEC, bucket)
                session.run(inputs, out)
                assert np.array_equal(out["image"], reference.run(["image"], inputs)[0])
        assert [list(inner.graphs) for inner in ort.sessions] == [["1"], ["1"]]
        with pytest.raises(BackendError, match="not a bucket"):
            session.run(noise.inputs(SPEC, 1, 0, 2), empty_outputs(SPEC, 2))
        about = session.describe()
        assert (about["backend"], about["device"], about["cuda_graphs"]) == (BY_NAME, "cuda:1", "used")
        assert about["versions"] | {"numpy": ""} == {"onnxruntime": "9.9", "tensorrt": "10.13.2", "numpy": ""}
        assert len(set.union(*(inner.threads for inner in ort.sessions))) == 1


def test_a_graph_that_cannot_be_captured_runs_without(ort: OrtDouble, tmp_path: Path) -> None:
    ort.refuses[("trt_cuda_graph_enable", "1")] = "the graph capture feature: not all nodes are assigned"
    with opened(tmp_path) as session:
        session.run(noise.inputs(SPEC, 1, 0, 4), empty_outputs(SPEC, 4))
        assert "not all nodes" in session.describe()["cuda_graphs"]
        assert ort.sessions[1].runs == ["-1"]
    ort.refuses[("device_id", "1")] = "no CUDA-capable device"
    with pytest.raises(DeviceError, match="does not run on cuda:1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("variant", "environment", "words"),
    [
        (FP32, {}, "TensorRT computes fp32 in TF32"),
        (FP32, {"NVIDIA_TF32_OVERRIDE": "1"}, "TensorRT computes fp32 in TF32"),
        (replace(FP32, precision="tf32"), NO_TF32, "TF32 is switched off"),
        (replace(FP32, precision="fp16"), NO_TF32, "fp32 islands of fp32 would go"),
        (replace(FP32, precision="bf16"), NO_TF32, "fp32 islands of fp32 would go"),
    ],
)
def test_what_would_run_in_another_precision_is_refused(
    ort: OrtDouble, tmp_path: Path, variant: Variant, environment: dict[str, str], words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        opened(tmp_path, variant, environment=environment)
    assert ort.asked == []


@pytest.mark.parametrize(("precision", "int8"), [("tf32", "0"), ("int8", "1")])
def test_what_is_run_as_it_is(ort: OrtDouble, tmp_path: Path, precision: str, int8: str) -> None:
    opened(tmp_path, replace(FP32, precision=precision), environment={}).close()
    assert [providers[0][1]["trt_int8_enable"] for providers in ort.asked] == [int8, int8]


def test_what_has_no_profile_is_refused(ort: OrtDouble, tmp_path: Path) -> None:
    photo = TensorSpec("photo", "float32", (3, None, None), Image())
    with pytest.raises(BackendError, match="height and width vary"):
        opened(tmp_path, spec=replace(SPEC, inputs=(photo,), outputs=(replace(photo, name="image"),)))
    with pytest.raises(DeviceError, match="TensorRT runs on NVIDIA GPUs"):
        opened(tmp_path, device="cpu")
    ort.get_available_providers = lambda: ["CUDAExecutionProvider"]  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="has no TensorRT"):
        opened(tmp_path)


def test_without_its_library_it_is_named(ort: OrtDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(module, "_LIBRARIES", ("libno-such-nvinfer.so",))
    with pytest.raises(MissingDependencyError, match="TensorRT's library is not installed"):
        opened(tmp_path)


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a", "b", "c") == tmp_path / "a" / "b" / "c"
    (tmp_path / "a" / "b").chmod(0o777)
    with pytest.raises(OutputError, match="is not this user's own") as error:
        private_folder(tmp_path / "a", "b", "c")
    assert "mode 777" in str(error.value.got)
    (tmp_path / "l").mkdir(mode=0o700)
    (tmp_path / "l" / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="is not this user's own"):
        private_folder(tmp_path / "l", "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        private_folder(tmp_path / "file", "b")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "ganexport" / "onnxruntime-tensorrt"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for relative in ("", "relative"):  # the specification: relative paths are ignored
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert user_cache() == tmp_path / "home" / ".cache" / "ganexport" / "onnxruntime-tensorrt"


def test_it_is_taken_by_name_alone(ort: OrtDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = read_bundle(write_small_bundle(tmp_path / "a.gan"))
    assert backends_of("cuda")[BY_NAME]
    assert BY_NAME not in backends_of("cpu")
    monkeypatch.delitem(sys.modules, "tensorrt")
    assert choose(bundle, "cuda", "auto", "auto").backend == "onnxruntime"
    found = choose(bundle, "auto", BY_NAME, "auto")
    assert (found.backend, found.device) == (BY_NAME, "cuda:0")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13.2"))
    monkeypatch.setattr(module, "_require_sound", lambda *arguments: None)
    with ganruntime.load(bundle, "cuda", BY_NAME, buckets=[2]) as generator:
        assert generator.describe()["backend"] == BY_NAME
        assert generator.generate(3, seed=1).shape == (3, 8, 8, 1)


@pytest.mark.gpu
@pytest.mark.onnxruntime_gpu
@pytest.mark.tensorrt
def test_an_engine_is_found_again(tmp_path: Path) -> None:
    """Needs NVIDIA_TF32_OVERRIDE=0 and TensorRT."""
    import time

    seconds = []
    for _ in range(2):
        start = time.monotonic()
        with OnnxRuntimeTensorRTSession(SPEC, FP32, MODEL, buckets=(4,), cache=tmp_path) as session:
            out = empty_outputs(SPEC, 4)
            session.run(noise.inputs(SPEC, 1, 0, 4), out)
        seconds.append(time.monotonic() - start)
    assert list(tmp_path.rglob("*.engine"))
    assert np.isfinite(out["image"]).all()
