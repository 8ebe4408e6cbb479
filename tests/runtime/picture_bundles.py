"""A small real bundle whose generator takes what no seed gives: a photo of any even size, points, words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper
from small_bundles import npz_bytes, verdict

from ganruntime.bundle import GoldenRecord, Variant, bundle_written
from ganruntime.spec import GeneratorSpec, Image, Keypoints, Label, Latent, Scalar, TensorSpec, Tokens

SPEC = GeneratorSpec(
    "painter",
    (
        TensorSpec("photo", "float32", (3, None, None), Image(multiple=2, minimum=4)),
        TensorSpec("points", "float32", (2, 2), Keypoints()),
        TensorSpec("words", "int64", (4,), Tokens(10, 0)),
        TensorSpec("strength", "float32", (), Scalar(0.5, (0.0, 1.0))),
        TensorSpec("class", "int64", (), Label(("day", "night"))),
        TensorSpec("z", "float32", (2,), Latent()),
    ),
    (TensorSpec("image", "float32", (3, None, None), Image(multiple=2)),),
)


def write_painter(path: Path, spec: GeneratorSpec = SPEC) -> Path:
    """image = photo · strength + (mean of points, words, class and z) / 20, every input felt in every pixel."""
    nodes, inputs = [], []
    for tensor in spec.inputs:
        sides = ["batch", *(f"side{i}" if d is None else d for i, d in enumerate(tensor.shape))]
        kind = TensorProto.INT64 if tensor.dtype == "int64" else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(tensor.name, kind, sides))
        if tensor.name != "photo":
            nodes += [
                helper.make_node("Cast", [tensor.name], [f"{tensor.name}.float"], to=TensorProto.FLOAT),
                helper.make_node("Reshape", [f"{tensor.name}.float", "flat"], [f"{tensor.name}.flat"]),
                helper.make_node("ReduceMean", [f"{tensor.name}.flat", "axes"], [f"{tensor.name}.mean"], keepdims=1),
                helper.make_node("Unsqueeze", [f"{tensor.name}.mean", "planes"], [f"{tensor.name}.one"]),
            ]
    others = [f"{t.name}.one" for t in spec.inputs if t.name not in ("photo", "strength")]
    nodes += [
        helper.make_node("Sum", others, ["sum"]),
        helper.make_node("Mul", ["sum", "twentieth"], ["shift"]),
        helper.make_node("Mul", ["photo", "strength.one"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["image"]),
    ]
    constants = {
        "flat": np.array([0, -1], np.int64),
        "axes": np.array([1], np.int64),
        "planes": np.array([2, 3], np.int64),
        "twentieth": np.array(0.05, np.float32),
    }
    output = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "painter", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"ganexport.spec": spec.dumps()})
    checker.check_model(model)
    with bundle_written(path, spec) as draft:
        draft.add("model.onnx", model.SerializeToString())
        draft.add("golden.npz", npz_bytes(photo=np.zeros(1, np.float32)))
        draft.golden = GoldenRecord("golden.npz", 0, 1, "onnxruntime")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (verdict(),)))
    return path


def picture(seed: int, height: int = 8, width: int = 6, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(pixels: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path
