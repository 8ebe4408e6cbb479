"""Engines for other GPUs and later releases: what reaches the builder, what is recorded, where they then run."""

from __future__ import annotations

import numpy as np
import pytest
from imaginary_machine import FakeGpu, Machine
from tensorrt_bundles import add_half

from ganexport.tensorrt.engine_record import release_of
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.sources import source_variant
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.errors import DeviceError, EngineError, InputError, ParityError
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.tensorrt import TensorRTSession

BUCKETS = (1, 4)


def images(bundle: Bundle, name: str) -> np.ndarray:
    out = empty_outputs(bundle.spec, 4)
    with TensorRTSession(bundle, bundle.variant(name)) as session:
        session.run({"z": np.ascontiguousarray(bundle.golden()["input.z"][:4])}, out)
    return np.asarray(out["image"])


@pytest.mark.parametrize(
    ("changes", "name", "header"),
    [
        ({}, "fp32.sm89.trt11.4+double", {"hardware": "NONE", "version_compatible": False, "refittable": False}),
        ({"hardware": "ampere+"}, "fp32.ampere+.trt11.4+double", {"hardware": "AMPERE_PLUS"}),
        ({"hardware": "same-cc"}, "fp32.sm89-any.trt11.4+double", {"hardware": "SAME_COMPUTE_CAPABILITY"}),
        ({"version_compatible": True}, "fp32.sm89.trt11.4+double-or-later", {"version_compatible": True}),
        ({"refittable": True}, "fp32.sm89.trt11.4+double.refit", {"refittable": True, "weights_missing": False}),
        ({"stripped": True}, "fp32.sm89.trt11.4+double.stripped", {"refittable": True, "weights_missing": True}),
        (
            {"hardware": "ampere+", "version_compatible": True, "stripped": True, "precision": "tf32"},
            "tf32.ampere+.trt11.4+double-or-later.stripped",
            {"hardware": "AMPERE_PLUS", "version_compatible": True, "weights_missing": True, "tf32": True},
        ),
    ],
)
def test_options_reach_the_builder_and_the_record(
    machine: Machine,
    bundle_path,
    changes: dict[str, object],
    name: str,
    header: dict[str, object],  # type: ignore[no-untyped-def]
) -> None:
    options = BuildOptions(buckets=BUCKETS, **changes)  # type: ignore[arg-type]
    engine = engine_into_bundle(bundle_path, options)
    (build,) = machine.builds
    assert {k: build[k] for k in header} == header
    bundle = read_bundle(bundle_path)
    assert engine.variant.name == name
    record = bundle.variant(name).engine
    assert record is not None
    assert record.hardware_compatibility == options.hardware
    assert record.version_compatible == options.version_compatible
    assert (record.refittable, record.stripped) == (options.refittable, options.stripped)
    assert record.graph_sha256 == bundle.manifest.files["model.onnx"].sha256
    assert len(record.graph_key) == 64
    # The proof ran the engine as a session loads it, a stripped one with the graph's weights.
    assert engine.finding.verdict.passed
    np.testing.assert_allclose(images(bundle, name), bundle.golden()["output.image"][:4], atol=1e-2)


def test_all_kinds_lie_side_by_side(machine: Machine, bundle_path) -> None:  # type: ignore[no-untyped-def]
    for changes in ({}, {"stripped": True}, {"hardware": "ampere+"}, {"version_compatible": True}):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), **changes))  # type: ignore[arg-type]
    assert len(read_bundle(bundle_path).manifest.variants) == 5


def test_an_engine_for_later_releases_runs_on_them(bundle_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    Machine(version="10.16.1.11+double").install(monkeypatch)
    options = BuildOptions(buckets=BUCKETS, version_compatible=True, hardware="ampere+")
    name = engine_into_bundle(bundle_path, options).variant.name
    plain = engine_into_bundle(bundle_path, BuildOptions(buckets=BUCKETS)).variant.name
    bundle = read_bundle(bundle_path)
    for version, gpu in (("10.16.2.1+double", (8, 9)), ("11.4.0.106+double", (9, 0)), ("11.0.0.1+double", (8, 0))):
        machine = Machine(version=version, gpus=[FakeGpu("Another", *gpu)]).install(monkeypatch)
        np.testing.assert_allclose(images(bundle, name), bundle.golden()["output.image"][:4], atol=1e-5)
        assert machine.deserialised == 1
        with pytest.raises(EngineError, match="was built by another TensorRT"):
            images(bundle, plain)
    Machine(version="10.15.9.9+double").install(monkeypatch)
    with pytest.raises(EngineError, match="was built by another TensorRT") as caught:
        images(bundle, name)
    assert "TensorRT 10.16.1.11+double and later releases of TensorRT 10 and 11" in str(caught.value)
    assert "--hardware-compatible ampere+ --version-compatible" in str(caught.value)


def test_code_in_a_plan_is_allowed_for_version_compatible_engines_only(
    machine: Machine,
    bundle_path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    name = engine_into_bundle(bundle_path, BuildOptions(buckets=BUCKETS, version_compatible=True)).variant.name
    bundle = read_bundle(bundle_path)
    monkeypatch.setattr(
        "ganruntime.sessions.tensorrt_engine.runtime_for", lambda allowed: __import__("tensorrt").Runtime(_logger())
    )
    with pytest.raises(EngineError, match="does not load the engine") as caught:
        images(bundle, name)
    assert "engineHostCodeAllowed is false" in str(caught.value)


def _logger() -> object:
    from ganruntime.sessions.tensorrt_library import shared_logger

    return shared_logger()


def test_what_is_not_built_as_asked_is_found(machine: Machine, bundle_path) -> None:  # type: ignore[no-untyped-def]
    machine.ignores_hardware_level = True
    with pytest.raises(EngineError, match="another hardware compatibility than was asked") as caught:
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), hardware="ampere+"))
    assert "AMPERE_PLUS" in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "hardware", "fits"),
    [((7, 5), "ampere+", False), ((8, 0), "ampere+", True), ((7, 5), "same-cc", True), ((7, 0), "same-cc", False)],
)
def test_old_gpus_cannot_build_them(
    bundle_path,
    capability: tuple[int, int],
    hardware: str,
    fits: bool,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    Machine(gpus=[FakeGpu("Old", *capability)]).install(monkeypatch)
    options = BuildOptions(buckets=(1,), hardware=hardware)
    if fits:
        engine_into_bundle(bundle_path, options)
    else:
        with pytest.raises(DeviceError, match=f"--hardware-compatible {hardware.replace('+', '.')}: Old cannot build"):
            engine_into_bundle(bundle_path, options)


def test_levels_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="--hardware-compatible is not a level"):
        BuildOptions(hardware="turing+")
    assert BuildOptions(stripped=True).refittable


def test_the_command_of_such_an_engine() -> None:
    options = BuildOptions(buckets=(1,), hardware="ampere+", version_compatible=True, stripped=True)
    assert options.command("a.gan").endswith("--hardware-compatible ampere+ --version-compatible --strip")
    assert BuildOptions(buckets=(1,), refittable=True).command("a.gan").endswith("--batch 1 --refittable")


# --- graphs of other precisions ---------------------------------------------------------------------------------------


def test_fp16_is_built_from_the_fp16_graph(machine: Machine, bundle_path) -> None:  # type: ignore[no-untyped-def]
    add_half(bundle_path)
    engine = engine_into_bundle(bundle_path, BuildOptions(precision="fp16", buckets=BUCKETS))
    assert machine.builds[0]["tf32"] is False
    assert engine.variant.name == f"fp16.sm89.trt{release_of(machine.version)}"
    assert engine.readback.counts()["fp16"] >= 2
    assert engine.finding.verdict.errors["floor_psnr_db"] == 55.0
    bundle = read_bundle(bundle_path)
    record = bundle.variant(engine.variant.name).engine
    assert record is not None
    assert record.graph_sha256 == bundle.manifest.files["model.fp16.onnx"].sha256
    np.testing.assert_allclose(images(bundle, engine.variant.name), bundle.golden()["output.image"][:4], atol=1e-2)


def test_an_fp16_engine_is_held_to_its_floors(machine: Machine, bundle_path) -> None:  # type: ignore[no-untyped-def]
    add_half(bundle_path)
    machine.wrong_at_batch = 4
    with pytest.raises(ParityError, match="not added to the bundle") as caught:
        engine_into_bundle(bundle_path, BuildOptions(precision="fp16", buckets=BUCKETS))
    assert "PSNR 55 dB or more" in str(caught.value)


def test_a_precision_that_is_not_there_names_those_that_are(machine: Machine, bundle_path) -> None:  # type: ignore[no-untyped-def]
    add_half(bundle_path)
    with pytest.raises(InputError, match="has no int8 graph to build an engine from") as caught:
        engine_into_bundle(bundle_path, BuildOptions(precision="int8"))
    assert "got:      fp32 (fp32), fp16 (fp16)" in str(caught.value)
    assert "int8-symmetric" in str(caught.value)
    bundle = read_bundle(bundle_path)
    assert source_variant(bundle, "fp16").file == "model.fp16.onnx"
