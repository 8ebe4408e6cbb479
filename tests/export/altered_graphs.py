"""Bundles whose graph was exchanged for another, with a manifest that vouches for it: what only a verifier can find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


def with_other_graph(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Changes model.onnx, and the manifest's hash and size of it."""
    model = onnx.load_from_string((bundle / "model.onnx").read_bytes())
    change(model)
    data = model.SerializeToString()
    (bundle / "model.onnx").unlink()  # the file may be a hard link
    (bundle / "model.onnx").write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def perturb_one_weight(model: onnx.ModelProto) -> None:
    """One of some thousand weights by a thousandth of the largest."""
    weights = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = numpy_helper.to_array(weights).copy()
    array.flat[array.size // 2] += np.abs(array).max() * np.float32(1e-3)
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))


def round_weights_to_half(model: onnx.ModelProto) -> None:
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(weights).astype(np.float16).astype(np.float32)
            weights.CopyFrom(numpy_helper.from_array(array, weights.name))


def _before_the_output(model: onnx.ModelProto, nodes: list[onnx.NodeProto], *initializers: onnx.TensorProto) -> None:
    """Puts nodes between what gave `image` (now `drawn`) and `image`."""
    for node in model.graph.node:
        node.output[:] = ["drawn" if name == "image" else name for name in node.output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)


def transpose_images(model: onnx.ModelProto) -> None:
    _before_the_output(model, [helper.make_node("Transpose", ["drawn"], ["image"], perm=[0, 1, 3, 2])])


def unit_range(model: onnx.ModelProto) -> None:
    half = numpy_helper.from_array(np.float32(0.5), "half")
    nodes = [helper.make_node("Mul", ["drawn", "half"], ["h"]), helper.make_node("Add", ["h", "half"], ["image"])]
    _before_the_output(model, nodes, half)


def collapse(model: onnx.ModelProto) -> None:
    """Every image is the mean of its batch."""
    axes = numpy_helper.from_array(np.array([0], np.int64), "first_axis")
    zero = numpy_helper.from_array(np.float32(0), "nothing")
    nodes = [
        helper.make_node("ReduceMean", ["drawn", "first_axis"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["drawn", "nothing"], ["shape_only"]),
        helper.make_node("Add", ["shape_only", "mean"], ["image"]),
    ]
    _before_the_output(model, nodes, axes, zero)


def not_a_number_for_rare_latents(model: onnx.ModelProto) -> None:
    """0/0 where the first number of a latent is over 2.8: some two or three images in a thousand."""
    initializers = [
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.float32(2.8), "rare"),
        numpy_helper.from_array(np.float32(np.nan), "nan"),
        numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "per_image"),
    ]
    nodes = [
        helper.make_node("Gather", ["z", "first"], ["z0"], axis=1),
        helper.make_node("Greater", ["z0", "rare"], ["is_rare"]),
        helper.make_node("Reshape", ["is_rare", "per_image"], ["mask"]),
        helper.make_node("Where", ["mask", "nan", "drawn"], ["image"]),
    ]
    _before_the_output(model, nodes, *initializers)


def wrong_in_large_batches(model: onnx.ModelProto) -> None:
    """Adds 1e-4 where the batch is over 200: what a miscompiled kernel for large batches would do."""
    initializers = [
        numpy_helper.from_array(np.int64(200), "large"),
        numpy_helper.from_array(np.float32(1e-4), "off"),
        numpy_helper.from_array(np.int64(0), "first"),
    ]
    nodes = [
        helper.make_node("Shape", ["z"], ["shape_of_z"]),
        helper.make_node("Gather", ["shape_of_z", "first"], ["batch_size"]),
        helper.make_node("Greater", ["batch_size", "large"], ["is_large"]),
        helper.make_node("Cast", ["is_large"], ["factor"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["factor", "off"], ["error"]),
        helper.make_node("Add", ["drawn", "error"], ["image"]),
    ]
    _before_the_output(model, nodes, *initializers)


def latents_off_by_one(model: onnx.ModelProto) -> None:
    """Image i is drawn from latent i + 1 of its batch."""
    initializers = [
        numpy_helper.from_array(np.array([0], np.int64), "front"),
        numpy_helper.from_array(np.array([1], np.int64), "next"),
        numpy_helper.from_array(np.array([2**60], np.int64), "end"),
    ]
    model.graph.initializer.extend(initializers)
    for node in model.graph.node:
        node.input[:] = ["rolled" if name == "z" else name for name in node.input]
    for i, node in enumerate(
        [
            helper.make_node("Slice", ["z", "next", "end", "front"], ["tail"]),
            helper.make_node("Slice", ["z", "front", "next", "front"], ["head"]),
            helper.make_node("Concat", ["tail", "head"], ["rolled"], axis=0),
        ]
    ):
        model.graph.node.insert(i, node)


def bake_batch(model: onnx.ModelProto) -> None:
    """A Reshape to two latents of 16: runs in batches of 2, and in no others."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 16], np.int64), "baked"))
    for node in model.graph.node:
        node.input[:] = ["z_of_two" if name == "z" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Reshape", ["z", "baked"], ["z_of_two"]))


ALTERATIONS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "one weight": perturb_one_weight,
    "half-precision weights": round_weights_to_half,
    "transposed": transpose_images,
    "unit range": unit_range,
    "collapsed": collapse,
    "rarely NaN": not_a_number_for_rare_latents,
    "large batches": wrong_in_large_batches,
    "latents off by one": latents_off_by_one,
}
