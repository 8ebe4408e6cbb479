"""The boundary, proven where it matters: the wheel and one backend in an empty environment, and no torch there."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest

from ganexport.golden import golden_from_reference
from ganruntime.bundle import GoldenRecord, Variant, Verdict, bundle_written
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec
from gantrain import previews

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the project's wheel and the cpu extra: what a production service installs."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("ganexport-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    install = ["install", "--constraint", str(ROOT / "constraints.txt"), f"{wheel}[cpu]"]
    subprocess.run([*pip[:3], "--python", str(python), *pip[3:], *install], check=True)
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """image = tanh(z W) as 3 × 4 × 4, in float32."""
    spec = GeneratorSpec(
        "bare",
        (TensorSpec("z", "float32", (8,), Latent()),),
        (TensorSpec("image", "float32", (3, 4, 4), Image()),),
    )
    weights = np.random.default_rng(0).normal(size=(8, 48)).astype(np.float32)
    graph = oh.make_graph(
        [
            oh.make_node("MatMul", ["z", "w"], ["a"]),
            oh.make_node("Tanh", ["a"], ["b"]),
            oh.make_node("Reshape", ["b", "shape"], ["image"]),
        ],
        "bare",
        [oh.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 8])],
        [oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.array([-1, 3, 4, 4]), "shape")],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=10)

    def evaluate(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": np.tanh(inputs["z"] @ weights).reshape(-1, 3, 4, 4)}

    golden = golden_from_reference(spec, evaluate, seed=5, latents=64)
    verdict = Verdict(True, "onnxruntime", "cpu", {}, "NumPy", 64, (1,), 1e-5, {})
    path = tmp_path_factory.mktemp("bundle") / "bare.gan"
    with bundle_written(path, spec) as draft:
        draft.add("model.onnx", model.SerializeToString())
        draft.add("golden.npz", golden.to_bytes())
        draft.golden = GoldenRecord("golden.npz", 5, 64, "NumPy")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (verdict,)))
    return path


def run(python: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    # -I: neither the working directory nor variables of this environment may lend it what it lacks.
    done = subprocess.run([str(python), "-I", *arguments], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_images_come_from_the_base_distribution_and_one_backend(bare_python: Path, bundle: Path) -> None:
    script = f"""
import importlib.util, json, sys
import ganruntime
for name in ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "matplotlib", "tensorrt"):
    assert importlib.util.find_spec(name) is None, name
images = ganruntime.load({str(bundle)!r}).generate(5, seed=5)
golden = ganruntime.load({str(bundle)!r}).outputs({{"z": __import__("numpy").zeros((2, 8), "float32")}})
print(json.dumps({{"shape": images.shape, "images": images.tolist(), "zero": float(abs(golden["image"]).max())}}))
"""
    found = json.loads(run(bare_python, "-c", script).stdout)
    assert found["shape"] == [5, 4, 4, 3]
    assert found["zero"] == 0.0
    with np.load(bundle / "golden.npz") as golden:
        expected = np.rint((golden["output.image"][:5].transpose(0, 2, 3, 1) + 1) * 127.5)
    assert np.abs(np.array(found["images"]) - expected).max() <= 1


def test_the_command_generates_verifies_and_inspects_there(bare_python: Path, bundle: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    run(bare_python, "-m", "ganexport", "generate", str(bundle), "-n", "9", "-o", str(sheet))
    assert sheet.stat().st_size > 0
    assert "everything holds" in run(bare_python, "-m", "ganexport", "verify", str(bundle)).stdout
    assert "verified" in run(bare_python, "-m", "ganexport", "inspect", str(bundle)).stdout


def test_the_previews_of_the_recipes_are_in_the_wheel(bare_python: Path, tmp_path: Path) -> None:
    run(bare_python, "-m", "ganexport", "recipes", "--pictures", str(tmp_path / "previews"))
    packaged = {file.stem.replace("_", "-"): file.read_bytes() for file in Path(previews.__file__).parent.glob("*.png")}
    assert {file.stem: file.read_bytes() for file in (tmp_path / "previews").iterdir()} == packaged
    assert "cgan" in packaged


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("to-onnx", "run", "-o", "x.gan"), "ganexport[export]"),
        (("train", "dcgan", "--data", "digits", "--out", "run"), "ganexport[train]"),
        (("to-trt", "BUNDLE"), "ganexport[trt]"),
        (("bench", "BUNDLE", "--against", "run"), "ganexport[export]"),
        (("verify", "BUNDLE", "--backend", "openvino"), "ganexport[openvino]"),
        (("generate", "BUNDLE", "--backend", "openvino", "-o", "x.png"), "ganexport[openvino]"),
        (("demo",), "ganexport["),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    bare_python: Path, bundle: Path, arguments: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    words = [str(bundle) if a == "BUNDLE" else a for a in arguments]
    done = run(bare_python, "-m", "ganexport", *words, code=1)
    assert "Traceback" not in done.stderr
    assert extra in done.stderr
