"""The search for int8 layers and thresholds: what the gate's word changes, and what never comes back."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_graphs

from ganexport.parity import PSNR_CAP_DB
from ganexport.passes.subpixel import convtranspose_to_subpixel
from ganexport.precision.calibration import calibration_inputs
from ganexport.precision.int8_layers import Layer
from ganexport.precision.judges import SEED, Judges
from ganexport.precision.sensitivity import Search, search_from_model
from ganexport.precision.thresholds import METHODS, WIDE_METHODS
from ganexport.precision.traced import Arrays, plain_session
from ganexport.probes import probe_inputs
from ganruntime.spec import GeneratorSpec, Scalar, TensorSpec


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


def test_a_latent_is_the_same_in_whatever_company() -> None:
    scalar = TensorSpec("truncation", "float32", (), Scalar(1.0, (0.0, 2.0)))
    of = GeneratorSpec("scaled", (*small_graphs.spec().inputs, scalar), small_graphs.spec().outputs)
    judges = Judges(of, small_graphs.dcgan())
    whole = judges.inputs(np.arange(16))
    assert len(set(whole["truncation"].tolist())) > 8
    for rows in ([3], [5, 6, 7], [7, 2, 9, 4], [15, 0]):
        found = judges.inputs(np.array(rows))
        for name, array in whole.items():
            np.testing.assert_array_equal(found[name], array[rows])


@pytest.mark.filterwarnings("error")
def test_judges_are_told_by_the_output_that_suffers_most() -> None:
    judges, plain = Judges(small_graphs.spec(), small_graphs.dcgan()), plain_session(small_graphs.dcgan())

    def off(outputs: list[str], inputs: Arrays) -> list[np.ndarray]:
        (image,) = plain.run(outputs, dict(inputs))
        image[0] += 0.02  # [-1, 1]: 40 dB
        image[-1] = np.nan
        return [image]

    found = judges.psnr_db(off, np.arange(3))
    assert found[0] == pytest.approx(40.0, abs=0.1)
    assert found[1] == PSNR_CAP_DB
    assert found[2] == -np.inf


def worst_psnr_db(search: Search, kept: list[Layer], indices: np.ndarray) -> float:
    """The slow twin of what the search asks: the very graph that would be written, image by image."""
    before, search.kept = search.kept, kept
    candidate = plain_session(search.graph())
    search.kept = before
    reference, found = plain_session(search.base), []
    for i in indices:
        inputs = probe_inputs(search.spec, SEED, int(i), 1)
        expected, got = (session.run(["image"], inputs)[0] for session in (reference, candidate))
        found.append(10 * np.log10(4.0 / max(float(np.square(expected - got).mean()), 1e-20)))
    return min(found)


def without(search: Search, layer: Layer) -> list[Layer]:
    return [other for other in search.kept if other is not layer]


def test_what_the_search_says_of_the_pool_is_true_of_the_graph(search: Search) -> None:
    assert worst_psnr_db(search, search.kept, np.arange(search.pool)) == pytest.approx(search.psnr_db, abs=0.1)


def test_the_judge_that_suffers_most_is_asked_first(search: Search) -> None:
    first = worst_psnr_db(search, search.kept, search.judges[:1])
    assert first == pytest.approx(search.psnr_db, abs=0.1)


def test_of_layers_that_are_enough_the_smallest_goes_back_to_fp32(search: Search) -> None:
    smallest = min(search.kept, key=lambda layer: layer.multiplications)
    search.without_next(0.0)  # every layer is enough
    assert [left.node for left in search.left] == [smallest.node]


def test_of_layers_that_are_not_enough_the_noisiest_for_its_multiplications_goes_back(search: Search) -> None:
    judges = search.judges[:32]

    def noise(kept: list[Layer]) -> float:
        return float(10 ** (-worst_psnr_db(search, kept, judges) / 10))

    before = noise(search.kept)
    gained = {x.node: (before - noise(without(search, x))) / x.multiplications for x in search.kept}
    search.without_next(PSNR_CAP_DB)  # no layer is enough
    assert search.left[0].node == max(gained, key=lambda node: gained[node])
