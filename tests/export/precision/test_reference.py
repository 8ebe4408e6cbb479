"""The reference evaluation against NumPy's half arithmetic and onnx.reference."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from small_graphs import LATENT, dcgan, elementwise, latents, rows, spec, weights

from ganexport.precision import reference
from ganexport.precision.half_graph import half_graph_from_model
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.reference import ReferenceSession, emulated, require_rounding
from ganexport.precision.rounding import BF16, FP16, HALF_TYPES, HalfType, rounded
from ganexport.precision.traced import plain_session
from ganruntime.bundle import Variant
from ganruntime.errors import BackendError

node = helper.make_node
EACH = pytest.mark.parametrize("half", HALF_TYPES.values(), ids=HALF_TYPES.keys())


def typed(graph: bytes, half: HalfType, inputs: dict[str, NDArray[np.float32]]) -> bytes:
    return half_graph_from_model(graph, ranges_from_graph(graph, inputs), half).graph


def test_rounding_is_to_nearest_and_ties_go_to_even() -> None:
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 65520.0, 2**-25, 3 * 2**-26], np.float32)
    expected = [1, 1 + 2 * 2**-10, 65504, np.inf, 0, 2**-24]
    np.testing.assert_array_equal(rounded(x, FP16), np.array(expected, np.float32))
    y = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38], np.float32)
    np.testing.assert_array_equal(rounded(y, BF16), np.array([1, 1 + 2 * 2**-7, np.inf], np.float32))


@EACH
def test_the_limits_are_those_of_the_types(half: HalfType) -> None:
    info = ml_dtypes.finfo(half.dtype)
    assert half.largest == float(info.max)
    assert half.smallest_normal == float(info.smallest_normal)
    assert 2.0 ** (1 - half.digits) == float(info.eps)


@EACH
def test_pairs_of_casts_round_here(half: HalfType) -> None:
    require_rounding(half)


@EACH
def test_a_runtime_that_removes_the_pairs_is_found_out(half: HalfType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_rounding_pair", lambda source, target, _: [node("Identity", [source], [target])])
    with pytest.raises(BackendError, match="does not round"):
        require_rounding(half)


@EACH
def test_a_linear_chain_is_numpys_with_every_stored_value_rounded(half: HalfType) -> None:
    w = (np.arange(LATENT * LATENT).reshape(LATENT, LATENT) % 7 - 3).astype(np.float32) / 8
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Mul", ["b", "gain"], ["c"]),
            node("MatMul", ["c", "w"], ["y"]),
        ],
        w=w,
        gain=np.full(1, 1.1, np.float32),
    )
    # Integers and eighths: float32 sums are exact in any order, so every bit is decided by the roundings.
    x = np.random.default_rng(0).integers(-8, 9, (64, LATENT)).astype(np.float32) / 4
    found = plain_session(emulated(typed(graph, half, {"x": x}))).run(None, {"x": x})[0]
    a = rounded(rounded(x, half) @ rounded(w, half), half)
    c = rounded(np.maximum(a, 0) * rounded(np.full(1, 1.1, np.float32), half), half)
    np.testing.assert_array_equal(found, rounded(c @ rounded(w, half), half))
    assert not np.array_equal(found, np.maximum(x @ w, 0) * np.float32(1.1) @ w)


def test_elementwise_fp16_is_what_onnx_reference_gives_bit_for_bit() -> None:
    graph = elementwise(
        [
            node("Mul", ["x", "k"], ["a"]),
            node("Add", ["a", "x"], ["b"]),
            node("LeakyRelu", ["b"], ["c"], alpha=0.25),
            node("Sub", ["c", "k"], ["d"]),
            node("MatMul", ["d", "unit"], ["y"]),
        ],
        k=weights(3, LATENT),
        unit=np.eye(LATENT, dtype=np.float32),
    )
    inputs = rows(256)
    half = typed(graph, FP16, inputs)
    expected = ReferenceEvaluator(onnx.load_model_from_string(half)).run(None, inputs)[0]
    np.testing.assert_array_equal(plain_session(emulated(half)).run(None, inputs)[0], expected)


@EACH
def test_the_stand_in_holds_only_float32_and_rounds_what_the_graph_stores(half: HalfType) -> None:
    inputs = latents(8)
    stand_in = onnx.load_model_from_string(emulated(typed(dcgan(), half, inputs)))
    assert {t.data_type for t in stand_in.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}
    stored = ["flat", "up1", "up2"]
    stand_in.graph.output.extend(onnx.ValueInfoProto(name=name) for name in stored)
    values = plain_session(stand_in.SerializeToString()).run(stored, inputs)
    for value in values:
        np.testing.assert_array_equal(value, rounded(value, half))


@EACH
def test_an_overflow_shows_as_it_would_on_the_device(half: HalfType) -> None:
    """The graph is typed as if its values were small; fed with large ones, fp16 overflows and bf16 does not."""
    graph = elementwise(
        [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])],
        w=np.eye(LATENT, dtype=np.float32) * 1000,
        v=np.eye(LATENT, dtype=np.float32) / 1000,
    )
    made = typed(graph, half, rows(scale=0.01))
    found = plain_session(emulated(made)).run(None, {"x": np.full((1, LATENT), 100.0, np.float32)})[0]
    assert np.isfinite(found).all() == (half is BF16)


def test_a_session_runs_any_batch_names_itself_and_closes() -> None:
    inputs = latents(5)
    variant = Variant("bf16", "bf16", "onnx", "model.bf16.onnx")
    with ReferenceSession(spec(), variant, typed(dcgan(), BF16, inputs), buckets=(1, 5)) as session:
        assert (session.backend, session.device) == ("reference", "cpu")
        out = {"image": np.empty((5, 3, 16, 16), np.float32)}
        session.run(inputs, out)
        fp32 = plain_session(dcgan()).run(None, inputs)[0]
        assert 0 < np.abs(out["image"] - fp32).max() < 0.05
        assert set(session.versions()) == {"onnxruntime", "onnx", "numpy"}
    with pytest.raises(BackendError, match="closed"):
        session.run(inputs, out)
