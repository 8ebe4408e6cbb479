"""Values or pixels: which variant a load takes, and that both draw the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_bundles import small_model, verdict, write_small_bundle

from ganruntime.bundle import Variant, bundle_changed
from ganruntime.errors import InputError
from ganruntime.generator import candidates, load
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector, pixel_spec


def pixel_model(spec: GeneratorSpec) -> onnx.ModelProto:
    """The small generator with a head written by hand, as `docs/bundle-format.md` says it."""
    model = small_model(spec)
    graph = model.graph
    graph.node[-1].output[0] = "values"
    constants = {"gain": 127.5, "black": 0.0, "white": 255.0}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), k) for k, v in constants.items())
    graph.node.extend(
        [
            helper.make_node("Mul", ["values", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "gain"], ["shifted"]),
            helper.make_node("Round", ["shifted"], ["rounded"]),
            helper.make_node("Clip", ["rounded", "black", "white"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], ["planes"], to=TensorProto.UINT8),
            helper.make_node("Transpose", ["planes"], ["image"], perm=[0, 2, 3, 1]),
        ]
    )
    del graph.output[:]
    shape = pixel_spec(spec).outputs[0].shape
    graph.output.append(helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape]))
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def both(tmp_path: Path) -> Path:
    path = write_small_bundle(tmp_path / "both.gan", conditional=True)
    with bundle_changed(path) as draft:
        draft.add("model.uint8.onnx", pixel_model(draft.spec).SerializeToString())
        draft.put_variant(Variant("fp32-uint8", "fp32", "onnx", "model.uint8.onnx", (verdict(),), output="uint8"))
    return path


def test_pixels_are_the_same_images_whatever_is_drawn(both: Path) -> None:
    with load(both, "cpu", "onnxruntime", output="float") as values, load(both, "cpu", output="uint8") as pixels:
        assert (values.session.variant.name, pixels.session.variant.name) == ("fp32", "fp32-uint8")
        for n, first in ((1, 0), (7, 3), (70, 100)):
            expected = values.generate(n, seed=5, first=first, label="two", truncation=0.5)
            found = pixels.generate(n, seed=5, first=first, label="two", truncation=0.5)
            assert (found.dtype, found.shape) == (np.uint8, (n, 8, 8, 3))
            assert expected.std() > 1
            np.testing.assert_array_equal(found, expected)
        z = values.latents(5, seed=9)
        np.testing.assert_array_equal(pixels(z, label=1), values(z, label=1))
        chunks = list(pixels.stream(20, seed=5, chunk_images=6))
        np.testing.assert_array_equal(np.concatenate(chunks), values.generate(20, seed=5))
        assert pixels.generate(0).shape == (0, 8, 8, 3)


def test_outputs_are_what_the_graph_gives_and_the_spec_says_what_that_is(both: Path) -> None:
    with load(both, "cpu", output="float") as values, load(both, "cpu", output="uint8") as pixels:
        inputs = {
            "z": values.latents(3, seed=1),
            "label": np.array([0, 1, 2]),
            "truncation": np.ones(3, np.float32),
        }
        floats, found = values.outputs(inputs)["image"], pixels.outputs(inputs)["image"]
        assert (floats.dtype, floats.shape) == (np.float32, (3, 3, 8, 8))
        assert (found.dtype, found.shape) == (np.uint8, (3, 8, 8, 3))
        image = pixels.spec.image
        assert image is not None
        assert (image.dtype, image.shape, image.role) == ("uint8", (8, 8, 3), Image("HWC", (0.0, 255.0)))
        np.testing.assert_array_equal(uint8_from_output(found, image), found)
        np.testing.assert_array_equal(uint8_from_output(floats, values.spec.outputs[0]), found)
        assert pixels.session.contract == values.spec


def test_auto_takes_values_and_never_pixels_unasked(both: Path) -> None:
    with load(both, "cpu") as generator:
        assert generator.session.variant.name == "fp32"
    with load(both, "cpu", precision="fp32-uint8") as generator:
        assert generator.session.variant.name == "fp32-uint8"
    with bundle_changed(both) as draft:
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (verdict(passed=False),)))
    with pytest.raises(Exception, match="no verified onnx variant"):
        load(both, "cpu", "onnxruntime")


def test_what_is_not_there_is_an_error_that_says_so(both: Path, tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path / "plain.gan")
    with pytest.raises(InputError, match="no variant whose output is uint8") as caught:
        load(plain, "cpu", output="uint8")
    assert caught.value.got == "fp32 (float)"
    assert "--uint8" in (caught.value.remedy or "")
    with pytest.raises(InputError, match="'half' is not an output"):
        load(plain, "cpu", output="half")
    with pytest.raises(InputError, match="'fp32-uint8'"):
        load(both, "cpu", "onnxruntime", "fp32-uint8", output="float")


def test_choosing_among_variants_sees_values_first(both: Path) -> None:
    from ganruntime.bundle import read_bundle

    bundle = read_bundle(both)
    assert [v.name for v in candidates(bundle, "onnx", "auto")] == ["fp32"]
    assert [v.name for v in candidates(bundle, "onnx", "fp32")] == ["fp32"]
    assert [v.name for v in candidates(bundle, "onnx", "fp32-uint8")] == ["fp32-uint8"]


def test_the_spec_of_pixels_leaves_what_is_no_image() -> None:
    z = TensorSpec("z", "float32", (4,), Latent())
    code = TensorSpec("code", "float32", (9,), Vector())
    wide = TensorSpec("wide", "float32", (2, 5, 3), Image("HWC", (0.0, 1.0)))
    spec = pixel_spec(GeneratorSpec("g", (z,), (code, wide)))
    assert spec.outputs[0] == code
    assert (spec.outputs[1].dtype, spec.outputs[1].shape) == ("uint8", (2, 5, 3))
    assert pixel_spec(spec) == spec
