"""The TensorRT session, on the behavioural double: what it runs, refuses before parsing a plan, and frees."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imaginary_machine import FakeGpu, Machine
from tensorrt_bundles import write_bundle

import ganruntime
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganruntime import noise
from ganruntime.bundle import Bundle, Variant, read_bundle
from ganruntime.errors import (
    BackendError,
    BundleIntegrityError,
    DeviceError,
    EngineError,
    InputError,
    MissingDependencyError,
)
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.cuda import free_memory_bytes, gpu_from_index
from ganruntime.sessions.cuda_streams import DeviceBuffer, Event, PinnedBuffer, Stream
from ganruntime.sessions.tensorrt import TensorRTSession
from ganruntime.sessions.tensorrt_environment import check_environment, first_that_fits
from ganruntime.sessions.tensorrt_library import is_stand_in, require_tensorrt, version_numbers

BUCKETS = (1, 4, 8)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine().install(monkeypatch)
    yield machine
    machine.check_is_clean()


@pytest.fixture
def bundle(machine: Machine, tmp_path: Path) -> Bundle:
    path = write_bundle(tmp_path / "tiny.gan", labelled=True).path
    engine_into_bundle(path, BuildOptions(buckets=BUCKETS))
    machine.deserialised = 0
    machine.profile_switches.clear()
    return read_bundle(path)


def engine_of(bundle: Bundle) -> Variant:
    (variant,) = (v for v in bundle.manifest.variants if v.format == "tensorrt")
    return variant


def rows(bundle: Bundle, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v) for k, v in noise.inputs(bundle.spec, seed, 0, batch).items()}


def test_each_batch_runs_on_its_own_profile(bundle: Bundle, machine: Machine) -> None:
    with TensorRTSession(bundle, engine_of(bundle), "cuda:0", (1, 3, 4, 6, 8)) as session:
        for batch in (8, 8, 1, 3, 6, 4, 1):
            out = empty_outputs(bundle.spec, batch)
            session.run(rows(bundle, batch), out)
            assert np.isfinite(out["image"]).all()
    # Profiles 0, 1, 2 are those of 1, 4, 8; 3 is the dynamic one. On each of two lanes a context for each bucket, and
    # no switch afterwards.
    assert machine.profile_switches == [0, 3, 1, 3, 2] * 2


def test_outputs_equal_those_of_the_graph(bundle: Bundle) -> None:
    graph = ganruntime.load(bundle, device="cpu", backend="onnxruntime", precision="fp32", threads=1)
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        for batch in BUCKETS:
            inputs, out = rows(bundle, batch, seed=3), empty_outputs(bundle.spec, batch)
            session.run(inputs, out)
            np.testing.assert_allclose(out["image"], graph.outputs(inputs)["image"], atol=1e-6)


def test_it_serves_through_the_generator(bundle: Bundle) -> None:
    variant = engine_of(bundle)
    generator = ganruntime.load(bundle, backend="tensorrt", precision=variant.name)
    images = generator.generate(13, seed=5)
    assert images.shape == (13, 8, 8, 1)
    assert images.std() > 1
    described = generator.describe()
    assert (described["backend"], described["device"], described["gpu"]) == ("tensorrt", "cuda:0", "Imaginary L4")
    assert described["versions"]["tensorrt"] == "11.4.0.106+double"
    generator.session.close()


def test_an_unverified_engine_is_not_taken_unasked(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="no verified tensorrt variant"):
        ganruntime.load(bundle, backend="tensorrt")


def test_memory_is_freed_whatever_happens(bundle: Bundle, machine: Machine) -> None:
    session = TensorRTSession(bundle, engine_of(bundle))
    device, largest = machine.device, BUCKETS[-1]
    row_bytes = 16 * 4 + 8 + 64 * 4
    described = session.describe()
    assert described["buffers_bytes"] == described["pinned_bytes"] == 2 * largest * row_bytes
    assert sum(m.nbytes for m in device.pinned.values()) == 2 * largest * row_bytes
    assert sum(m.nbytes for m in device.memory.values()) == 2 * largest * row_bytes + described["scratch_bytes"]
    assert len(machine.engines) == 1
    session.close()
    session.close()
    assert device.is_empty()
    gc.collect()
    assert len(machine.engines) == 0
    with pytest.raises(BackendError, match="closed"):
        session.run(rows(bundle, 1), empty_outputs(bundle.spec, 1))
    assert session.describe()["buffers_bytes"] == 0

    machine.gpus[0].memory_bytes = 4096 + largest * (16 * 4 + 8)  # inputs fit, the output does not
    with pytest.raises(EngineError, match="the GPU is out of memory"):
        TensorRTSession(bundle, engine_of(bundle))
    assert device.is_empty()
    machine.gpus[0].memory_bytes = 4095
    with pytest.raises(EngineError, match="no room to run the engine"):
        TensorRTSession(bundle, engine_of(bundle))
    assert device.is_empty()
    machine.gpus[0].memory_bytes = 24 << 30
    machine.pinnable_bytes = 100
    with pytest.raises(EngineError, match="the host has no memory left to pin"):
        TensorRTSession(bundle, engine_of(bundle))


def test_a_session_that_nobody_closes_is_freed_with_its_last_reference(bundle: Bundle, machine: Machine) -> None:
    session = TensorRTSession(bundle, engine_of(bundle))
    assert machine.device.memory
    del session
    gc.collect()
    assert machine.device.is_empty()


def test_no_room_for_the_context(bundle: Bundle, machine: Machine) -> None:
    machine.context_fits = False
    with pytest.raises(EngineError, match="no room to run the engine") as caught:
        TensorRTSession(bundle, engine_of(bundle))
    assert "out of memory" in str(caught.value)


# --- refused before TensorRT parses the plan --------------------------------------------------------------------------


def refused_before_parsing(machine: Machine, bundle: Bundle) -> str:
    with pytest.raises(EngineError) as caught:
        TensorRTSession(bundle, engine_of(bundle))
    assert machine.deserialised == 0
    return str(caught.value)


@pytest.mark.parametrize("version", ["11.4.0.107+double", "11.3.0.99", "10.16.1.11", "11.4.0.106"])
def test_another_tensorrt(bundle: Bundle, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(version=version).install(monkeypatch)
    said = refused_before_parsing(machine, bundle)
    assert "built by another TensorRT" in said
    assert "TensorRT 11.4.0.106+double" in said
    assert f"TensorRT {version}," in said
    assert f"ganexport to-trt {bundle.path} --precision fp32 --batch 1,4,8" in said


def test_another_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(gpus=[FakeGpu("Imaginary H200", 9, 0)]).install(monkeypatch)
    said = refused_before_parsing(machine, bundle)
    assert "built for another GPU" in said
    assert "compute capability 8.9 (Imaginary L4)" in said
    assert "compute capability 9.0 (Imaginary H200)" in said
    assert "ganexport to-trt" in said


def test_of_several_machines_engines_the_fitting_one_is_found(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(gpus=[FakeGpu("Imaginary H200", 9, 0)]).install(monkeypatch)
    engine_into_bundle(bundle.path, BuildOptions(buckets=(1,)))
    engines = [v for v in read_bundle(bundle.path).manifest.variants if v.engine]
    assert [v.name.split(".")[1] for v in engines] == ["sm89", "sm90"]
    assert first_that_fits(engines) is engines[1]
    Machine().install(monkeypatch)
    assert first_that_fits(engines) is engines[0]
    Machine(version="10.16.1.11+double").install(monkeypatch)
    assert first_that_fits(engines) is engines[0]


# (what the engine was built with, TensorRT and GPU that are here, whether it runs)
WIDE = {"hardware_compatibility": "ampere+"}
LATER = {"version_compatible": True}
PLACES = [
    (LATER, "11.4.0.106+double", (8, 9), True),
    (LATER, "11.4.0.107+double", (8, 9), True),
    (LATER, "11.9.0.1+double", (8, 9), True),
    (LATER, "11.4.0.106", (8, 9), False),  # the double's own engines are not TensorRT's
    (LATER, "11.4.0.105+double", (8, 9), False),  # never on an older one
    (LATER, "10.16.1.11+double", (8, 9), False),
    (LATER | {"tensorrt": "10.16.1.11+double"}, "11.4.0.106+double", (8, 9), True),
    (LATER | {"tensorrt": "10.12.0.36+double"}, "10.16.1.11+double", (8, 9), True),
    (LATER, "11.9.0.1+double", (9, 0), False),
    (WIDE, "11.4.0.106+double", (9, 0), True),
    (WIDE, "11.4.0.106+double", (8, 0), True),
    (WIDE, "11.4.0.106+double", (12, 0), True),
    (WIDE, "11.4.0.106+double", (7, 5), False),
    (WIDE, "11.9.0.1+double", (9, 0), False),
    (WIDE | LATER, "11.9.0.1+double", (9, 0), True),
    ({"hardware_compatibility": "same-cc"}, "11.4.0.106+double", (8, 9), True),
    ({"hardware_compatibility": "same-cc"}, "11.4.0.106+double", (8, 6), False),
    ({"cuda": "13.9"}, "11.4.0.106+double", (8, 9), True),  # one major version of CUDA
    ({"cuda": "14.0"}, "11.4.0.106+double", (8, 9), False),
    ({"cuda": "12.8"}, "11.4.0.106+double", (8, 9), True),
]


@pytest.mark.parametrize(("changes", "version", "capability", "runs"), PLACES)
def test_where_an_engine_runs(
    bundle: Bundle,
    changes: dict[str, object],
    version: str,
    capability: tuple[int, int],
    runs: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Machine(version=version, gpus=[FakeGpu("Here", *capability)]).install(monkeypatch)
    variant = engine_of(bundle)
    assert variant.engine is not None
    record = replace(variant.engine, **changes)  # type: ignore[arg-type]
    changed = replace(variant, engine=record)
    gpu = gpu_from_index(0)
    if runs:
        check_environment(record, changed, version, gpu, "build it again")
    else:
        with pytest.raises(
            EngineError, match=r"was built (by another TensorRT|for another GPU|for a newer driver)"
        ) as caught:
            check_environment(record, changed, version, gpu, "build it again")
        assert "remedy:   build it again" in str(caught.value)
    other = replace(variant, name="other", engine=replace(record, compute_capability="1.0", tensorrt="9.9"))
    assert first_that_fits([other, changed]) is (changed if runs else other)


def test_a_newer_driver_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = engine_of(bundle)
    assert variant.engine is not None
    newer = replace(variant, engine=replace(variant.engine, cuda="14.1", driver="640.10"))
    with pytest.raises(EngineError, match="was built for a newer driver") as caught:
        TensorRTSession(bundle, newer)
    assert "CUDA 14.1 (driver 640.10)" in str(caught.value)
    assert "CUDA 13.0 (driver unknown), which is here: update it, or build again" in str(caught.value)


def test_an_edited_plan(bundle: Bundle, machine: Machine) -> None:
    variant = engine_of(bundle)
    path = bundle.path / variant.file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleIntegrityError, match="was changed after the export"):
        TensorRTSession(bundle, variant)
    assert machine.deserialised == 0


def test_not_an_nvidia_gpu(bundle: Bundle, machine: Machine) -> None:
    with pytest.raises(DeviceError, match="NVIDIA GPUs only"):
        TensorRTSession(bundle, engine_of(bundle), "cpu")
    with pytest.raises(DeviceError, match="there is no GPU 1"):
        TensorRTSession(bundle, engine_of(bundle), "cuda:1")
    with pytest.raises(EngineError, match="is not a TensorRT engine"):
        TensorRTSession(bundle, bundle.variant("fp32"))


def test_without_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed") as caught:
        TensorRTSession(bundle, engine_of(bundle))
    assert 'pip install "ganexport[trt]"' in str(caught.value)


# --- refused at or after loading --------------------------------------------------------------------------------------


def test_a_plan_that_does_not_load(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="does not load the engine") as caught:
        TensorRTSession(bundle, engine_of(bundle), plan=b"junk")
    assert "Magic tag does not match" in str(caught.value)


def test_runtime_that_does_not_start(bundle: Bundle, machine: Machine) -> None:
    machine.builder_starts = False
    with pytest.raises(EngineError, match="TensorRT does not start"):
        TensorRTSession(bundle, engine_of(bundle))


def test_an_engine_of_another_generator(bundle: Bundle, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other.gan", labelled=False)
    variant = engine_of(bundle)
    plan = bundle.read(variant.file)
    with pytest.raises(EngineError, match="has the weights of another export") as caught:
        TensorRTSession(other, variant, plan=plan)
    assert f"ganexport to-trt {other.path} --precision fp32" in str(caught.value)
    assert variant.engine is not None
    unsaid = replace(variant, engine=replace(variant.engine, graph_sha256=""))
    with pytest.raises(EngineError, match="other inputs than the spec") as caught:
        TensorRTSession(other, unsaid, plan=plan)
    assert "label" in str(caught.value)


def test_a_bucket_beyond_the_profiles(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="9 is not a batch that the engine") as caught:
        TensorRTSession(bundle, engine_of(bundle), "cuda", (1, 9))
    assert "input 'z'" in str(caught.value)
    assert "1 to 8" in str(caught.value)
    assert f"add the batch: ganexport to-trt {bundle.path} --precision fp32 --batch 1,4,8,9" in str(caught.value)


def test_wrong_arrays_never_reach_the_gpu(bundle: Bundle) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        good, out = rows(bundle, 4), empty_outputs(bundle.spec, 4)
        wrong = [
            good | {"z": good["z"].astype(np.float64)},
            good | {"z": good["z"][:, :8]},
            good | {"z": np.asfortranarray(good["z"])},
            good | {"label": good["label"][:3]},
        ]
        for inputs in wrong:
            with pytest.raises(InputError, match="is not the array that the engine takes"):
                session.run(inputs, out)
        with pytest.raises(InputError, match="'image' is not the array"):
            session.run(good, empty_outputs(bundle.spec, 1))
        with pytest.raises(InputError, match="the batch is not a bucket"):
            session.run(rows(bundle, 2), empty_outputs(bundle.spec, 2))
        session.run(good, out)


@pytest.mark.parametrize(
    ("graphs", "failure", "problem", "said"),
    [
        (False, "execute_fails", "TensorRT failed on the GPU", "an illegal memory access"),
        (True, "launch_fails", "cannot launch a CUDA graph", "cudaErrorLaunchFailure"),
        (True, "kernels_fail", "cannot finish the work on the GPU", "cudaErrorIllegalAddress"),
    ],
)
def test_a_run_that_fails_says_what_was_said(
    bundle: Bundle, machine: Machine, graphs: bool, failure: str, problem: str, said: str
) -> None:
    with TensorRTSession(bundle, engine_of(bundle), graphs=graphs) as session:
        setattr(machine, failure, True)
        with pytest.raises(BackendError, match=problem) as caught:
            session.run(rows(bundle, 1), empty_outputs(bundle.spec, 1))
        assert said in str(caught.value)
        setattr(machine, failure, False)
        session.run(rows(bundle, 1), empty_outputs(bundle.spec, 1))  # nothing of the failed run is in its way


def test_after_a_kernels_error_only_that_error_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine().install(monkeypatch)

    def lose_the_gpu() -> None:
        with TensorRTSession(bundle, engine_of(bundle)) as session:
            machine.gpu_is_lost = True
            try:
                session.run(rows(bundle, 1), empty_outputs(bundle.spec, 1))
            finally:
                sessions.append(session)

    sessions: list[TensorRTSession] = []
    with pytest.raises(DeviceError, match=r"cannot use GPU 0|cannot finish the work on the GPU") as caught:
        lose_the_gpu()
    assert "cudaErrorIllegalAddress" in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(BackendError, match="closed"):
        sessions[0].run(rows(bundle, 1), empty_outputs(bundle.spec, 1))


def test_a_failure_to_close_is_told_once_everything_was_tried(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine().install(monkeypatch)
    session = TensorRTSession(bundle, engine_of(bundle))
    machine.gpu_is_lost = True
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        session.close()
    session.close()
    assert session.describe()["lanes"] == 0


# --- cuda.py and tensorrt_library.py ----------------------------------------------------------------------------------


def test_a_plan_with_the_right_record_and_a_wrong_inside(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # The manifest claims this machine; the plan itself is of another: TensorRT's own check is the second line.
    Machine(gpus=[FakeGpu("Imaginary H200", 9, 0)]).install(monkeypatch)
    variant = engine_of(bundle)
    assert variant.engine is not None
    claimed = replace(variant, engine=replace(variant.engine, compute_capability="9.0"))
    with pytest.raises(EngineError, match="does not load the engine") as caught:
        TensorRTSession(bundle, claimed)
    assert "incompatible device or version" in str(caught.value)


def test_gpu_is_described(machine: Machine) -> None:
    gpu = gpu_from_index(0)
    assert (gpu.name, gpu.compute_capability, gpu.architecture) == ("Imaginary L4", "8.9", "sm89")
    assert (gpu.driver_cuda, gpu.runtime_cuda) == ("13.0", "13.0")
    assert free_memory_bytes() == (24 << 30, 24 << 30)


def test_buffers_and_streams_are_given_back_once(machine: Machine) -> None:
    buffer, stream, event = DeviceBuffer(100), Stream(), Event()
    pinned, back = PinnedBuffer(100), PinnedBuffer(200)
    pinned.array((100,), "uint8")[:] = range(100)
    assert pinned.array((5, 2), "float16").shape == (5, 2)
    stream.copy_to_device(buffer, pinned, 100)
    stream.copy_to_host(back, buffer, 100)
    stream.record(event)
    values = back.array((100,), "uint8")
    assert (values != range(100)).any()
    event.wait()
    np.testing.assert_array_equal(values, range(100))
    with pytest.raises(DeviceError, match="copy 200 bytes"):
        stream.copy_to_host(back, buffer, 200)
    del values
    for _ in range(2):
        for thing in (buffer, pinned, back):
            thing.free()
        stream.destroy()
        event.destroy()


def test_driver_version_is_read_from_the_kernel_module(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n": "535.183.01",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs@host)\n": "580.65.06",
        "something else\n": "unknown",
    }
    file = tmp_path / "version"
    monkeypatch.setattr("ganruntime.sessions.cuda._DRIVER_FILE", file)
    assert gpu_from_index(0).driver_version == "unknown"
    for text, version in texts.items():
        file.write_text(text)
        assert gpu_from_index(0).driver_version == version


def test_versions_are_read_strictly() -> None:
    assert version_numbers("10.16.1.11") == (10, 16, 1, 11)
    assert version_numbers("10.13.3.9.post1") == (10, 13, 3, 9)
    assert version_numbers("11.4.0.106+double") == (11, 4, 0, 106)
    assert is_stand_in("11.4.0.106+double")
    assert not is_stand_in("10.13.3.9.post1")
    with pytest.raises(EngineError, match="its version is not one"):
        version_numbers("eleven")


def test_bindings_without_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the small wheel alone does: the module is found, and its shared library does not load.
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependencyError, match="its libraries do not load") as caught:
        require_tensorrt()
    assert "libnvinfer.so.10" in str(caught.value)
    assert "NVIDIA's package index" in str(caught.value)


def test_another_module_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependencyError, match="another module is named tensorrt"):
        require_tensorrt()
    sys.modules.pop("tensorrt", None)
