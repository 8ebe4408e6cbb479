"""`ganexport to-trt` as a person types it: what it prints, its exit codes, its errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imaginary_machine import Machine
from tensorrt_bundles import sized_spec, write_sized_bundle
from to_trt_command import run

from ganexport.probes import probe_inputs
from ganexport.tensorrt.job import run_job
from ganruntime.bundle import read_bundle
from ganruntime.errors import InputError
from ganruntime.generator import Generator
from ganruntime.sizes import spec_at


def test_it_builds_and_says_what_it_did(
    machine: Machine, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "timings"
    options = ("--precision", "tf32", "--batch", "8,1", "--timing-cache", cache, "--workspace-mib", 64)
    code, out, err = run(capsys, bundle_path, *options, "--optimization-level", 2)
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [first for first, _ in lines] == ["engine", "built", "profiles", "layers", "unverified", "runs"]
    assert "engines/tiny.tf32.sm89.trt11.4+double.plan" in out
    assert "TensorRT 11.4.0.106+double on Imaginary L4 (compute capability 8.9, driver unknown)" in out
    assert "2 fp32, 2 tf32" in out
    assert "40 latents at batches 1,3,8: largest error" in out
    (build,) = machine.builds
    assert (build["tf32"], build["workspace"], build["level"]) == (True, 64 * 2**20, 2)
    assert cache.is_file()
    (variant,) = (v for v in read_bundle(bundle_path).manifest.variants if v.engine)
    assert variant.engine is not None
    assert variant.engine.batches == (1, 8)


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("--batch", "0"), 1, "'0' is not a batch size"),
        (("--batch", "many"), 1, "'many' is not a batch size"),
        (("--batch", "8,8"), 1, "8 stands there twice"),
        (("--precision", "fp8"), 2, "'fp8' is not one of 'fp32', 'tf32'"),
        (("--precision", "fp16"), 1, "has no fp16 graph to build an engine from"),
        (("--target", "11.4"), 2, "--target goes with --check"),
        (("--check", "--strip"), 2, "--strip does not go with --check: nothing is built"),
        (("--check", "--device", "1"), 2, "--device does not go with --check"),
        (("--check", "--timing-cache", "x"), 2, "--timing-cache does not go with --check"),
        (("--check", "--engines-from", "x.gan"), 2, "--engines-from goes with --refit"),
        (("--refit", "--size", "8x8"), 2, "--size does not go with --refit: the engine keeps what it was built with"),
        (("--refit", "--target", "11.4"), 2, "--target goes with --check"),
        (("--size", "8"), 1, "'8' is not a height and a width"),
        (("--size", "8x8"), 1, "takes and gives one size only"),
        (("--device", "-1"), 1, "--device is not the index of a GPU"),
        (("--optimization-level", "9"), 1, "expected: 0 to 5"),
        (("--workspace-mib", "0"), 1, "--workspace-mib is not positive"),
        (("--timing-cache", "no/such/folder/file"), 1, "mkdir -p no/such/folder"),
    ],
)
def test_wrong_input_is_told_before_anything_is_loaded(
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    problem: str,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found, out, err = run(capsys, bundle_path, *words)
    assert (found, out) == (code, "")
    assert problem in err


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path / "nothing.gan")
    assert code == 1
    assert "no bundle at" in err
    assert "ganexport to-onnx" in err


def test_without_tensorrt_it_names_the_extra(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("ganexport.tensorrt.into_bundle.run_isolated", run_job)
    code, _, err = run(capsys, bundle_path)
    assert code == 1
    assert 'pip install "ganexport[trt]"' in err
    assert "NVIDIA's package index" in err


def test_without_a_gpu_it_says_so(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(driver_cuda=0).install(monkeypatch)
    code, _, err = run(capsys, bundle_path)
    assert code == 1
    assert "no NVIDIA driver was found" in err
    assert "nvidia-smi" in err


def test_ctrl_c_ends_with_130(
    machine: Machine, bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ganexport.tensorrt.into_bundle.run_isolated", interrupted)
    code, _, err = run(capsys, bundle_path)
    assert code == 130
    assert "stopped" in err


def test_help_has_an_example() -> None:
    words = [sys.executable, "-m", "ganexport", "to-trt", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "ganexport to-trt digits.gan --precision tf32" in shown


@pytest.mark.tensorrt
def test_real_tensorrt_builds_proves_and_serves(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine with TensorRT and a GPU: both precisions, proven against the golden samples, then served."""
    trt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    cudart = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    error, count = cudart.cudaGetDeviceCount()
    if int(error) or not count:
        pytest.skip("no NVIDIA GPU")
    import ganruntime

    for precision in ("fp32", "tf32"):
        code, out, err = run(capsys, bundle_path, "--precision", precision, "--batch", "1,4,16")
        assert code == 0, err
        assert trt.__version__ in out
    variants = [v for v in read_bundle(bundle_path).manifest.variants if v.engine]
    assert [v.status for v in variants] == ["verified", "verified"]
    graph = ganruntime.load(bundle_path, device="cpu", backend="onnxruntime", precision="fp32", threads=1)
    with ganruntime.load(bundle_path, backend="tensorrt", precision="fp32") as generator:
        assert generator.describe()["cuda_graphs"] == {"used": ["1", "4", "16"], "not_used": {}}
        images = generator.generate(85, seed=1)  # several pieces, which overlap
        np.testing.assert_allclose(images.astype(int), graph.generate(85, seed=1).astype(int), atol=1)
        with Generator(generator.session.for_worker()) as worker:  # type: ignore[attr-defined]
            np.testing.assert_array_equal(worker.generate(85, seed=1), images)
    graph.close()


@pytest.mark.tensorrt
def test_real_tensorrt_takes_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine with TensorRT and a GPU: tuned sizes, others in the range, and one that is too large."""
    pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    cudart = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    error, count = cudart.cudaGetDeviceCount()
    if int(error) or not count:
        pytest.skip("no NVIDIA GPU")
    import ganruntime

    path = write_sized_bundle(tmp_path / "sized.gan").path
    code, _, err = run(capsys, path, "--batch", "1,4", "--size", "32x48,64x64")
    assert code == 0, err
    graph = ganruntime.load(path, device="cpu", backend="onnxruntime", precision="fp32", threads=1)
    with ganruntime.load(path, backend="tensorrt", precision="fp32") as generator:
        for size in ((64, 64), (32, 48), (24, 60)):
            given = probe_inputs(spec_at(sized_spec(), size), 1, 0, 9)
            images = generator.generate(9, **given)
            np.testing.assert_allclose(images.astype(int), graph.generate(9, **given).astype(int), atol=1)
        with pytest.raises(InputError, match="takes no images of this size"):
            generator.generate(1, **probe_inputs(spec_at(sized_spec(), (68, 64)), 1, 0, 1))
    graph.close()
