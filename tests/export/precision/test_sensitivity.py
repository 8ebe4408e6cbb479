"""The search for int8 layers and thresholds: what the gate's word changes, and what never comes back."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
import small_graphs

from ganexport.passes.subpixel import convtranspose_to_subpixel
from ganexport.precision.calibration import calibration_inputs
from ganexport.precision.sensitivity import Search, search_from_model
from ganexport.precision.thresholds import METHODS, WIDE_METHODS


@pytest.fixture
def search() -> Search:
    spec = small_graphs.spec()
    model = ir.from_proto(onnx.load_model_from_string(small_graphs.dcgan()))
    convtranspose_to_subpixel(model)
    made = search_from_model(spec, model, calibration_inputs(spec, 64), pool=64)
    made.start()
    return made


def test_it_starts_with_every_layer_and_tries_every_method(search: Search) -> None:
    assert search.kept == search.layers
    assert search.int8_share == 1.0
    assert set(search.tried) == set(METHODS)
    assert search.psnr_db == pytest.approx(max(search.tried.values()), abs=6.0)


def test_after_the_gates_word_nothing_that_was_seen_is_clipped(search: Search) -> None:
    search.chosen = dict.fromkeys(search.chosen, "entropy")
    search.widen(0.0)
    assert search.pool == 128
    assert set(search.chosen.values()) <= set(WIDE_METHODS)
    seen = search.thresholds["minmax"]
    assert all(search.thresholds[method][value] >= seen[value] for value, method in search.chosen.items())


def test_widening_always_changes_something(search: Search) -> None:
    graphs = {search.graph()}
    for _ in range(len(search.layers) + 1):
        if not search.kept:
            break
        search.widen(0.0)
        graph = search.graph()
        assert graph not in graphs
        graphs.add(graph)


def test_layers_leave_until_the_floor_is_met_and_the_cost_is_recorded(search: Search) -> None:
    floor = search.psnr_db + 2.0
    search.leave_out_until(floor)
    assert search.psnr_db >= floor
    assert len(search.left) + len(search.kept) == len(search.layers)
    assert len(search.left) > 0
    assert all(left.node not in {layer.node for layer in search.kept} for left in search.left)
