"""Modulated convolution as a grouped one: rewritten to the scaled form and held against its own code, or refused."""

from __future__ import annotations

import hazard_modulated as hazard
import odd_networks as odd
import onnx
import pytest
import torch
from hazards import exported, operators
from torch import nn

from ganexport.graph import inference_copy, onnx_from_generator
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec, TensorSpec, Vector

NETWORKS = {
    "plain": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 6, demodulate=False)),
    "demodulated": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 6)),
    "one by one, to three channels": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 3, 1, demodulate=False)),
    "one channel": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 1), hazard.ModulatedConv(1, 2)),
    "up": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 6, up=True)),
    "as many channels in as out, up": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 4, up=True)),
    "three layers": lambda: hazard.Synthesis(
        hazard.ModulatedConv(4, 6, up=True), hazard.ModulatedConv(6, 6), hazard.ModulatedConv(6, 3, 1, demodulate=False)
    ),
    "as in ada": lambda: hazard.Synthesis(hazard.AdaConv(4, 6)),
    "divided": lambda: hazard.Synthesis(hazard.DividedConv(4, 6)),
    "one dimension": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 6, dims=1), dims=1),
    "three dimensions, up": lambda: hazard.Synthesis(hazard.ModulatedConv(4, 6, dims=3, up=True), dims=3),
}


def case(name: str) -> tuple[nn.Module, GeneratorSpec]:
    torch.manual_seed(3)
    network = NETWORKS[name]().eval()
    with torch.inference_mode():
        shape = tuple(network(torch.randn(2, odd.LATENT)).shape[1:])
    return network, odd.spec_of(outputs=(TensorSpec("image", "float32", shape, Vector()),))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_modulated_convolution_is_exported_in_the_scaled_form(name: str) -> None:
    network, spec = case(name)
    graph = exported(network, spec)
    convolutions = [n for n in onnx.load_from_string(graph).graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == len(network.layers)
    constants = {c.name for c in onnx.load_from_string(graph).graph.initializer}
    for node in convolutions:
        groups = [a.i for a in node.attribute if a.name == "group"]
        assert groups in ([], [1])
        assert node.input[1] in constants  # one weight for all samples, known before anything runs


@pytest.mark.parametrize("name", ["demodulated", "as in ada", "divided", "up"])
def test_weights_per_sample_are_made_nowhere(name: str) -> None:
    """Demodulation comes from s² and W²: one matrix product, and no sum over [N, O, I, k, k]."""
    network, spec = case(name)
    names = operators(exported(network, spec))
    assert not [n for n in names if n.startswith("Reduce")]
    assert len([n for n in names if n in ("MatMul", "Gemm")]) >= 2


@pytest.mark.parametrize(
    ("layer", "got"), [(hazard.AddedConv, "aten.add.Tensor"), (hazard.HyperConv, "['N', 4, 4, 3, 3]")]
)
def test_a_weight_that_does_not_come_apart_is_refused_with_the_way_to_write_it(
    layer: type[nn.Module], got: str
) -> None:
    torch.manual_seed(3)
    network = hazard.Synthesis(hazard.ModulatedConv(4, 4), layer())
    spec = odd.spec_of(outputs=(TensorSpec("image", "float32", (4, 4, 4), Vector()),))
    with pytest.raises(ExportError) as caught:
        onnx_from_generator(inference_copy(network, spec), spec)
    error = caught.value
    assert f"the batch is in the groups of 'layers.1' ({layer.__name__}), aten.conv2d.default" in error.problem
    assert got in str(error.got)
    assert "x * s[:, :, None, None]" in (error.remedy or "")


def test_a_batch_that_python_turned_into_a_number_is_refused_by_its_module() -> None:
    network = hazard.Synthesis(hazard.ModulatedConv(4, 4), hazard.IntegerBatchConv(4, 4))
    spec = odd.spec_of(outputs=(TensorSpec("image", "float32", (4, 4, 4), Vector()),))
    with pytest.raises(ExportError) as caught:
        onnx_from_generator(inference_copy(network, spec), spec)
    assert "the batch is fixed to 2 in 'layers.1' (IntegerBatchConv)" in caught.value.problem
    assert "hazard_modulated.py:" in caught.value.problem
    assert "x.shape[0]" in (caught.value.remedy or "")


def test_the_smallest_of_all_is_exported_too() -> None:
    exported(odd.BatchInGroups(), odd.spec_of())
