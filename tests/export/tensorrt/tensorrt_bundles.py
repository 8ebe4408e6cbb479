"""Small real bundles for the TensorRT tests: an ONNX generator made with onnx.helper, and its golden samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ganexport.golden import GoldenSamples, golden_from_reference
from ganruntime.bundle import Bundle, GoldenRecord, Variant, bundle_changed, bundle_written, read_bundle
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, TensorSpec

LATENT, CLASSES, CHANNELS, SIZE = 16, ("zero", "one", "two"), 8, 8
GOLDEN_LATENTS = 40


def spec_of(*, labelled: bool = False, name: str = "tiny") -> GeneratorSpec:
    inputs = [TensorSpec("z", "float32", (LATENT,), Latent())]
    if labelled:
        inputs.append(TensorSpec("label", "int64", (), Label(CLASSES)))
    return GeneratorSpec(name, tuple(inputs), (TensorSpec("image", "float32", (1, SIZE, SIZE), Image()),))


def onnx_generator(*, labelled: bool = False, batch: int | str = "batch", seed: int = 0) -> bytes:
    """Gemm, Reshape, ConvTranspose, Tanh: [N, 16] (and labels [N]) -> [N, 1, 8, 8]."""
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(np.float32), name)

    initializers = [
        weights("dense", LATENT, CHANNELS * 16),
        weights("bias", CHANNELS * 16),
        numpy_helper.from_array(np.array([-1, CHANNELS, 4, 4], np.int64), "shape"),
        weights("kernel", CHANNELS, 1, 4, 4),
    ]
    nodes = []
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, LATENT])]
    source = "z"
    if labelled:
        initializers.append(weights("embedding", len(CLASSES), LATENT))
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, [batch]))
        nodes += [
            helper.make_node("Gather", ["embedding", "label"], ["embedded"], name="embed"),
            helper.make_node("Add", ["z", "embedded"], ["mixed"], name="mix"),
        ]
        source = "mixed"
    nodes += [
        helper.make_node("Gemm", [source, "dense", "bias"], ["flat"], name="project"),
        helper.make_node("Reshape", ["flat", "shape"], ["map"], name="fold"),
        helper.make_node("ConvTranspose", ["map", "kernel"], ["up"], name="grow", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["up"], ["image"], name="squash"),
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIZE, SIZE])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def half_generator(*, seed: int = 0, half: tuple[str, ...] = ("Gemm", "ConvTranspose")) -> bytes:
    """The same with the nodes named in `half` in float16: cast into it before, and out of it after them."""
    model = onnx.load_from_string(onnx_generator(seed=seed))
    nodes, weights = [], {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in half:
            nodes.append(node)
            continue
        inner = [f"{name}_half" for name in node.input]
        for name, cast in zip(node.input, inner, strict=True):
            if name in weights:
                weights[cast] = numpy_helper.from_array(
                    numpy_helper.to_array(weights.pop(name)).astype(np.float16), cast
                )
            else:
                nodes.append(helper.make_node("Cast", [name], [cast], name=f"{node.name}_in", to=TensorProto.FLOAT16))
        out = node.output[0]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        nodes.append(helper.make_node(node.op_type, inner, [f"{out}_half"], name=node.name, **attributes))
        nodes.append(helper.make_node("Cast", [f"{out}_half"], [out], name=f"{node.name}_out", to=TensorProto.FLOAT))
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights.values())
    onnx.checker.check_model(model)
    return model.SerializeToString()


def add_half(path: Path) -> None:
    """Puts an fp16 graph beside the fp32 one."""
    with bundle_changed(path) as draft:
        draft.add("model.fp16.onnx", half_generator())
        draft.put_variant(Variant("fp16", "fp16", "onnx", "model.fp16.onnx"))


def write_bundle(path: Path, *, labelled: bool = False, name: str = "tiny", seed: int = 0) -> Bundle:
    """A bundle as the export stage writes one: the graph, and golden samples of the graph on the CPU."""
    spec = spec_of(labelled=labelled, name=name)
    model = onnx_generator(labelled=labelled, seed=seed)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def evaluate(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": session.run(["image"], inputs)[0]}

    return _written(path, spec, model, golden_from_reference(spec, evaluate, latents=GOLDEN_LATENTS))


def sized_spec() -> GeneratorSpec:
    """A photo whose sides are multiples of 4 from 8 on, and a hint half as large -> an image twice as large."""
    photo = TensorSpec("photo", "float32", (1, None, None), Image(multiple=4, minimum=8))
    hint = TensorSpec("hint", "float32", (1, None, None), Image(multiple=2, minimum=4))
    large = TensorSpec("image", "float32", (1, None, None), Image(multiple=8))
    return GeneratorSpec("sized", (photo, hint), (large,))


def sized_generator(*, fixed: int | None = None) -> bytes:
    """Conv of the photo to half its size, the hint added, ConvTranspose twice. fixed: a height of the photo."""
    random = np.random.default_rng(3)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(np.float32), name)

    def value(name: str, height: int | str, width: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, height, width])

    nodes = [
        helper.make_node("Conv", ["photo", "down"], ["half"], name="shrink", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["half", "hint"], ["both"], name="mix"),
        helper.make_node("ConvTranspose", ["both", "up"], ["same"], name="grow", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["same", "more"], ["large"], name="again", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Tanh", ["large"], ["image"], name="squash"),
    ]
    graph = helper.make_graph(
        nodes,
        "sized",
        [value("photo", fixed or "h", "w"), value("hint", fixed // 2 if fixed else "h2", "w2")],
        [value("image", 2 * fixed if fixed else "H", "W")],
        [weights("down", 4, 1, 4, 4), weights("up", 4, 4, 4, 4), weights("more", 4, 1, 4, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_sized_bundle(path: Path) -> Bundle:
    """A bundle of an image-to-image generator whose height and width vary."""
    spec, model = sized_spec(), sized_generator()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def evaluate(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": session.run(["image"], inputs)[0]}

    return _written(path, spec, model, golden_from_reference(spec, evaluate, latents=8))


def _written(path: Path, spec: GeneratorSpec, model: bytes, golden: GoldenSamples) -> Bundle:
    with bundle_written(path, spec) as draft:
        draft.add("model.onnx", model)
        draft.add("golden.npz", golden.to_bytes())
        draft.golden = GoldenRecord("golden.npz", 0x676F6C64, golden.latents, "onnxruntime")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx"))
    return read_bundle(path)
