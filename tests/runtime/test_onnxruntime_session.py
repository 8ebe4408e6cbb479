"""ONNX Runtime: what was asked for is what runs, or there is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_doubles import DriverDouble
from small_bundles import small_model, small_spec

import ganruntime
from ganruntime import noise
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from ganruntime.errors import BackendError, DeviceError, InputError, MissingDependencyError
from ganruntime.sessions import cuda_memory
from ganruntime.sessions import onnxruntime_library as library
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession, best_device, parse_device
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

SPEC = small_spec()
MODEL = small_model(SPEC).SerializeToString()
FP32 = Variant("fp32", "fp32", "onnx", "model.onnx")


def open_session(spec: GeneratorSpec = SPEC, graph: bytes = MODEL, **arguments: Any) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(spec, FP32, graph, **arguments)


def run(session: OnnxRuntimeSession, batch: int) -> np.ndarray:
    out = empty_outputs(session.spec, batch)
    for array in out.values():
        array.fill(np.nan)
    session.run(noise.inputs(session.spec, 3, 0, batch), out)
    return out["image"]


# What runs


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_outputs_are_those_of_a_bare_session(batch: int) -> None:
    z = noise.inputs(SPEC, 3, 0, batch)
    bare = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]).run(["image"], z)[0]
    found = run(open_session(threads=1), batch)
    assert np.abs(found - bare).max() <= 1e-6
    assert found.min() < -0.1 < 0.1 < found.max()


def test_outputs_are_written_to_the_memory_that_was_given() -> None:
    session = open_session()
    out = {"image": np.full((2, 1, 8, 8), np.nan, np.float32)}
    address = out["image"].ctypes.data
    session.run(noise.inputs(SPEC, 0, 0, 2), out)
    assert np.isfinite(out["image"]).all()
    assert out["image"].ctypes.data == address


def test_it_describes_what_runs_where() -> None:
    found = open_session(threads=2, buckets=(2, 4)).describe()
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    assert found == {
        "backend": "onnxruntime",
        "device": "cpu",
        "variant": "fp32",
        "precision": "fp32",
        "buckets": [2, 4],
        "versions": versions,
        "threads": 2,
    }


def test_it_closes_twice_and_then_runs_no_more() -> None:
    session = open_session()
    with session:
        run(session, 1)
    session.close()
    with pytest.raises(BackendError, match="closed"):
        run(session, 1)


def test_a_backend_that_fails_is_a_backend_error_with_its_cause() -> None:
    conditional = small_spec(conditional=True)
    session = open_session(conditional, small_model(conditional).SerializeToString())
    inputs = noise.inputs(conditional, 0, 0, 2)
    inputs["label"] = np.array([0, 99])
    with pytest.raises(BackendError, match="ONNX Runtime failed on cpu") as error:
        session.run(inputs, empty_outputs(conditional, 2))
    assert error.value.__cause__ is not None
    assert "\n" not in str(error.value.got)
    assert run(session, 2).shape == (2, 3, 8, 8)


# Graphs that do not fit


@pytest.mark.parametrize(
    "graph",
    [
        b"",
        b"not a model",
        small_model(SPEC).SerializeToString()[:200],
        onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("NoSuchOperator", ["z"], ["image"])],
                "g",
                [onnx.helper.make_tensor_value_info("z", 1, ["b", 8])],
                [onnx.helper.make_tensor_value_info("image", 1, ["b", 1, 8, 8])],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 18)],
            ir_version=9,
        ).SerializeToString(),
    ],
)
def test_a_graph_that_onnx_runtime_refuses_is_named(graph: bytes) -> None:
    with pytest.raises(BackendError, match=r"refuses x\.gan/model\.onnx") as error:
        open_session(graph=graph, where="x.gan/model.onnx")
    assert error.value.__cause__ is not None


def other_spec(*, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> GeneratorSpec:
    return GeneratorSpec(
        "other",
        tuple(TensorSpec(name, "float32", shape, Latent()) for name, shape in inputs.items()),
        tuple(TensorSpec(name, "float32", shape, Image()) for name, shape in outputs.items()),
    )


@pytest.mark.parametrize(
    ("spec", "side"),
    [
        (other_spec(inputs={"w": (8,)}, outputs={"image": (1, 8, 8)}), "inputs"),
        (other_spec(inputs={"z": (8,), "w": (8,)}, outputs={"image": (1, 8, 8)}), "inputs"),
        (other_spec(inputs={"z": (8,)}, outputs={"picture": (1, 8, 8)}), "outputs"),
        (other_spec(inputs={"z": (8,)}, outputs={"image": (1, 8, 8), "mask": (1, 8, 8)}), "outputs"),
    ],
)
def test_names_that_differ_from_the_spec_are_found_when_opening(spec: GeneratorSpec, side: str) -> None:
    with pytest.raises(BackendError, match=f"m.onnx has other {side} than its spec") as error:
        open_session(spec, where="m.onnx")
    assert "got" in str(error.value)
    assert "expected" in str(error.value)


def test_an_input_that_the_spec_lacks_is_found_when_opening() -> None:
    with pytest.raises(BackendError, match="other inputs"):
        open_session(SPEC, small_model(small_spec(conditional=True)).SerializeToString())


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 16, 16), (4, 4, 4), (1, 8, 7)])
def test_an_output_of_another_size_than_the_spec_says_does_not_overrun(shape: tuple[int, ...]) -> None:
    session = open_session(other_spec(inputs={"z": (8,)}, outputs={"image": shape}))
    # The output lies in the middle of a larger array, whose ends must stay as they are.
    count = 2 * int(np.prod(shape))
    memory = np.full(count + 4096, 7.0, np.float32)
    out = {"image": memory[2048 : 2048 + count].reshape(2, *shape)}
    with pytest.raises(BackendError, match="failed"):
        session.run(noise.inputs(SPEC, 0, 0, 2), out)
    assert (memory[:2048] == 7.0).all()
    assert (memory[2048 + count :] == 7.0).all()


@pytest.mark.parametrize("latent", [(7,), (9,), (8, 1)])
def test_an_input_of_another_size_than_the_graphs_is_an_error(latent: tuple[int, ...]) -> None:
    session = open_session(other_spec(inputs={"z": latent}, outputs={"image": (1, 8, 8)}))
    with pytest.raises(BackendError, match="failed"):
        run(session, 2)


def test_an_output_of_another_dtype_is_an_error() -> None:
    spec = GeneratorSpec("h", SPEC.inputs, (TensorSpec("image", "float16", (1, 8, 8), Image()),))
    with pytest.raises(BackendError, match="failed"):
        run(open_session(spec), 2)


def test_a_graph_of_one_fixed_batch_fails_when_it_is_loaded_and_not_later(bundle_path: Path) -> None:
    model = small_model(SPEC)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", model.SerializeToString())
    with pytest.raises(BackendError):
        ganruntime.load(bundle_path, device="cpu")
    assert ganruntime.load(bundle_path, device="cpu", buckets=(1,)).generate(3).shape == (3, 8, 8, 1)


# Devices


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(bundle_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    for device in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(DeviceError, match="does not run on cuda") as error:
            ganruntime.load(bundle_path, device=device)
        assert "ganexport[gpu]" in str(error.value)
        assert error.value.expected == "CUDAExecutionProvider"


class OrtDouble:
    """Stands in for an onnxruntime with CUDA; `behaviour` says what becomes of a session."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked: list[Any] = []
        self.entries: dict[str, str] = {}
        self.__version__ = "9.9"

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def SessionOptions(self) -> Any:
        return SimpleNamespace(add_session_config_entry=self.entries.__setitem__)

    def InferenceSession(self, graph: bytes, options: Any, providers: list[Any]) -> Any:
        self.asked = providers
        if self.behaviour == "raises":
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nand a stack trace")
        providers_found = ["CPUExecutionProvider"] if self.behaviour == "falls back" else ["CUDAExecutionProvider"]
        return SimpleNamespace(
            get_providers=lambda: providers_found,
            get_inputs=lambda: [SimpleNamespace(name="z")],
            get_outputs=lambda: [SimpleNamespace(name="image")],
        )


@pytest.mark.parametrize("behaviour", ["raises", "falls back"])
def test_a_provider_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    double = OrtDouble(behaviour)
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    with pytest.raises(DeviceError, match=r"m\.onnx does not run on cuda:1"):
        open_session(device="cuda:1", where="m.onnx")
    assert double.entries == {"session.disable_cpu_ep_fallback": "1"}
    ((provider, options),) = double.asked
    assert provider == "CUDAExecutionProvider"
    assert (options["device_id"], options["use_tf32"]) == ("1", "0")


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("fp16", "0"), ("tf32", "1")])
def test_fp32_is_fp32_on_a_gpu(monkeypatch: pytest.MonkeyPatch, precision: str, tf32: str) -> None:
    double = OrtDouble("works")
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    monkeypatch.setattr(cuda_memory, "cuda_driver", DriverDouble)
    variant = Variant("v", precision, "onnx", "model.onnx")
    session = OnnxRuntimeSession(SPEC, variant, MODEL, device="cuda")
    assert session.device == "cuda:0"
    assert "threads" not in session.describe()
    assert double.asked[0][1]["use_tf32"] == tf32


@pytest.mark.parametrize(
    ("gpus", "cuda", "device", "why"),
    [(0, True, "cpu", "no GPU answers"), (2, True, "cuda:0", "2 GPU"), (2, False, "cpu", "built for the CPU")],
)
def test_auto_says_what_it_took_and_why(
    monkeypatch: pytest.MonkeyPatch, gpus: int, cuda: bool, device: str, why: str
) -> None:
    if cuda:
        monkeypatch.setitem(sys.modules, "onnxruntime", OrtDouble("works"))
    else:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(library, "gpu_count", lambda: gpus)
    found, reason = best_device()
    assert found == device
    assert why in reason


@pytest.mark.parametrize(
    ("text", "device"), [("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:0", ("cuda", 0)), ("cuda:12", ("cuda", 12))]
)
def test_devices_by_name(text: str, device: tuple[str, int]) -> None:
    assert parse_device(text) == device


NO_DEVICES = ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:²", "cuda:1\n", "cpu:0", "cpu:", "cuda:0:1"]


@pytest.mark.parametrize("text", [*NO_DEVICES, "cuda:99999", None, 0])
def test_what_is_no_device_is_an_error(text: Any) -> None:
    with pytest.raises(InputError, match="is not a device"):
        parse_device(text)


def test_a_backend_that_is_not_installed_names_its_extra(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for device in ("auto", "cpu", "cuda"):
        with pytest.raises(MissingDependencyError, match="onnxruntime is not installed") as error:
            ganruntime.load(bundle_path, device=device, backend="onnxruntime")
        assert "ganexport[cpu]" in str(error.value)
        assert isinstance(error.value, ImportError)


@pytest.mark.gpu
@pytest.mark.onnxruntime_gpu
def test_a_gpu_draws_what_the_cpu_draws(bundle_path: Path) -> None:
    on_gpu, on_cpu = (ganruntime.load(bundle_path, device=device) for device in ("cuda", "cpu"))
    assert on_gpu.session.device == "cuda:0"
    inputs = {"z": on_cpu.latents(200, seed=4)}
    difference = np.abs(on_gpu.outputs(inputs)["image"] - on_cpu.outputs(inputs)["image"]).max()
    assert difference < 1e-4
    assert read_bundle(bundle_path).variant("fp32").precision == "fp32"
