"""Ranges, calibration inputs and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from small_graphs import LATENT, dcgan, elementwise, latents, rows, weights

from ganexport.gate import PROOF_SEED
from ganexport.golden import SEED as GOLDEN_SEED
from ganexport.precision import calibration, judges
from ganexport.precision.calibration import calibration_inputs
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.thresholds import LEVELS, METHODS, thresholds_from_graph
from ganexport.precision.traced import TracedGraph
from ganexport.probes import probe_inputs
from ganruntime.errors import BackendError, ExportError, InputError
from ganruntime.spec import GeneratorSpec, Image, Latent, Noise, Scalar, TensorSpec

node = helper.make_node
IMAGE = TensorSpec("image", "float32", (1, 4, 4), Image())


def test_a_range_holds_over_every_row_however_they_are_cut() -> None:
    graph = elementwise([node("Mul", ["x", "k"], ["a"]), node("Relu", ["a"], ["y"])], k=weights(0, LATENT))
    inputs = rows(150)
    inputs["x"][149, 3], inputs["x"][70, 2] = 50.0, 1e-9
    found = ranges_from_graph(graph, inputs)
    product = np.abs(inputs["x"] * weights(0, LATENT))
    assert found["a"].abs_max == product.max()
    assert found["a"].abs_min == product[product > 0].min()
    assert found["x"].abs_max == 50.0
    assert found["y"].row_elements == LATENT
    assert set(found) == {"x", "a", "y"}


def test_a_value_that_is_not_finite_reaches_infinity() -> None:
    graph = elementwise([node("Log", ["x"], ["a"]), node("Abs", ["a"], ["y"])])
    assert ranges_from_graph(graph, {"x": np.zeros((2, LATENT), np.float32)})["a"].abs_max == np.inf


def test_values_that_are_no_floats_are_known_as_such() -> None:
    found = ranges_from_graph(dcgan(), latents())
    assert all(v.is_float for v in found.values())
    graph = elementwise([node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"])])
    assert not ranges_from_graph(graph, rows())["s"].is_float


def test_a_traced_graph_says_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="no such value"):
        TracedGraph(dcgan(), ["nowhere"])
    with pytest.raises(BackendError, match="refuses"):
        TracedGraph(elementwise([node("Relu", ["x"], ["y"])]).replace(b"Relu", b"Ruel"))


def test_one_row_in_eight_is_a_tail_of_its_role() -> None:
    spec = GeneratorSpec(
        "roles",
        (
            TensorSpec("z", "float32", (8,), Latent()),
            TensorSpec("u", "float32", (8,), Latent("uniform", 2.0)),
            TensorSpec("s", "float32", (8,), Latent("sphere")),
            TensorSpec("noise", "float32", (4,), Noise()),
            TensorSpec("truncation", "float32", (), Scalar(0.7, (0.0, 1.5))),
        ),
        (IMAGE,),
    )
    plain, found = probe_inputs(spec, calibration.SEED, 0, 64), calibration_inputs(spec, 64)
    tails = np.arange(7, 64, 8)
    rest = np.setdiff1d(np.arange(64), tails)
    for name in plain:
        np.testing.assert_array_equal(found[name][rest], plain[name][rest])
        assert found[name].dtype == np.float32
    np.testing.assert_allclose(found["z"][tails], 1.25 * plain["z"][tails])
    np.testing.assert_allclose(found["noise"][tails], 1.25 * plain["noise"][tails])
    assert (np.abs(found["u"][tails]) == 2.0).all()
    np.testing.assert_array_equal(np.sign(found["u"][tails]), np.where(plain["u"][tails] < 0, -1, 1))
    np.testing.assert_array_equal(found["s"], plain["s"])
    assert set(found["truncation"][tails].tolist()) == {0.0, 1.5}


def test_the_seeds_are_all_different() -> None:
    assert len({calibration.SEED, judges.SEED, PROOF_SEED, GOLDEN_SEED}) == 4


def values_with(values: np.ndarray) -> dict[str, dict[str, float]]:
    graph = elementwise([node("Identity", ["x"], ["h"]), node("Relu", ["h"], ["y"])])
    return thresholds_from_graph(graph, {"x": values.astype(np.float32).reshape(-1, LATENT)}, ["h"])


def test_thresholds_of_a_normal_value_with_one_outlier() -> None:
    values = np.random.default_rng(0).standard_normal(80_000)
    values[5] = -20.0
    found = {method: by_value["h"] for method, by_value in values_with(values).items()}
    assert set(found) == set(METHODS)
    assert found["minmax"] == pytest.approx(20.0)
    assert found["headroom"] == pytest.approx(24.0)
    assert found["percentile"] == pytest.approx(np.percentile(np.abs(values), 99.99), rel=0.02)
    assert 2.5 < found["squared error"] < 20
    assert 2.5 < found["entropy"] < 20


def test_squared_error_is_the_least_that_a_search_finds() -> None:
    values = np.abs(np.random.default_rng(1).laplace(size=80_000))
    found = values_with(values)["squared error"]["h"]

    def error(threshold: float) -> float:
        step = threshold / LEVELS
        return float(np.square(values - np.clip(np.rint(values / step), 0, LEVELS) * step).mean())

    best = min(error(t) for t in np.linspace(1, values.max(), 400))
    assert error(found) < 1.02 * best


def test_a_value_that_is_always_zero_cannot_be_quantised() -> None:
    with pytest.raises(ExportError, match="cannot be quantised"):
        values_with(np.zeros(80))
