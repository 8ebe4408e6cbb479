"""Small real bundles: ONNX generators made with onnx.helper, with golden samples computed by ONNX Runtime."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ganruntime import noise
from ganruntime.bundle import GoldenRecord, Variant, Verdict, bundle_written
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Scalar, TensorSpec

LATENT, SIZE, MAPS = 8, 8, 4
CLASSES = ("zero", "one", "two")
GOLDEN_SEED, GOLDEN_LATENTS = 5, 16


def small_spec(*, conditional: bool = False, name: str = "small") -> GeneratorSpec:
    inputs = [TensorSpec("z", "float32", (LATENT,), Latent())]
    if conditional:
        inputs.append(TensorSpec("label", "int64", (), Label(CLASSES)))
        inputs.append(TensorSpec("truncation", "float32", (), Scalar(1.0, (0.0, 1.0))))
    channels = 3 if conditional else 1
    return GeneratorSpec(name, tuple(inputs), (TensorSpec("image", "float32", (channels, SIZE, SIZE), Image()),))


def small_model(spec: GeneratorSpec, *, seed: int = 0, with_spec: bool = True) -> onnx.ModelProto:
    """Gemm, Reshape, ConvTranspose, Tanh; before them, where the spec has them, z · truncation + embedding[label]."""
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * 0.4).astype(np.float32), name)

    channels = spec.outputs[0].shape[0]
    initializers = [
        weights("dense", LATENT, MAPS * 16),
        weights("bias", MAPS * 16),
        weights("kernel", MAPS, channels, 4, 4),
        numpy_helper.from_array(np.array([-1, MAPS, 4, 4], np.int64), "folded"),
    ]
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", LATENT])]
    nodes, source = [], "z"
    if len(spec.inputs) > 1:
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
        inputs.append(helper.make_tensor_value_info("truncation", TensorProto.FLOAT, ["batch"]))
        initializers += [weights("classes", len(CLASSES), LATENT), numpy_helper.from_array(np.array([1]), "last")]
        nodes += [
            helper.make_node("Unsqueeze", ["truncation", "last"], ["psi"]),
            helper.make_node("Mul", ["z", "psi"], ["near"]),
            helper.make_node("Gather", ["classes", "label"], ["class"]),
            helper.make_node("Add", ["near", "class"], ["mixed"]),
        ]
        source = "mixed"
    nodes += [
        helper.make_node("Gemm", [source, "dense", "bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "folded"], ["map"]),
        helper.make_node("ConvTranspose", ["map", "kernel"], ["up"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["up"], ["image"]),
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, SIZE, SIZE])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if with_spec:
        helper.set_model_props(model, {"ganexport.spec": spec.dumps()})
    onnx.checker.check_model(model)
    return model


def npz_bytes(save: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def golden_bytes(spec: GeneratorSpec, model: bytes) -> bytes:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = noise.inputs(spec, GOLDEN_SEED, 0, GOLDEN_LATENTS)
    (image,) = session.run(["image"], inputs)
    positions = np.arange(image[0].size)
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    arrays |= {"output.image": image, "elements.image": image.reshape(len(image), -1), "positions.image": positions}
    return npz_bytes(**arrays)


def verdict(*, passed: bool = True, device: str = "cpu") -> Verdict:
    return Verdict(
        passed, "onnxruntime", device, {"onnxruntime": "1.0"}, "golden", 16, (1, 2, 3), 1e-5, {"max_abs": 1e-7}
    )


def write_small_bundle(path: Path, *, conditional: bool = False, verified: bool = True, seed: int = 0) -> Path:
    spec = small_spec(conditional=conditional)
    model = small_model(spec, seed=seed).SerializeToString()
    with bundle_written(path, spec) as draft:
        draft.add("model.onnx", model)
        draft.add("golden.npz", golden_bytes(spec, model))
        draft.golden = GoldenRecord("golden.npz", GOLDEN_SEED, GOLDEN_LATENTS, "onnxruntime")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (verdict(),) if verified else ()))
    return path


def with_file(path: Path, name: str, data: bytes) -> Path:
    """The bundle with other bytes in one file, and a manifest that vouches for them: what an attacker would send."""
    import hashlib

    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path
