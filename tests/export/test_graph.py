"""Networks to graphs: what must be right in the file, and what must be refused with a word that helps."""

from __future__ import annotations

import copy
import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import odd_networks as odd
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.probes import probe_inputs
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    f"dcgan-{size}px-{channels}ch": ("dcgan_generator", {"z_size": 16, "size": size, "channels": channels, "width": 8})
    for size in (16, 32)
    for channels in (1, 3, 4)
}
NETWORKS["mlp"] = ("mlp_generator", {"z_size": 16, "size": 12, "channels": 3, "widths": [32, 48, 64]})


@functools.cache
def exported(name: str) -> tuple[nn.Module, GeneratorSpec, bytes]:
    network, settings = NETWORKS[name]
    module, spec, _ = odd.lively_with_spec(network, **settings)
    return module, spec, onnx_from_generator(inference_copy(module, spec), spec)


def graph_outputs(graph: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_computes_what_the_network_computes_in_any_batch(name: str) -> None:
    module, spec, graph = exported(name)
    twin = copy.deepcopy(module).eval()
    for seed, batch in enumerate((1, 2, 3, 5, 64)):
        inputs = probe_inputs(spec, 1000 + seed, 0, batch)
        expected = eager_outputs(twin, spec, inputs)["image"]
        (found,) = graph_outputs(graph, inputs)
        assert found.shape == (batch, *spec.outputs[0].shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.05  # something to be wrong about


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norm_is_folded_and_had_something_to_fold(name: str) -> None:
    module, _, graph = exported(name)
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert norms
    for norm in norms:
        assert float((norm.running_mean.abs()).max()) > 1e-2
        assert float((norm.running_var - 1).abs().max()) > 1e-2
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Sqrt", "Div"}
    weighted = [n for n in model.graph.node if n.op_type in ("ConvTranspose", "Conv", "Gemm", "MatMul")]
    assert len(weighted) == len([m for m in module.modules() if isinstance(m, (nn.Linear, nn.ConvTranspose2d))])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_says_its_spec_and_nothing_of_this_machine(name: str) -> None:
    _, spec, graph = exported(name)
    model = onnx.load_from_string(graph)
    metadata = {p.key: p.value for p in model.metadata_props}
    assert GeneratorSpec.loads(metadata["ganexport.spec"]) == spec
    assert set(metadata) == {"ganexport.spec", "ganexport.version"}
    assert [v.name for v in model.graph.input] == [t.name for t in spec.inputs]
    assert [v.name for v in model.graph.output] == [t.name for t in spec.outputs]
    for value, tensor in zip((*model.graph.input, *model.graph.output), (*spec.inputs, *spec.outputs), strict=True):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch"
        assert [d.dim_value for d in rest] == list(tensor.shape)
    _assert_no_traces(graph)


def _assert_no_traces(graph: bytes) -> None:
    here = Path(__file__).resolve()
    for trace in (str(here.parent), str(Path.cwd()), str(Path(torch.__file__).parent), 'File "', ".py", "forward"):
        assert trace.encode() not in graph, trace


def test_exporting_twice_gives_the_same_bytes() -> None:
    name = "dcgan-16px-1ch"
    module, spec, graph = exported(name)
    assert onnx_from_generator(inference_copy(module, spec), spec) == graph


def test_the_network_itself_is_not_touched() -> None:
    module, spec, _ = odd.lively_with_spec("dcgan_generator", z_size=16, size=16, channels=1, width=8)
    module.train()
    before = copy.deepcopy(module.state_dict())
    twin = inference_copy(module, spec)
    onnx_from_generator(twin, spec)
    assert module.training
    assert all(m.training for m in module.modules())
    assert all(p.requires_grad for p in module.parameters())
    assert {k: v.tolist() for k, v in module.state_dict().items()} == {k: v.tolist() for k, v in before.items()}
    assert not twin.training


def test_the_network_is_not_touched_by_an_export_that_fails() -> None:
    module = odd.UpdatesBuffer()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ExportError):
        inference_copy(module, odd.spec_of())
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_later_opset_is_obeyed() -> None:
    spec = odd.spec_of()
    model = onnx.load_from_string(onnx_from_generator(inference_copy(odd.Small(), spec), spec, opset=21))
    assert {o.domain: o.version for o in model.opset_import} == {"": 21}


def test_an_opset_that_is_not_there_is_refused() -> None:
    spec = odd.spec_of()
    with pytest.raises(ExportError, match="odd: "):
        onnx_from_generator(inference_copy(odd.Small(), spec), spec, opset=99)


# What is refused before anything is exported: (network, what is wrong, what to do).
REFUSED_EARLY = [
    (odd.RandomNoise, "the network draws random numbers", "role 'noise'"),
    (odd.SeededNoise, "the network draws random numbers", "--random freeze"),
    (odd.DropoutLeftOn, "the network draws random numbers", "dropout off in eval mode"),
    (odd.UpdatesBuffer, "forward changes 'w_avg' in eval mode", "if self.training"),
    (odd.UpdatesHiddenBuffer, "forward changes 'count' in eval mode", "if self.training"),
    (odd.UsesBatchStatistics, "a row of 'image' depends on the other rows", "track_running_stats=True"),
    (odd.BranchesOnOne, "a row of 'image' depends on the other rows", "Python conditions"),
    (odd.BranchesOnSmallBatch, "a row of 'image' depends on the other rows", "Python conditions"),
    (odd.FixedReshape, "forward failed in the network itself (FixedReshape)", None),
    (odd.Raises, "forward failed in the network itself (Raises)", None),
    (odd.WrongShape, "output 'image' is not as the spec says", "correct the spec"),
    (odd.WrongDtype, "output 'image' is not as the spec says", "correct the spec"),
    (odd.HalfOutput, "output 'image' is not as the spec says", "correct the spec"),
    (odd.TwoOutputs, "forward gives other outputs than the spec", "return one tensor"),
    (odd.DictOutput, "forward gives other outputs than the spec", "return one tensor"),
    (odd.NotFinite, "values that are not finite", "earlier checkpoint"),
]


@pytest.mark.parametrize(("network", "problem", "remedy"), REFUSED_EARLY, ids=[r[0].__name__ for r in REFUSED_EARLY])
def test_a_network_that_is_no_function_of_its_inputs_is_refused(
    network: type[nn.Module], problem: str, remedy: str | None
) -> None:
    with pytest.raises(ExportError) as caught:
        inference_copy(network(), odd.spec_of())
    assert problem in caught.value.problem
    assert caught.value.problem.startswith("odd: ")
    assert remedy is None or remedy in (caught.value.remedy or "")


def test_errors_show_what_came_and_what_was_expected() -> None:
    with pytest.raises(ExportError) as caught:
        inference_copy(odd.WrongShape(), odd.spec_of())
    assert (caught.value.got, caught.value.expected) == ("float32 [2, 1, 3, 4]", "float32 [2, 1, 4, 4]")
    with pytest.raises(ExportError) as caught:
        inference_copy(odd.Raises(), odd.spec_of())
    assert caught.value.got == "RuntimeError: no such layer"
    assert caught.value.expected == "to take {'z': [2, 8]}"
    with pytest.raises(ExportError) as caught:
        inference_copy(odd.DictOutput(), odd.spec_of())
    assert (caught.value.got, caught.value.expected) == ("dict", "image")


def test_what_cannot_be_copied_is_refused_with_the_way_out() -> None:
    network = odd.Small()
    network.lock = threading.Lock()
    with pytest.raises(ExportError, match="cannot be copied") as caught:
        inference_copy(network, odd.spec_of())
    assert "lock" in str(caught.value.got)
    assert "locks" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (odd.SeededNoiseInBranch, "the graph draws random numbers"),
        (
            odd.BranchesOnValues,
            "torch cannot trace the network itself (BranchesOnValues), torch.Tensor.__bool__, odd_networks.py:",
        ),
        (
            odd.BranchesOnLargeBatch,
            "the batch is held between 0 and 47 in the network itself (BranchesOnLargeBatch), odd_networks.py:",
        ),
    ],
)
def test_a_graph_that_cannot_be_trusted_is_refused(
    network: type[nn.Module], problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = odd.spec_of()
    twin = inference_copy(network(), spec)
    with pytest.raises(ExportError) as caught:
        onnx_from_generator(twin, spec)
    assert caught.value.problem.startswith(f"odd: {problem}")
    assert caught.value.got
    assert caught.value.remedy
    # The exporter's pages of advice stay out of the terminal.
    assert capfd.readouterr() == ("", "")


def test_an_input_that_is_not_used_is_refused() -> None:
    spec = odd.spec_of(odd.Z, odd.LABEL, odd.TRUNCATION)
    with pytest.raises(ExportError, match="does not use its input 'label'") as caught:
        onnx_from_generator(inference_copy(odd.IgnoresLabel(), spec), spec)
    assert caught.value.got == "uses z, truncation"


def test_traces_are_gone_from_branches_too() -> None:
    spec = odd.spec_of()
    network = odd.Branches()
    graph = onnx_from_generator(inference_copy(network, spec), spec)
    assert "If" in {n.op_type for n in onnx.load_from_string(graph).graph.node}
    _assert_no_traces(graph)
    inputs = probe_inputs(spec, 7, 0, 3)
    np.testing.assert_allclose(
        graph_outputs(graph, inputs)[0], eager_outputs(network, spec, inputs)["image"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("network", [odd.Conditional, odd.ConditionalStarred])
def test_several_inputs_keep_their_order_and_all_matter(network: type[nn.Module]) -> None:
    spec = odd.spec_of(odd.Z, odd.LABEL, odd.TRUNCATION)
    module = network().eval()
    graph = onnx_from_generator(inference_copy(module, spec), spec)
    inputs = probe_inputs(spec, 11, 0, 5)
    expected = eager_outputs(module, spec, inputs)["image"]
    np.testing.assert_allclose(graph_outputs(graph, inputs)[0], expected, rtol=0, atol=1e-6)
    for name, other in (("z", -inputs["z"]), ("label", (inputs["label"] + 1) % 3), ("truncation", inputs["z"][:, 0])):
        assert np.abs(graph_outputs(graph, inputs | {name: other})[0] - expected).max() > 1e-2


def test_a_forward_of_one_starred_argument_is_exported() -> None:
    spec = odd.spec_of()
    graph = onnx_from_generator(inference_copy(odd.Starred(), spec), spec)
    assert onnx.load_from_string(graph).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (odd.spec_of(outputs=(TensorSpec("image", "bfloat16", (1, 4, 4), Image()),)), "'image' is bfloat16"),
        (odd.spec_of(outputs=(TensorSpec("image", "float32", (1, None, 4), Image()),)), "'image' has dimensions"),
        (odd.spec_of(TensorSpec("photo", "float32", (3, None, 8), Image())), "'photo' has dimensions"),
    ],
)
def test_specs_that_this_release_does_not_export_are_refused(spec: GeneratorSpec, problem: str) -> None:
    with pytest.raises(ExportError, match=problem) as caught:
        inference_copy(odd.Small(), spec)
    assert caught.value.remedy
