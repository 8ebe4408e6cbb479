"""Engines of every rung, from the graphs that `ganexport precision` makes: read back, held to the floors, served."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from imaginary_machine import Machine
from tensorrt_bundles import write_bundle

import ganruntime
from ganexport.precision.rungs import rungs_into_bundle
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.operator_support import version_from_text
from ganexport.tensorrt.options import PRECISIONS, BuildOptions
from ganexport.tensorrt.preflight import preflight_from_onnx
from ganexport.tensorrt.sources import source_variant
from ganruntime.bundle import read_bundle
from ganruntime.errors import EngineError

FLOOR_DB = 30.0


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_bundle(tmp_path_factory.mktemp("rungs") / "tiny.gan").path
    made = ["fp16", "bf16", "int8-symmetric"]
    rungs_into_bundle(path, made, latents=64, calibration_latents=64, floors={"psnr_db": FLOOR_DB})
    return path


@pytest.fixture
def path(rungs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rungs, tmp_path / "tiny.gan"))


@pytest.mark.parametrize("version", ["10.12.0.36+double", "11.4.0.106+double"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_rung_is_built_proven_and_served(
    precision: str, version: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(version=version).install(monkeypatch)
    engine = engine_into_bundle(path, BuildOptions(precision=precision, buckets=(1, 4)))
    assert machine.builds[0]["tf32"] == (precision == "tf32")
    heavy = [layer for layer in engine.readback.layers if layer.products]
    assert precision in {p for layer in heavy for p in layer.precisions}
    assert all(not layer.differs(precision == "tf32") for layer in engine.readback.layers)
    verdict = engine.finding.verdict
    assert verdict.passed
    if precision in ("fp16", "bf16", "int8"):
        assert verdict.errors["psnr_db"] >= FLOOR_DB
    bundle = read_bundle(path)
    source = bundle.graph(source_variant(bundle, engine.built.options.graph_precision))
    assert preflight_from_onnx(source, version_from_text(version.partition("+")[0])).ok
    with ganruntime.load(bundle, backend="tensorrt", precision=engine.variant.name) as generator:
        images = generator.generate(7, seed=2)
        assert generator.describe()["cuda_graphs"]["used"] == ["1", "4"]
    with ganruntime.load(bundle, device="cpu", backend="onnxruntime", precision="fp32", threads=1) as graph:
        difference = images.astype(int) - graph.generate(7, seed=2).astype(int)
    assert 20 * np.log10(255 / max(1e-9, float(np.sqrt((difference**2).mean())))) >= FLOOR_DB - 3
    machine.check_is_clean()


def test_int8_that_came_to_nothing_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(loses_int8=True).install(monkeypatch)
    with pytest.raises(EngineError, match="in another precision than int8") as caught:
        engine_into_bundle(path, BuildOptions(precision="int8", buckets=(1,)))
    assert "asked int8" in str(caught.value)
