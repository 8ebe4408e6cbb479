"""ONNX Runtime on CUDA, on doubles: fixed buffers, a graph for each bucket, one thread. `gpu` marks what needs one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_doubles import DriverDouble, OrtDouble, OrtValue
from onnx import helper
from small_bundles import small_model, small_spec

from ganruntime import noise
from ganruntime.bundle import Variant
from ganruntime.errors import BackendError, DeviceError
from ganruntime.sessions import cuda_memory, devices
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sessions.owner_thread import OwnerThread
from ganruntime.sizes import spec_at
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

SPEC = small_spec(conditional=True)
MODEL = small_model(SPEC).SerializeToString()
FP32 = Variant("fp32", "fp32", "onnx", "model.onnx")
REFUSED = (
    "This session cannot use the graph capture feature as requested by the user as the model has control flow nodes"
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> DriverDouble:
    double = DriverDouble()
    for module in (devices, cuda_memory):
        monkeypatch.setattr(module, "cuda_driver", lambda: double)
    return double


@pytest.fixture
def ort(driver: DriverDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[OrtDouble]:
    double = OrtDouble()
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    yield double
    # Whatever a test did: no pinned memory is left, and no context is held.
    gc.collect()
    assert driver.live == {}
    assert driver.contexts == 0


def opened(spec: GeneratorSpec = SPEC, graph: bytes = MODEL, **arguments: Any) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(spec, FP32, graph, device="cuda:1", **arguments)


def expected(batch: int, seed: int) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    return session.run(["image"], noise.inputs(SPEC, seed, 0, batch) | {"truncation": np.ones(batch, np.float32)})[0]


def drawn(session: OnnxRuntimeSession, batch: int, seed: int) -> Any:
    out = empty_outputs(session.spec, batch)
    inputs = noise.inputs(SPEC, seed, 0, batch) | {"truncation": np.ones(batch, np.float32)}
    session.run(inputs, out)
    return out["image"]


@pytest.fixture
def references() -> dict[tuple[int, int], Any]:
    """Made before the double takes the module's place: ask for this fixture before `ort`."""
    return {(batch, seed): expected(batch, seed) for batch in (1, 4, 16) for seed in (1, 2, 3)}


def test_every_run_is_of_its_own_inputs(references: dict[tuple[int, int], Any], ort: OrtDouble) -> None:
    with opened(buckets=(1, 4, 16)) as session:
        for seed in (1, 2, 3):
            for batch in (16, 1, 4):
                assert np.array_equal(drawn(session, batch, seed), references[batch, seed])
        (inner,) = ort.sessions
        # A graph for each bucket, captured once and replayed; 0 would be ONNX Runtime's own default.
        assert sorted(inner.graphs) == ["1", "2", "3"]
        assert [inner.runs.count(number) for number in ("1", "2", "3")] == [3, 3, 3]
        # Bound once, before the capture.
        assert [binding.binds for binding in inner.bindings] == [4, 4, 4]
        assert session.describe()["cuda_graphs"] == "used"
        assert "threads" not in session.describe()


def test_what_is_asked_of_the_provider(ort: OrtDouble, capsys: pytest.CaptureFixture[str]) -> None:
    opened().close()
    assert ort.asked == [
        [
            (
                "CUDAExecutionProvider",
                {
                    "device_id": "1",
                    "use_tf32": "0",
                    "enable_cuda_graph": "1",
                    "cudnn_conv_algo_search": "HEURISTIC",
                    "arena_extend_strategy": "kSameAsRequested",
                },
            )
        ]
    ]
    assert ort.preloaded == 1
    assert capsys.readouterr().out == ""  # what it misses is not for our caller's standard output


def test_copies_are_of_pinned_memory_and_of_nothing_else(ort: OrtDouble, driver: DriverDouble) -> None:
    with opened(buckets=(4,)) as session:
        drawn(session, 4, 1)
        assert driver.copied == [
            ("to device", 4 * 8 * 4),
            ("to device", 4 * 8),
            ("to device", 4 * 4),
            ("to host", 3072),
        ]
        assert len(driver.live) == 4
        drawn(session, 4, 2)
        assert len(driver.live) == 4  # the same memory again


def test_all_calls_come_from_one_thread(references: dict[tuple[int, int], Any], ort: OrtDouble) -> None:
    with opened(buckets=(1, 4, 16)) as session:
        for seed in (1, 2, 3):
            for batch in (1, 4, 16):
                with ThreadPoolExecutor(1) as pool:  # another thread each time; one at a time, as a session is used
                    found = pool.submit(drawn, session, batch, seed).result()
                assert np.array_equal(found, references[batch, seed])
        assert len(ort.sessions[0].threads) == 1


def test_closing_frees_everything(ort: OrtDouble, driver: DriverDouble) -> None:
    gc.collect()
    before = len(OrtValue.alive)
    session = opened(buckets=(1, 4))
    drawn(session, 1, 1)
    drawn(session, 4, 1)
    assert len(OrtValue.alive) == before + 8
    session.close()
    session.close()
    ort.sessions.clear()
    gc.collect()
    assert len(OrtValue.alive) == before
    assert (driver.live, driver.contexts) == ({}, 0)
    with pytest.raises(BackendError, match="closed"):
        drawn(session, 1, 1)


def test_a_network_that_cannot_be_captured_runs_without_and_says_so(
    references: dict[tuple[int, int], Any], ort: OrtDouble
) -> None:
    ort.refuses[("enable_cuda_graph", "1")] = REFUSED
    with opened(buckets=(4,)) as session:
        assert session.describe()["cuda_graphs"] == f"ONNX Runtime refuses: {REFUSED}"
        for seed in (1, 2):
            assert np.array_equal(drawn(session, 4, seed), references[4, seed])
        assert ort.sessions[0].runs == ["-1", "-1"]
        assert ort.sessions[0].graphs == {}


def test_any_other_refusal_is_an_error(ort: OrtDouble, driver: DriverDouble) -> None:
    ort.refuses[("device_id", "1")] = "CUDA failure 100: no CUDA-capable device is detected\nand a stack"
    with pytest.raises(DeviceError, match="does not run on cuda:1") as error:
        opened()
    assert "stack" not in str(error.value)
    assert len(ort.asked) == 1


def test_a_run_that_fails_is_a_backend_error(ort: OrtDouble) -> None:
    with opened(buckets=(4,)) as session:
        ort.fails = True
        with pytest.raises(BackendError, match="ONNX Runtime failed on cuda:1") as error:
            drawn(session, 4, 1)
        assert error.value.got == "CUDA failure 700: an illegal memory access"


def test_memory_that_is_not_there_is_an_error_and_leaks_nothing(ort: OrtDouble, driver: DriverDouble) -> None:
    with opened(buckets=(1, 4)) as session:
        drawn(session, 1, 1)
        driver.pinned_left = 200  # enough for the inputs of the next bucket, and not for its images
        with pytest.raises(BackendError, match="could not pin") as error:
            drawn(session, 4, 1)
        assert error.value.got == "CUDA_ERROR_OUT_OF_MEMORY"
        assert len(driver.live) == 4
        driver.pinned_left = 1 << 20
        drawn(session, 4, 1)


def test_inputs_of_another_dtype_are_not_converted_in_silence(ort: OrtDouble) -> None:
    with opened(buckets=(1,)) as session:
        drawn(session, 1, 1)
        inputs = noise.inputs(SPEC, 1, 0, 1) | {"truncation": np.ones(1, np.float64)}
        with pytest.raises(BackendError, match="failed"):
            session.run(inputs, empty_outputs(SPEC, 1))


def test_where_height_and_width_vary_nothing_is_captured_and_lanes_are_bounded(
    ort: OrtDouble, driver: DriverDouble
) -> None:
    image = Image(multiple=1, minimum=1)
    spec = GeneratorSpec(
        "halves",
        (TensorSpec("photo", "float32", (3, None, None), image),),
        (TensorSpec("image", "float32", (3, None, None), image),),
    )
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["photo"], ["image"])],
        "g",
        [helper.make_tensor_value_info("photo", 1, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("image", 1, ["b", 3, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    with opened(spec, model.SerializeToString(), buckets=(2,)) as session:
        assert session.describe()["cuda_graphs"] == "height and width vary"
        for height in range(1, 40):
            photo = np.random.default_rng(height).random((2, 3, height, 5), np.float32)
            out = empty_outputs(spec_at(spec, (height, 5)), 2)
            session.run({"photo": photo}, out)
            assert np.allclose(out["image"], np.tanh(photo), atol=1e-6)
        assert len(driver.live) == 2 * 16
        assert set(ort.sessions[0].runs) == {"-1"}


def test_without_a_driver_it_is_said(ort: OrtDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "cuda_driver", lambda: None)
    with pytest.raises(BackendError, match="no NVIDIA driver answers"):
        opened()


def test_an_owner_runs_things_in_order_and_ends() -> None:
    owner = OwnerThread("test")
    assert owner.call(lambda: owner.call(lambda: 3)) == 3  # from within: no wait for itself
    with pytest.raises(ZeroDivisionError):
        owner.call(lambda: 1 // 0)
    owner.close()
    owner.close()
    with pytest.raises(RuntimeError, match="ended"):
        owner.call(lambda: 1)


@pytest.mark.gpu
@pytest.mark.onnxruntime_gpu
def test_a_gpu_replays_what_it_captured() -> None:
    with OnnxRuntimeSession(SPEC, FP32, MODEL, device="cuda", buckets=(1, 4, 16)) as session:
        assert session.describe()["cuda_graphs"] == "used"
        first = {(batch, seed): drawn(session, batch, seed).copy() for seed in (1, 2, 3) for batch in (16, 1, 4)}
        for (batch, seed), image in first.items():
            assert np.abs(image - expected(batch, seed)).max() < 1e-4
            assert np.array_equal(drawn(session, batch, seed), image)
