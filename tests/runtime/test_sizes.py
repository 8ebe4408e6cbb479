"""Heights and widths that vary: what fits, what follows, and every size through a generator and its backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganruntime.bundle import Variant
from ganruntime.errors import BackendError, InputError, SpecError
from ganruntime.generator import Generator
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.fake import FakeSession
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sessions.openvino import OpenVinoSession
from ganruntime.sizes import default_size, require_sizes, size_of, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector, pixel_spec


def sized_spec(
    multiple: int = 4, minimum: int = 8, out: tuple[int, int] = (8, 0), layout: str = "CHW"
) -> GeneratorSpec:
    """A photo to an image that is twice as large, and a vector."""
    shape = (3, None, None) if layout == "CHW" else (None, None, 3)
    return GeneratorSpec(
        "sized",
        (TensorSpec("photo", "float32", shape, Image(layout, multiple=multiple, minimum=minimum)),),
        (
            TensorSpec("image", "float32", shape, Image(layout, multiple=out[0], offset=out[1])),
            TensorSpec("code", "float32", (5,), Vector()),
        ),
    )


def photo(height: int, width: int, count: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(height * 997 + width).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


@given(
    st.integers(1, 32),
    st.integers(1, 70),
    st.integers(1, 64),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["CHW", "HWC"]),
)
def test_outputs_follow_every_size_that_fits(
    multiple: int, minimum: int, out: int, offset: int, high: int, wide: int, layout: str
) -> None:
    spec = sized_spec(multiple, minimum, (out, offset), layout)
    size = (high * multiple, wide * multiple)
    if min(size) < minimum:
        with pytest.raises(InputError, match="does not take"):
            spec_at(spec, size)
        return
    fixed = spec_at(spec, size)
    sides = slice(1, 3) if layout == "CHW" else slice(0, 2)
    assert fixed.inputs[0].shape[sides] == size
    assert fixed.outputs[0].shape[sides] == (high * out + offset, wide * out + offset)
    assert fixed.outputs[1] == spec.outputs[1]
    assert varying_inputs(fixed) == ()
    assert GeneratorSpec.loads(fixed.dumps()) == fixed
    assert spec_at(pixel_spec(spec), size).outputs[0].shape == (high * out + offset, wide * out + offset, 3)
    rows: Any = {"photo": np.zeros((2, *fixed.inputs[0].shape), np.float32)}  # type: ignore[misc]
    assert size_of(spec, rows) == size
    require_sizes(spec, rows)


def test_fixed_specs_stay_as_they_are() -> None:
    fixed = spec_at(sized_spec(), (8, 12))
    assert spec_at(fixed, None) is fixed
    assert (default_size(fixed), size_of(fixed, {})) == (None, None)


@pytest.mark.parametrize(
    ("multiple", "minimum", "expected"), [(1, 1, 64), (48, 1, 96), (4, 65, 68), (128, 128, 128), (3, 300, 300)]
)
def test_the_default_size_fits(multiple: int, minimum: int, expected: int) -> None:
    spec = sized_spec(multiple, minimum)
    assert default_size(spec) == (expected, expected)
    spec_at(spec, default_size(spec))


@pytest.mark.parametrize(
    ("size", "near"),
    [((10, 12), "height 8, width 12"), ((4, 16), "height 8, width 16"), ((23, 7), "height 20, width 8")],
)
def test_the_error_says_what_fits_and_names_one(size: tuple[int, int], near: str) -> None:
    with pytest.raises(InputError, match="'photo' has a size that the network does not take") as caught:
        Generator(FakeSession(sized_spec())).generate(1, photo=photo(*size))
    assert caught.value.got == f"height {size[0]}, width {size[1]}"
    assert caught.value.expected == "height and width multiples of 4, at least 8"
    assert near in (caught.value.remedy or "")


def test_specs_without_the_new_keys_are_read_and_written_as_they_were() -> None:
    spec = GeneratorSpec(
        "old",
        (TensorSpec("photo", "float32", (3, None, None), Image()),),
        (TensorSpec("image", "float32", (3, 8, 8), Image()),),
    )
    assert not {"multiple", "minimum", "offset"} & {key for t in spec.to_json()["inputs"] for key in t["role"]}
    assert GeneratorSpec.loads(spec.dumps()) == spec
    new = sized_spec()
    assert new.to_json()["inputs"][0]["role"]["multiple"] == 4
    assert GeneratorSpec.loads(new.dumps()) == new


@pytest.mark.parametrize(
    "strange", [{"multiple": 0}, {"multiple": 1.5}, {"minimum": -1}, {"minimum": True}, {"offset": 65_537}]
)
def test_strange_numbers_are_refused(strange: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"image.{next(iter(strange))}"):
        Image(**strange)


def test_a_fake_draws_any_size() -> None:
    with Generator(session := FakeSession(sized_spec(), buckets=(1, 4))) as generator:
        generator.warm_up()
        assert session.batches == [1, 4]
        for height, width in ((8, 8), (16, 8), (64, 20)):
            drawn = generator.generate(5, photo=photo(height, width, 5))
            assert drawn.shape == (5, 2 * height, 2 * width, 3)
            assert generator.outputs({"photo": photo(height, width)})["code"].shape == (1, 5)
            assert np.array_equal(generator.draw({"photo": photo(height, width, 5)}), drawn)


def test_outputs_of_many_sizes_are_not_kept() -> None:
    generator = Generator(FakeSession(sized_spec(), buckets=(1, 4)))
    for side in range(8, 408, 4):
        generator.generate(5, photo=photo(side, 8, 5))
    assert len(generator._runner.workspaces.kept) <= 8
    assert {size for _, size in generator._runner.workspaces.kept} == {(side, 8) for side in range(392, 408, 4)}


# The backends, on a graph of one convolution and a resize


def doubling_graph() -> bytes:
    """A convolution, doubled by nearest neighbours, and the mean of each image, five times."""
    weights = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["photo", "weights"], ["features"], pads=[1, 1, 1, 1]),
            helper.make_node("Resize", ["features", "", "scales"], ["image"], mode="nearest"),
            helper.make_node("ReduceMean", ["photo", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
            helper.make_node("Tile", ["column", "times"], ["code"]),
        ],
        "doubling",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "2*height", "2*width"]),
            helper.make_tensor_value_info("code", TensorProto.FLOAT, ["batch", 5]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
            numpy_helper.from_array(np.array([1, 5], np.int64), "times"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def opened(backend: type[Session]) -> Session:
    variant = Variant("fp32", "fp32", "onnx", "model.onnx")
    return backend(sized_spec(), variant, doubling_graph(), buckets=(1, 3), threads=1)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("backend", [OnnxRuntimeSession, OpenVinoSession])
def test_one_session_runs_every_size(backend: type[Session]) -> None:
    pytest.importorskip(backend.backend)
    with opened(backend) as session:
        before: dict[tuple[int, int], Any] = {}
        for size in ((8, 8), (64, 64), (12, 40), (8, 8), (200, 8), (12, 40)):
            rows = photo(*size, 3)
            out = empty_outputs(spec_at(session.spec, size), 3)
            session.run({"photo": rows}, out)
            np.testing.assert_allclose(out["code"], np.tile(rows.mean((1, 2, 3))[:, None], 5), rtol=0, atol=1e-5)
            assert np.array_equal(out["image"][:, :, ::2, ::2], out["image"][:, :, 1::2, 1::2])
            alone = empty_outputs(spec_at(session.spec, size), 1)
            session.run({"photo": rows[:1]}, alone)
            np.testing.assert_allclose(alone["image"], out["image"][:1], rtol=0, atol=1e-5)
            # Equal batches give equal bits, whatever was run between.
            assert np.array_equal(before.setdefault(size, out["image"].copy()), out["image"])


@pytest.mark.parametrize("backend", [OnnxRuntimeSession, OpenVinoSession])
def test_outputs_of_another_size_are_an_error(backend: type[Session]) -> None:
    pytest.importorskip(backend.backend)
    with opened(backend) as session, pytest.raises(BackendError):
        session.run({"photo": photo(8, 12)}, empty_outputs(spec_at(session.spec, (8, 8)), 1))


@pytest.mark.parametrize("backend", [OnnxRuntimeSession, OpenVinoSession])
def test_a_generator_on_a_backend_draws_any_size(backend: type[Session]) -> None:
    pytest.importorskip(backend.backend)
    with Generator(opened(backend)) as generator, generator.batcher() as batcher:
        generator.warm_up()
        for size in ((8, 8), (12, 40), (8, 8)):
            rows = photo(*size, 4)
            drawn = generator.generate(4, photo=rows)
            assert drawn.shape == (4, 2 * size[0], 2 * size[1], 3)
            assert np.array_equal(batcher.submit(n=4, photo=rows).result(60), drawn)


def test_latents_and_photos_go_together(tmp_path: Path) -> None:
    spec = GeneratorSpec(
        "both",
        (*sized_spec().inputs, TensorSpec("z", "float32", (4,), Latent())),
        sized_spec().outputs,
    )
    generator = Generator(FakeSession(spec))
    drawn = generator.generate(2, seed=5, photo=photo(8, 16)[0])
    assert np.array_equal(drawn, generator(generator.latents(2, seed=5), photo=photo(8, 16)[0]))
