"""OpenVINO: what was asked for is what runs, or there is an error."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_bundles import small_model, small_spec

import ganruntime
from ganruntime import noise
from ganruntime.bundle import Variant, bundle_changed
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, BundleIntegrityError, DeviceError, InputError, MissingDependencyError
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.openvino import OpenVinoSession, _inference_precision, _part_sizes
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed (extra: openvino)")

SPEC = small_spec()
MODEL = small_model(SPEC).SerializeToString()
CONDITIONAL = small_spec(conditional=True)
FP32 = Variant("fp32", "fp32", "onnx", "model.onnx")
two_cores = pytest.mark.skipif(usable_cores() < 2, reason="OpenVINO gives each stream a core, and there is one")


def open_session(spec: GeneratorSpec = SPEC, graph: bytes = MODEL, **arguments: Any) -> OpenVinoSession:
    settings: dict[str, Any] = {"buckets": (1, 2, 5), "threads": 1} | arguments
    return OpenVinoSession(spec, FP32, graph, **settings)


def run(session: OpenVinoSession, batch: int, seed: int = 3) -> np.ndarray:
    out = empty_outputs(session.spec, batch)
    for array in out.values():
        array.fill(np.nan)
    session.run(noise.inputs(session.spec, seed, 0, batch), out)
    return out["image"]


def other_spec(*, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> GeneratorSpec:
    return GeneratorSpec(
        "other",
        tuple(TensorSpec(name, "float32", shape, Latent()) for name, shape in inputs.items()),
        tuple(TensorSpec(name, "float32", shape, Image()) for name, shape in outputs.items()),
    )


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    opset = helper.make_opsetid("", 18)
    model: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return model


# What runs


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_outputs_are_those_of_onnx_runtime(batch: int, conditional: bool) -> None:
    spec = small_spec(conditional=conditional)
    graph = small_model(spec).SerializeToString()
    inputs = noise.inputs(spec, 3, 0, batch)
    bare = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["image"], inputs)[0]
    found = run(open_session(spec, graph, buckets=(batch,)), batch)
    assert np.abs(found - bare).max() <= 1e-6
    assert found.min() < -0.1 < 0.1 < found.max()


@two_cores
@pytest.mark.parametrize("streams", [1, 2])
def test_a_batch_in_parts_is_the_same_images(streams: int) -> None:
    whole = run(open_session(buckets=(7,)), 7)
    session = open_session(buckets=(1, 7), threads=2, streams=streams)
    found = run(session, 7)
    assert np.abs(found - whole).max() <= 1e-6
    for _ in range(5):
        assert np.array_equal(run(session, 7), found)
    assert run(session, 1).shape == (1, 1, 8, 8)
    assert session.describe()["streams"] == streams


@pytest.mark.parametrize(
    ("bucket", "streams", "sizes"),
    [(64, 1, [64]), (64, 2, [32, 32]), (64, 6, [11, 11, 11, 11, 10, 10]), (1, 4, [1]), (3, 4, [1, 1, 1])],
)
def test_a_bucket_is_cut_into_parts_as_equal_as_can_be(bucket: int, streams: int, sizes: list[int]) -> None:
    assert _part_sizes(bucket, streams) == sizes


def test_outputs_are_written_to_the_memory_that_was_given() -> None:
    session = open_session()
    out = {"image": np.full((2, 1, 8, 8), np.nan, np.float32)}
    address = out["image"].ctypes.data
    session.run(noise.inputs(SPEC, 0, 0, 2), out)
    assert np.isfinite(out["image"]).all()
    assert out["image"].ctypes.data == address


def test_memory_at_any_address_is_read_and_written() -> None:
    session = open_session()
    latents, expected = noise.inputs(SPEC, 3, 0, 2)["z"], run(session, 2)
    for offset in range(1, 9):  # arrays that begin in the middle of a vector register's width
        z = np.zeros(offset + 16, np.float32)[offset:].reshape(2, 8)
        z[:] = latents
        image = np.full(offset + 128, np.nan, np.float32)[offset:].reshape(2, 1, 8, 8)
        session.run({"z": z}, {"image": image})
        assert np.abs(image - expected).max() <= 1e-6


def test_inputs_that_may_not_be_written_to_are_read() -> None:
    session = open_session()
    z = noise.inputs(SPEC, 3, 0, 2)["z"]
    z.flags.writeable = False
    out = empty_outputs(SPEC, 2)
    session.run({"z": z}, out)
    assert np.array_equal(out["image"], run(session, 2))
    out["image"].flags.writeable = False
    with pytest.raises(BackendError, match="OpenVINO failed"):
        session.run({"z": z}, out)


@two_cores
def test_it_describes_what_runs_where() -> None:
    found = open_session(threads=2, streams=2, buckets=(2, 4)).describe()
    assert found.pop("versions") == {"openvino": openvino.__version__.partition("-")[0], "numpy": np.__version__}
    assert found == {
        "backend": "openvino",
        "device": "cpu",
        "variant": "fp32",
        "precision": "fp32",
        "buckets": [2, 4],
        "threads": 2,
        "streams": 2,
        "inference_precision": "f32",
    }


def test_it_closes_twice_and_then_runs_no_more() -> None:
    session = open_session()
    with session:
        run(session, 1)
    session.close()
    with pytest.raises(BackendError, match="closed"):
        run(session, 1)


def test_closing_frees_the_memory() -> None:
    random = np.random.default_rng(0)
    weights = numpy_helper.from_array(random.standard_normal((512, 16_384), np.float32), "w")  # 32 MiB
    graph = model_of(
        [helper.make_node("MatMul", ["z", "w"], ["image"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b", 512])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 16_384])],
        [weights],
    )
    spec = GeneratorSpec(
        "wide",
        (TensorSpec("z", "float32", (512,), Latent()),),
        (TensorSpec("image", "float32", (16_384,), Vector()),),
    )

    def resident_mib() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    def cycle() -> None:
        with open_session(spec, graph, buckets=(1,)) as session:
            run(session, 1)

    for _ in range(2):
        cycle()
    before = resident_mib()
    for _ in range(6):
        cycle()
    # Six that were not freed would hold 192 MiB and more.
    assert resident_mib() - before < 64


def test_a_batch_that_is_no_bucket_is_an_error() -> None:
    with pytest.raises(BackendError, match="not a bucket"):
        run(open_session(), 3)


def test_an_int8_graph_runs_as_it_is() -> None:
    """z → Q/DQ → Gemm with Q/DQ weights: what the quantised path computes is within a step of the scales."""
    random = np.random.default_rng(1)
    w = random.integers(-64, 64, (8, 16), dtype=np.int8)
    initializers = [
        numpy_helper.from_array(w, "w8"),
        numpy_helper.from_array(np.float32(0.02), "ws"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(np.float32(0.05), "zs"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["z", "zs", "zero"], ["z8"]),
        helper.make_node("DequantizeLinear", ["z8", "zs", "zero"], ["zd"]),
        helper.make_node("DequantizeLinear", ["w8", "ws", "zero"], ["wd"]),
        helper.make_node("MatMul", ["zd", "wd"], ["image"]),
    ]
    graph = model_of(
        nodes,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b", 8])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 16])],
        initializers,
    )
    spec = GeneratorSpec("q", SPEC.inputs, (TensorSpec("image", "float32", (16,), Vector()),))
    session = OpenVinoSession(spec, Variant("int8", "int8", "onnx", "m"), graph, buckets=(5,), threads=1)
    z = noise.inputs(spec, 3, 0, 5)["z"]
    expected = (np.clip(np.rint(z / 0.05), -128, 127) * 0.05) @ (w * 0.02)
    assert np.abs(run(session, 5) - expected).max() < 1e-4


# Graphs that do not fit


def test_an_operator_that_openvino_lacks_is_named() -> None:
    graph = model_of(
        [helper.make_node("NoSuchOperator", ["z"], ["image"])],
        [helper.make_tensor_value_info("z", 1, ["b", 8])],
        [helper.make_tensor_value_info("image", 1, ["b", 1, 8, 8])],
    )
    with pytest.raises(BackendError, match=r"does not have an operator of x\.gan/model\.onnx") as error:
        open_session(graph=graph, where="x.gan/model.onnx")
    assert "NoSuchOperator" in str(error.value.got)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("graph", [b"", b"not a model", small_model(SPEC).SerializeToString()[:200]])
def test_a_graph_that_openvino_refuses_is_named(graph: bytes) -> None:
    with pytest.raises(BackendError, match=r"refuses x\.gan/model\.onnx") as error:
        open_session(graph=graph, where="x.gan/model.onnx")
    assert error.value.__cause__ is not None
    assert "\n" not in str(error.value.got)
    assert ".cpp" not in str(error.value.got)


@pytest.mark.parametrize(
    ("spec", "side"),
    [
        (other_spec(inputs={"w": (8,)}, outputs={"image": (1, 8, 8)}), "inputs"),
        (other_spec(inputs={"z": (8,)}, outputs={"picture": (1, 8, 8)}), "outputs"),
        (other_spec(inputs={"z": (8,)}, outputs={"image": (1, 8, 8), "mask": (1, 8, 8)}), "outputs"),
    ],
)
def test_names_that_differ_from_the_spec_are_found_when_opening(spec: GeneratorSpec, side: str) -> None:
    with pytest.raises(BackendError, match=f"m.onnx has other {side} than its spec"):
        open_session(spec, where="m.onnx")


def test_an_input_that_the_spec_lacks_is_found_when_opening() -> None:
    with pytest.raises(BackendError, match="other inputs"):
        open_session(SPEC, small_model(CONDITIONAL).SerializeToString())


def test_an_input_that_nothing_in_the_graph_reads_may_be_there() -> None:
    spec = other_spec(inputs={"z": (8,), "style": (2,)}, outputs={"image": (1, 8, 8)})
    model = small_model(SPEC, with_spec=False)
    model.graph.input.append(helper.make_tensor_value_info("style", TensorProto.FLOAT, ["batch", 2]))
    z = noise.inputs(SPEC, 3, 0, 2)
    out = empty_outputs(spec, 2)
    open_session(spec, model.SerializeToString()).run(z | {"style": np.ones((2, 2), np.float32)}, out)
    assert np.array_equal(out["image"], run(open_session(), 2))


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 16, 16), (4, 4, 4), (1, 8, 7)])
def test_an_output_of_another_size_than_the_spec_says_is_found_when_opening(shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="'image' has another shape than in its spec"):
        open_session(other_spec(inputs={"z": (8,)}, outputs={"image": shape}))


@pytest.mark.parametrize("latent", [(7,), (9,), (8, 1)])
def test_an_input_of_another_size_than_the_graphs_is_found_when_opening(latent: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="OpenVINO refuses"):
        open_session(other_spec(inputs={"z": latent}, outputs={"image": (1, 8, 8)}))


def test_another_dtype_is_found_when_opening() -> None:
    spec = GeneratorSpec("h", SPEC.inputs, (TensorSpec("image", "float16", (1, 8, 8), Image()),))
    with pytest.raises(BackendError, match="'image' has another dtype") as error:
        open_session(spec)
    assert (error.value.got, error.value.expected) == ("float32", "float16")


def test_arrays_that_do_not_fit_reach_no_memory() -> None:
    session = open_session()
    z = noise.inputs(SPEC, 3, 0, 2)["z"]
    for arrays in (
        {"z": z[:, :7].copy()},
        {"z": z.astype(np.float16)},
        {"z": z.astype(np.float64)},
        {"z": np.zeros((2, 16), np.float32)[:, ::2]},
    ):
        with pytest.raises(BackendError, match="OpenVINO failed"):
            session.run(arrays, empty_outputs(SPEC, 2))
    for out in (
        np.zeros((2, 1, 4, 4), np.float32),
        np.zeros((2, 1, 8, 8)),
        np.zeros((2, 1, 8, 16), np.float32)[..., ::2],
    ):
        with pytest.raises(BackendError, match="OpenVINO failed"):
            session.run({"z": z}, {"image": out})
    assert np.isfinite(run(session, 2)).all()


def test_a_graph_of_one_fixed_batch_runs_in_that_batch_alone(bundle_path: Path) -> None:
    model = small_model(SPEC)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", model.SerializeToString())
    assert ganruntime.load(bundle_path, backend="openvino", buckets=(1,), threads=1).generate(3).shape == (3, 8, 8, 1)


def test_bytes_are_checked_before_they_are_parsed(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*arguments: Any) -> None:
        raise AssertionError("OpenVINO was reached")

    monkeypatch.setattr(openvino, "Core", reached)
    model = bundle_path / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    with pytest.raises(BundleIntegrityError, match=r"model\.onnx"):
        ganruntime.load(bundle_path, backend="openvino")


# Devices, precision, threads


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_is_an_error_and_never_the_cpu(bundle_path: Path, device: str) -> None:
    with pytest.raises(DeviceError, match="OpenVINO runs on the CPU"):
        ganruntime.load(bundle_path, device=device, backend="openvino")
    with pytest.raises(InputError, match="is not a device"):
        ganruntime.load(bundle_path, device="gpu", backend="openvino")


@pytest.mark.parametrize(
    ("precision", "capabilities", "hint"),
    [
        ("fp32", ["FP32", "BF16", "FP16"], "f32"),
        ("int8", ["FP32", "BF16", "FP16", "INT8"], "f32"),
        ("bf16", ["FP32", "BF16"], "bf16"),
        ("bf16", ["FP32"], "f32"),
        ("fp16", ["FP32", "FP16"], "f16"),
        ("fp16", ["FP32", "BF16"], "f32"),
    ],
)
def test_a_lower_precision_is_the_graphs_and_never_openvinos(
    precision: str, capabilities: list[str], hint: str
) -> None:
    core: Any = SimpleNamespace(get_property=lambda device, name: capabilities)
    assert _inference_precision(core, precision) == hint


@two_cores
def test_the_compiled_models_have_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    real = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        asked.append(settings)
        return real(self, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    open_session(threads=2, streams=2, buckets=(1, 4, 5))
    assert [s["NUM_STREAMS"] for s in asked] == [1, 2, 2]  # 1; 4 = 2 + 2; 5 = 3 + 2, and the 2 are there
    for settings in asked:
        assert settings["INFERENCE_NUM_THREADS"] == 2
        assert settings["INFERENCE_PRECISION_HINT"] == "f32"
        assert settings["ENABLE_CPU_PINNING"] is False


@two_cores
def test_a_setting_that_is_not_obeyed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        return real(self, model, device, settings | {"NUM_STREAMS": 1})

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    with pytest.raises(BackendError, match=r"would run m\.onnx in another way"):
        open_session(threads=2, streams=2, buckets=(4,), where="m.onnx")


def test_streams_need_threads_and_openvino(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="each stream needs a thread"):
        ganruntime.load(bundle_path, backend="openvino", threads=2, streams=3)
    with pytest.raises(InputError, match="streams is not a count"):
        ganruntime.load(bundle_path, backend="openvino", streams=0)
    with pytest.raises(InputError, match="onnxruntime has no streams"):
        ganruntime.load(bundle_path, backend="onnxruntime", streams=2, device="cpu")


def test_threads_are_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no more threads than there are cores") as caught:
        open_session(threads=60_000)
    assert caught.value.got == "threads=60000"
    # What was not asked for is what there is, and is told.
    monkeypatch.setattr("ganruntime.sessions.openvino.usable_cores", lambda: 60_000)
    assert 1 <= open_session(threads=None).describe()["threads"] < 60_000


def test_threads_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganruntime.sessions.openvino.usable_cores", lambda: 1)
    assert open_session(threads=None).threads == 1
    with pytest.raises(InputError, match="each stream"):
        open_session(threads=None, streams=2)


# In a generator


def test_images_are_those_of_onnx_runtime(conditional_path: Path) -> None:
    ours, theirs = (
        ganruntime.load(conditional_path, "cpu", backend, threads=1) for backend in ("openvino", "onnxruntime")
    )
    assert ours.describe()["backend"] == "openvino"
    arguments: dict[str, Any] = {"label": [i % 3 for i in range(23)], "truncation": np.linspace(0, 1, 23)}
    images = ours.generate(23, seed=5, **arguments)
    gap = np.abs(images.astype(int) - theirs.generate(23, seed=5, **arguments)).max()
    assert gap <= 1
    assert images.std() > 10


@two_cores
def test_with_one_bucket_no_split_changes_a_bit(bundle_path: Path) -> None:
    generator = ganruntime.load(bundle_path, backend="openvino", buckets=(4,), threads=2, streams=2)
    whole = generator.generate(20, seed=3)
    parts = [generator.generate(n, seed=3, first=first) for first, n in ((0, 1), (1, 2), (3, 9), (12, 8))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_backend_that_is_not_installed_names_its_extra(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for device in ("auto", "cpu"):
        with pytest.raises(MissingDependencyError, match="openvino is not installed") as error:
            ganruntime.load(bundle_path, device=device, backend="openvino")
        assert "ganexport[openvino]" in str(error.value)
