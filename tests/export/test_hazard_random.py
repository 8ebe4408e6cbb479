"""Networks that draw random numbers: refused with their place, made inputs, or frozen, and computed the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from unittest import mock

import hazard_random as hazard
import numpy as np
import odd_networks as odd
import pytest
import torch
from hazards import exported, operators
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.graph import inference_copy
from ganexport.probes import probe_inputs
from ganexport.program.noise_inputs import source_with_noise
from ganexport.source import Source
from ganruntime import noise
from ganruntime.errors import ExportError, InputError
from ganruntime.spec import Latent, Noise, TensorSpec

HOISTED = [hazard.Layered, hazard.Reparametrised, hazard.Everything, hazard.Pix2Pix, hazard.OneRowForAll]


def source_of(network: type[nn.Module]) -> Source:
    torch.manual_seed(5)
    return Source(network(), odd.spec_of(), "test")


def test_random_numbers_are_refused_with_the_modules_that_draw_them() -> None:
    with pytest.raises(ExportError) as caught:
        inference_copy(hazard.Layered(), odd.spec_of())
    error = caught.value
    assert error.problem == "odd: the network draws random numbers"
    places = str(error.got).split("; ")
    assert len(places) == 3
    assert places[0].startswith("in 'layers.0' (NoiseInjection), torch.Tensor.normal_, hazard_random.py:")
    assert places[1].startswith("in 'layers.2' (NoiseInjection), torch.Tensor.normal_, hazard_random.py:")
    assert places[2].startswith("in the network itself (Layered), torch.rand, hazard_random.py:")
    assert "--random input" in (error.remedy or "")


def test_dropout_left_on_is_refused_by_its_module() -> None:
    with pytest.raises(ExportError) as caught:
        inference_copy(hazard.Pix2Pix(), odd.spec_of())
    assert "in 'body.1' (Dropout), torch.nn.functional.dropout" in str(caught.value.got)


def test_random_numbers_from_elsewhere_are_seen_in_the_outputs() -> None:
    with pytest.raises(ExportError, match="two runs on the same inputs") as caught:
        inference_copy(hazard.NumpyNoise(), odd.spec_of())
    assert "numpy.random" in str(caught.value.got)


@pytest.mark.parametrize("network", HOISTED)
def test_hoisted_draws_are_inputs_of_a_graph_that_computes_the_same(network: type[nn.Module]) -> None:
    source = source_with_noise(source_of(network), "input")
    added = source.spec.inputs[1:]
    assert added
    assert all(isinstance(t.role, Noise) and t.dtype == "float32" for t in added)
    graph = exported(source.module, source.spec)
    assert not [o for o in operators(graph) if "Random" in o or o == "Bernoulli"]
    # Every input matters: another draw of it is another image.
    twin = inference_copy(source.module, source.spec)
    inputs = probe_inputs(source.spec, 1, 0, 3)
    before = eager_outputs(twin, source.spec, inputs)["image"]
    for tensor in added:
        other = inputs | {tensor.name: probe_inputs(source.spec, 2, 0, 3)[tensor.name]}
        assert np.abs(eager_outputs(twin, source.spec, other)["image"] - before).max() > 1e-3


@pytest.mark.parametrize("network", [*HOISTED, hazard.NoRow])
def test_frozen_draws_are_constants_of_a_graph_that_computes_the_same(network: type[nn.Module]) -> None:
    source = source_with_noise(source_of(network), "freeze")
    assert source.spec == odd.spec_of()
    assert source.notes["random"] == "freeze"
    assert source.notes["random_seed"] == 0x66726565
    graph = exported(source.module, source.spec)
    assert not [o for o in operators(graph) if "Random" in o or o == "Bernoulli"]


def test_freezing_twice_gives_the_same_constants() -> None:
    source = source_of(hazard.Layered)
    first, second = (source_with_noise(source, "freeze") for _ in range(2))
    constants = [{name: buffer.tolist() for name, buffer in s.module.named_buffers()} for s in (first, second)]
    assert constants[0] == constants[1]
    assert constants[0].keys() == {"w_avg", "noise_0", "noise_1", "noise_2"}
    assert first.weights_sha256() == source.weights_sha256()


def given_in_turn(arrays: list[np.ndarray]) -> Iterator[torch.Tensor]:
    return iter(torch.from_numpy(a) for a in arrays)


def test_hoisted_noise_means_what_the_network_draws() -> None:
    """The network's own code, with torch's own functions replaced by ones that give the same numbers."""
    source = source_of(hazard.Layered)
    hoisted = source_with_noise(source, "input")
    inputs = probe_inputs(hoisted.spec, 9, 0, 5)
    normals = given_in_turn([inputs["noise_0"], inputs["noise_1"]])
    uniform = torch.from_numpy(inputs["noise_2"]) / 2 + 0.5

    def normal_(tensor: torch.Tensor, *arguments: Any) -> torch.Tensor:
        return tensor.copy_(next(normals))

    own = copy.deepcopy(source.module).eval()
    with mock.patch.object(torch.Tensor, "normal_", normal_), mock.patch.object(torch, "rand", return_value=uniform):
        expected = eager_outputs(own, source.spec, {"z": inputs["z"]})["image"]
    found = eager_outputs(inference_copy(hoisted.module, hoisted.spec), hoisted.spec, inputs)["image"]
    np.testing.assert_array_equal(found, expected)


def test_hoisted_noise_is_drawn_like_the_network_draws_it() -> None:
    spec = source_with_noise(source_of(hazard.Layered), "input").spec
    roles = {t.name: (t.shape, t.role) for t in spec.inputs[1:]}
    assert roles == {
        "noise_0": ((1, 4, 4), Noise()),
        "noise_1": ((1, 4, 4), Noise()),
        "noise_2": ((1, 4, 4), Noise(distribution="uniform")),
    }
    drawn = noise.inputs(spec, 3, 0, 2000)
    assert abs(float(drawn["noise_0"].std()) - 1.0) < 0.02
    assert -1.0 <= float(drawn["noise_2"].min()) < -0.99
    assert 0.99 < float(drawn["noise_2"].max()) < 1.0
    assert abs(float(drawn["noise_2"].std()) - 3**-0.5) < 0.01


def test_a_dropout_that_is_hoisted_drops_its_share() -> None:
    source = source_with_noise(source_of(hazard.Pix2Pix), "input")
    kept = []
    module = inference_copy(source.module, source.spec)
    module.body[2].register_forward_pre_hook(
        lambda _, arguments: kept.append(float((arguments[0] != 0).float().mean()))
    )
    eager_outputs(module, source.spec, probe_inputs(source.spec, 4, 0, 500))
    assert kept[-1] == pytest.approx(0.5, abs=0.02)


def test_names_that_are_taken_are_left_alone() -> None:
    class Renamed(hazard.OneRowForAll):
        pass

    spec = odd.spec_of(TensorSpec("noise", "float32", (odd.LATENT,), Latent()))
    hoisted = source_with_noise(Source(Renamed(), spec, "test"), "input")
    assert [t.name for t in hoisted.spec.inputs] == ["noise", "drawn_noise"]


def test_the_sources_own_network_is_not_changed() -> None:
    source = source_of(hazard.Layered)
    before = copy.deepcopy(source.module.state_dict())
    source_with_noise(source, "freeze")
    assert type(source.module) is hazard.Layered
    assert source.module.training
    assert source.module.state_dict().keys() == before.keys()


def test_a_network_that_draws_nothing_stays_as_it_is() -> None:
    source = Source(odd.Small(), odd.spec_of(), "test")
    for choice in ("input", "freeze"):
        found = source_with_noise(source, choice)
        assert (found.module, found.spec) == (source.module, source.spec)
        assert found.notes == {"random": choice, "draws": {}}


@pytest.mark.parametrize(
    ("network", "choice", "problem", "remedy"),
    [
        (hazard.NoRow, "input", "not one row per image: the network itself (NoRow), torch.randn", "--random freeze"),
        (odd.SeededNoise, "input", "not one row per image", "--random freeze"),
        (hazard.DrawsPerImage, "input", "what the network draws depends on the batch", "x.shape[0] rows"),
        (
            hazard.Leaky,
            "input",
            "neither normal nor uniform ones: 'act' (RReLU), torch.nn.functional.rrelu",
            "an input",
        ),
        (hazard.Permuted, "freeze", "neither normal nor uniform ones: the network itself (Permuted)", "an input"),
    ],
)
def test_draws_that_cannot_be_replaced_are_refused(
    network: type[nn.Module], choice: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ExportError) as caught:
        source_with_noise(source_of(network), choice)
    assert problem in caught.value.problem
    assert remedy in (caught.value.remedy or "")


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="'keep' is no way"):
        source_with_noise(source_of(hazard.Layered), "keep")
