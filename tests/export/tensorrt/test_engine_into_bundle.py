"""The whole way with the double: options, build, read-back, proof, bundle, and every error on it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from imaginary_machine import FakeGpu, Machine
from tensorrt_bundles import GOLDEN_LATENTS, onnx_generator, spec_of, write_bundle

from ganexport.tensorrt.engine_builder import engine_from_onnx
from ganexport.tensorrt.engine_proof import proof_batches
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.job import run_job
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.profiles import Profile
from ganexport.tensorrt.readback import readback_from_engine
from ganruntime.bundle import bundle_changed, read_bundle
from ganruntime.errors import (
    BundleError,
    BundleIntegrityError,
    DeviceError,
    EngineError,
    MissingDependencyError,
    OutputError,
    ParityError,
)
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.tensorrt import TensorRTSession

BUCKETS = (1, 4, 8)


def tree(path: Path) -> dict[str, str]:
    """{file: hash} of a bundle, to see that nothing of it changed."""
    files = (p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("version", ["10.12.0.36+double", "10.16.1.11+double", "11.4.0.106+double"])
def test_engine_is_built_read_back_proven_and_added(
    version: str, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(version=version).install(monkeypatch)
    seen: list[float] = []
    proven: list[tuple[int, int]] = []
    engine = engine_into_bundle(
        bundle_path,
        BuildOptions(buckets=BUCKETS),
        on_progress=lambda fraction, phase: seen.append(fraction),
        on_proof=lambda images, total: proven.append((images, total)),
    )

    (build,) = machine.builds
    assert build["strongly_typed"]
    assert build["tf32"] is False
    assert [p["z"][0][0] for p in build["profiles"]] == [1, 4, 8, 1]
    assert [p["z"][1][0] for p in build["profiles"]] == [1, 4, 8, 8]
    assert [p["z"][2][0] for p in build["profiles"]] == [1, 4, 8, 8]
    assert engine.readback.counts() == {"fp32": 4}
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert proven[-1] == (GOLDEN_LATENTS * 4, GOLDEN_LATENTS * 4)

    release = ".".join(version.split(".")[:2]) + "+double"
    bundle = read_bundle(bundle_path)
    variant = bundle.variant(f"fp32.sm89.trt{release}")
    assert variant.file == f"engines/tiny.fp32.sm89.trt{release}.plan"
    assert bundle.read(variant.file) == engine.built.plan
    record = variant.engine
    assert record is not None
    assert (record.tensorrt, record.compute_capability, record.gpu) == (version, "8.9", "Imaginary L4")
    assert (record.batches, record.largest_batch, record.cuda) == (BUCKETS, 8, "13.0")
    assert bundle.manifest.reports["engines"][variant.name]["profiles"] == ["1", "4", "8", "1..8"]
    assert engine.finding.verdict.passed
    assert engine.finding.verdict.batches == (1, 3, 4, 8)
    machine.check_is_clean()


def test_an_engine_of_the_double_is_never_verified(machine: Machine, bundle_path: Path) -> None:
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    assert engine.finding.verdict.passed
    variant = read_bundle(bundle_path).variant(engine.variant.name)
    assert variant.verdicts == ()
    assert variant.status == "unverified"
    assert "+double" in variant.name
    assert "+double" in variant.file


def test_an_engine_of_tensorrt_gets_its_verdict(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same way with the mark taken for none: what a real TensorRT's engine gets.
    monkeypatch.setattr("ganexport.tensorrt.into_bundle.is_stand_in", lambda version: False)
    Machine().install(monkeypatch)
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 4)))
    (verdict,) = read_bundle(bundle_path).variant(engine.variant.name).verdicts
    assert verdict.passed
    assert (verdict.backend, verdict.device, verdict.latents) == ("tensorrt", "cuda:0", GOLDEN_LATENTS)
    assert verdict.versions["tensorrt"] == "11.4.0.106+double"
    assert verdict.bound == 1e-4
    assert verdict.errors["max_abs"] <= 1e-5


def test_tf32_is_asked_for_recorded_and_has_its_own_bound(machine: Machine, bundle_path: Path) -> None:
    engine = engine_into_bundle(bundle_path, BuildOptions(precision="tf32", buckets=(1, 4)))
    assert machine.builds[0]["tf32"] is True
    assert engine.readback.counts() == {"fp32": 2, "tf32": 2}
    assert engine.variant.precision == "tf32"
    verdict = engine.finding.verdict
    # The double rounds the weights as TF32 kernels do: an error that the fp32 bound would not let pass.
    assert 1e-4 < verdict.errors["max_abs"] < verdict.bound == 1e-2


def test_both_precisions_lie_side_by_side(machine: Machine, bundle_path: Path) -> None:
    for precision in ("fp32", "tf32", "fp32"):
        engine_into_bundle(bundle_path, BuildOptions(precision=precision, buckets=(1,)))
    names = [v.name for v in read_bundle(bundle_path).manifest.variants]
    assert sorted(names) == ["fp32", "fp32.sm89.trt11.4+double", "tf32.sm89.trt11.4+double"]


def test_every_input_gets_a_profile(machine: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "labelled.gan", labelled=True)
    engine = engine_into_bundle(bundle.path, BuildOptions(buckets=(2, 4)))
    (build,) = machine.builds
    assert [p["label"] for p in build["profiles"]] == [[[2]] * 3, [[4]] * 3, [[1], [4], [4]]]
    assert engine.finding.verdict.passed


def test_options_reach_the_builder(machine: Machine, bundle_path: Path) -> None:
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), workspace_mib=256, optimization_level=5))
    (build,) = machine.builds
    assert (build["workspace"], build["level"], build["detailed"]) == (256 * 2**20, 5, True)


def test_second_gpu(machine: Machine, bundle_path: Path) -> None:
    machine.gpus.append(FakeGpu("Imaginary L4, the second"))
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), device=1))
    assert engine.variant.engine is not None
    assert engine.variant.engine.gpu == "Imaginary L4, the second"
    assert engine.finding.verdict.device == "cuda:1"


# --- what was built is not what was asked ---------------------------------------------------------------------------


def test_tf32_in_an_fp32_engine_is_found(machine: Machine, bundle_path: Path) -> None:
    before = tree(bundle_path)
    machine.forces_tf32 = True
    with pytest.raises(EngineError, match="2 of 4 layers in another precision than fp32") as caught:
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    assert "grow: tf32, asked fp32 sm80_xmma" in str(caught.value)
    assert tree(bundle_path) == before


def test_half_in_an_fp32_engine_is_found(machine: Machine, bundle_path: Path) -> None:
    machine.forces_half = True
    for precision in ("fp32", "tf32"):
        with pytest.raises(EngineError, match=f"4 of 4 layers in another precision than {precision}"):
            engine_into_bundle(bundle_path, BuildOptions(precision=precision, buckets=(1,)))


def test_a_profile_that_is_missing_is_found(machine: Machine, bundle_path: Path) -> None:
    machine.drops_dynamic_profile = True
    with pytest.raises(EngineError, match="another number of profiles"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 4)))


@pytest.mark.parametrize("batch", [1, 8, 3])
def test_an_engine_wrong_at_one_batch_is_not_added(machine: Machine, bundle_path: Path, batch: int) -> None:
    before = tree(bundle_path)
    machine.wrong_at_batch = batch
    with pytest.raises(ParityError, match="not added to the bundle") as caught:
        engine_into_bundle(bundle_path, BuildOptions(buckets=BUCKETS))
    assert "largest error" in str(caught.value)
    assert f"do it again with: ganexport to-trt {bundle_path} --precision fp32 --batch 1,4,8" in str(caught.value)
    assert tree(bundle_path) == before


# --- the build fails --------------------------------------------------------------------------------------------------


def test_unsupported_operator_names_every_node(machine: Machine, bundle_path: Path) -> None:
    machine.unsupported = {
        "ConvTranspose": "In node 2 (importConvTranspose): UNSUPPORTED_NODE: Assertion failed",
        "Tanh": "No importer registered for op: Tanh",
    }
    with pytest.raises(EngineError, match="does not support ConvTranspose, Tanh") as caught:
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    assert "node 2 'grow' (ConvTranspose)" in str(caught.value)
    assert "node 3 'squash' (Tanh): UNSUPPORTED_NODE: No importer registered" in str(caught.value)
    assert f"ganexport to-trt {bundle_path} --check" in str(caught.value)


OUT_OF_MEMORY = [
    "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
    "Error Code: 9: Skipping tactic 0x0000000000000000 due to exception [tunable_graph.cpp:create:117] autotuning: "
    "User allocator error allocating 15485030400-byte buffer",
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}.)",
]


@pytest.mark.parametrize(
    ("messages", "kind", "problem", "remedy"),
    [
        (OUT_OF_MEMORY, EngineError, "the GPU ran out of memory .* batches up to 64", "--batch 1,8"),
        (OUT_OF_MEMORY[2:], EngineError, r"no kernel for node \{ForeignNode\[/1/Constant_36_output_0", "--batch 1,8"),
        (
            ["Error Code 9: API Usage Error (Target GPU SM 70 is not supported by this TensorRT release.)"],
            DeviceError,
            "not one that the installed TensorRT builds for",
            "tensorrt>=10.12,<11",
        ),
        (["CUDA initialization failure with error: 35"], DeviceError, "cannot use the GPU", "nvidia-smi"),
        (
            ["Error Code 4: Internal Error (z: optimization profile 0 has min > max)"],
            EngineError,
            "refuses the profiles of the batches",
            "batches up to 64",
        ),
        (["Error Code 2: Internal Error (Assertion x failed.)"], EngineError, "could not build", "ganexport to-trt"),
    ],
)
def test_build_failures_are_translated(
    machine: Machine, bundle_path: Path, messages: list[str], kind: type[Exception], problem: str, remedy: str
) -> None:
    before = tree(bundle_path)
    machine.build_errors = messages
    with pytest.raises(kind, match=problem) as caught:
        engine_into_bundle(bundle_path, BuildOptions())
    assert messages[-1] in str(caught.value)
    assert remedy in str(caught.value)
    assert tree(bundle_path) == before


def test_builder_that_does_not_start(machine: Machine, bundle_path: Path) -> None:
    machine.builder_starts = False
    with pytest.raises(EngineError, match="could not build") as caught:
        engine_into_bundle(bundle_path, BuildOptions())
    assert "nullptr" in str(caught.value)


def test_graph_and_spec_must_agree(machine: Machine) -> None:
    options = BuildOptions(buckets=(1,))
    with pytest.raises(EngineError, match="inputs are not those of the spec"):
        engine_from_onnx(onnx_generator(labelled=True), spec_of(), options)
    with pytest.raises(EngineError, match="'z' has a fixed batch") as caught:
        engine_from_onnx(onnx_generator(batch=2), spec_of(), options)
    assert "[2, 16]" in str(caught.value)
    with pytest.raises(EngineError, match="cannot read the bundle's graph"):
        engine_from_onnx(b"\x00\x01 no graph", spec_of(), options)


def test_readback_refuses_what_does_not_load(machine: Machine) -> None:
    from dataclasses import replace

    built = engine_from_onnx(onnx_generator(), spec_of(), BuildOptions(buckets=(1, 2)))
    readback_from_engine(built, spec_of(), onnx_generator())
    with pytest.raises(EngineError, match="does not load the engine that it just built"):
        readback_from_engine(replace(built, plan=b"junk"), spec_of(), onnx_generator())
    others = (Profile(1, 1, 1), Profile(3, 3, 3), Profile(1, 2, 2))
    with pytest.raises(EngineError, match="profile 1 has another range for 'z'"):
        readback_from_engine(replace(built, profiles=others), spec_of(), onnx_generator())


# --- what is missing --------------------------------------------------------------------------------------------------


def test_without_tensorrt(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed") as caught:
        engine_into_bundle(bundle_path, BuildOptions(), run=run_job)
    assert 'pip install "ganexport[trt]"' in str(caught.value)


def test_without_cuda_python(machine: Machine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependencyError, match="cuda-python is not installed") as caught:
        engine_into_bundle(bundle_path, BuildOptions())
    assert "ganexport[trt]" in str(caught.value)


@pytest.mark.parametrize("version", ["8.6.1", "10.11.0.33", "12.0.0.1"])
def test_version_outside_the_range(bundle_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(version=version).install(monkeypatch)
    with pytest.raises(MissingDependencyError, match="not a version that this release drives") as caught:
        engine_into_bundle(bundle_path, BuildOptions())
    assert version in str(caught.value)
    assert "10.12 or later, below 12" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"driver_cuda": 0}, "no NVIDIA driver"),
        ({"driver_cuda": 12040}, "driver is older than cuda-python"),
        ({"gpus": []}, "no NVIDIA GPU was found"),
    ],
)
def test_without_a_gpu(bundle_path: Path, changes: dict[str, object], problem: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    Machine(**changes).install(monkeypatch)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=problem):
        engine_into_bundle(bundle_path, BuildOptions())


def test_a_gpu_that_is_not_there(machine: Machine, bundle_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no GPU 3"):
        engine_into_bundle(bundle_path, BuildOptions(device=3))


def test_tf32_needs_ampere(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(gpus=[FakeGpu("Imaginary T4", 7, 5)]).install(monkeypatch)
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    with pytest.raises(DeviceError, match="Imaginary T4 has no TF32"):
        engine_into_bundle(bundle_path, BuildOptions(precision="tf32", buckets=(1,)))


def test_what_needs_no_gpu_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BundleError, match="no bundle at"):
        engine_into_bundle(tmp_path / "nothing.gan", BuildOptions())
    path = write_bundle(tmp_path / "tiny.gan").path
    with pytest.raises(OutputError, match="its folder does not exist"):
        engine_into_bundle(path, BuildOptions(timing_cache=tmp_path / "no" / "file"))
    (path / "model.onnx").write_bytes(b"edited")
    with pytest.raises(BundleIntegrityError, match=r"model\.onnx is truncated"):
        engine_into_bundle(path, BuildOptions())


def test_a_bundle_exported_anew_meanwhile_is_left_alone(machine: Machine, bundle_path: Path) -> None:
    def export_again(step: int) -> None:
        if step == 0:
            with bundle_changed(bundle_path) as draft:
                draft.add("model.onnx", onnx_generator(seed=1))

    machine.at_step = export_again
    with pytest.raises(BundleIntegrityError, match="exported anew while"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    assert [v.name for v in read_bundle(bundle_path).manifest.variants] == ["fp32"]


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_build_and_keeps_the_timings(machine: Machine, bundle_path: Path, tmp_path: Path) -> None:
    before = tree(bundle_path)
    reached: list[int] = []
    ended: list[int] = []

    def at_step(step: int) -> None:
        reached.append(step)
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            # The signal reaches the main thread, which waits; the step goes on meanwhile, as a kernel's timing would.
            time.sleep(0.5)
            ended.append(step)

    machine.at_step = at_step
    cache = tmp_path / "timings"
    phases: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        engine_into_bundle(
            bundle_path,
            BuildOptions(buckets=(1,), timing_cache=cache),
            on_progress=lambda fraction, phase: phases.append(phase),
        )
    assert phases[-1] == "stopping at the next step"
    assert reached == [0, 1]
    assert machine.builds == []
    assert tree(bundle_path) == before
    # The interrupt came out only when the build had really ended.
    assert len(ended) == 1
    machine.at_step = None
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=cache))
    assert machine.builds[0]["timed"] == 2  # of four nodes: two were timed before the interrupt


# --- the bundle is served ---------------------------------------------------------------------------------------------


def test_engine_serves_what_the_graph_serves(machine: Machine, bundle_path: Path) -> None:
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=BUCKETS))
    bundle = read_bundle(bundle_path)
    with TensorRTSession(bundle, bundle.variant(engine.variant.name), "cuda") as session:
        assert session.buckets == BUCKETS
        golden = bundle.golden()
        for batch in BUCKETS:
            out = empty_outputs(bundle.spec, batch)
            session.run({"z": np.ascontiguousarray(golden["input.z"][:batch])}, out)
            np.testing.assert_allclose(out["image"], golden["output.image"][:batch], atol=1e-6)


def test_proof_takes_a_batch_of_the_dynamic_profile() -> None:
    assert proof_batches((1, 8, 64)) == (1, 3, 8, 64)
    assert proof_batches((1, 3, 8)) == (1, 3, 5, 8)
    assert proof_batches((1, 2, 3)) == (1, 2, 3)
    assert proof_batches((1,)) == (1,)
    assert proof_batches((4,)) == (3, 4)


def test_to_trt_imports_no_torch_and_no_onnx(bundle_path: Path) -> None:
    code = (
        "import sys\n"
        "import ganexport.commands.to_trt, ganexport.tensorrt.into_bundle\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'cuda', 'gantrain', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
