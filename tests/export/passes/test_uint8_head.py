"""The head in the graph against `ganruntime.images.uint8_from_output`, level by level."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, run

from ganexport.passes.uint8_head import add_uint8_head
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector


def spec_of(layout: str, low: float, high: float, shape: tuple[int, int, int]) -> GeneratorSpec:
    z = TensorSpec("z", "float32", (1,), Latent())
    return GeneratorSpec("g", (z,), (TensorSpec("image", "float32", shape, Image(layout, (low, high))),))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-3.5, 2.25)])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_level_and_every_half_is_the_runtimes(low: float, high: float, layout: str, channels: int) -> None:
    shape = (channels, 8, 9) if layout == "CHW" else (8, 9, channels)
    spec = spec_of(layout, low, high, shape)
    model = graph_of([oh.make_node("Identity", ["x"], ["image"])], {}, {"x": ["n", *shape]}, ("image",))
    report = add_uint8_head(model, spec)
    assert len(report.changed) == 1
    # Exact levels, the halves between them, and values beyond both ends.
    steps = np.arange(-8, 520) / 2 / 255 * (high - low) + low
    x = np.resize(steps, (9, *shape)).astype(np.float32)
    x.reshape(-1)[:2] = (np.inf, -np.inf)
    (pixels,) = run(model, {"x": x})
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, uint8_from_output(x, spec.outputs[0]))
    assert [o.name for o in model.graph.outputs] == ["image"]


def test_only_images_get_a_head() -> None:
    z = TensorSpec("z", "float32", (1,), Latent())
    outputs = (TensorSpec("image", "float32", (1, 2, 2), Image()), TensorSpec("code", "float32", (4,), Vector()))
    nodes = [oh.make_node("Identity", ["x"], ["image"]), oh.make_node("Flatten", ["x"], ["code"])]
    model = graph_of(nodes, {}, {"x": ["n", 1, 2, 2]}, ("image", "code"))
    add_uint8_head(model, GeneratorSpec("g", (z,), outputs))
    image, code = run(model, {"x": np.zeros((3, 1, 2, 2), np.float32)})
    assert (image.dtype, image.shape) == (np.uint8, (3, 2, 2, 1))
    assert (code.dtype, code.shape) == (np.float32, (3, 4))
