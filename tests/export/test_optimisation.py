"""From the exporter's graph to the optimised one: held against the exporter's own optimiser, and against PyTorch."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections import Counter

import numpy as np
import odd_networks as odd
import onnx
import onnx_ir as ir
import onnxruntime
import pass_networks
import pytest
import torch
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.optimisation import chosen_passes, optimised_from_exported
from ganexport.passes import pipeline
from ganexport.passes.fold_constants import fold_constants
from ganexport.passes.pipeline import DEFAULT_PASSES, PASSES
from ganexport.passes.report import PassReport
from ganexport.probes import probe_inputs
from ganruntime.errors import ExportError, InputError
from ganruntime.spec import GeneratorSpec

NETWORKS = ("dcgan", "mlp", *pass_networks.NETWORKS)


@functools.cache
def network_of(name: str) -> tuple[nn.Module, GeneratorSpec]:
    if name in pass_networks.NETWORKS:
        return pass_networks.trained_a_little(name)
    settings = {
        "dcgan": {"z_size": 16, "size": 32, "channels": 3, "width": 8},
        "mlp": {"z_size": 16, "size": 12, "channels": 3, "widths": [32, 48]},
    }
    module, spec, _ = odd.lively_with_spec(f"{name}_generator", **settings[name])
    return module, spec


@functools.cache
def exported(name: str) -> tuple[bytes, tuple[PassReport, ...]]:
    reports: list[PassReport] = []
    module, spec = network_of(name)
    return onnx_from_generator(inference_copy(module, spec), spec, on_pass=reports.append), tuple(reports)


def nodes_of(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


def by_the_exporter(module: nn.Module, spec: GeneratorSpec) -> onnx.ModelProto:
    """The graph after torch.onnx's own optimiser."""
    example = tuple(torch.from_numpy(a) for a in probe_inputs(spec, 1, 0, 2).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            copy.deepcopy(module).eval(),
            example,
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in example),
            optimize=True,
            verbose=False,
            opset_version=18,
        )
    assert program is not None
    return program.model_proto


@pytest.mark.parametrize("name", NETWORKS)
def test_no_more_nodes_than_the_exporters_own_optimiser_leaves(name: str) -> None:
    theirs = [node.op_type for node in by_the_exporter(*network_of(name)).graph.node]
    ours = nodes_of(exported(name)[0])
    assert len(ours) <= len(theirs), Counter(ours) - Counter(theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_left_that_inference_does_not_need(name: str) -> None:
    data, _ = exported(name)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert [o.domain for o in model.opset_import] == [""]
    assert not {"Identity", "Dropout", "Constant", "CastLike"} & set(nodes_of(data))
    # Nothing with known values is left to be computed, shapes among it.
    assert fold_constants(ir.from_proto(model)).changed == []
    read = {name for node in model.graph.node for name in node.input}
    assert {i.name for i in model.graph.initializer} <= read


def test_a_dcgan_is_its_layers_and_nothing_else() -> None:
    # The first transposed convolution, of a latent, is one product of matrices and a reshape.
    expected = ["Gemm", "Reshape", "Relu", *["ConvTranspose", "Relu"] * 2, "ConvTranspose", "Tanh"]
    assert nodes_of(exported("dcgan")[0]) == expected


def test_spectral_norm_is_folded_and_had_something_to_fold() -> None:
    module, _ = network_of("residual")
    data, _ = exported("residual")
    parametrised = module.dense.parametrizations.weight
    assert float((parametrised.original - module.dense.weight).detach().abs().max()) > 1e-2
    weights = [onnx.numpy_helper.to_array(i) for i in onnx.load_from_string(data).graph.initializer]
    normed = module.dense.weight.detach().numpy()
    assert any(w.shape == normed.shape and np.allclose(w, normed, atol=1e-6) for w in weights)
    assert not {"MatMul", "Div", "ReduceSum", "Sqrt", "Norm"} & set(nodes_of(data))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_computed_is_what_the_network_computes_in_any_batch(name: str) -> None:
    module, spec = network_of(name)
    session = onnxruntime.InferenceSession(exported(name)[0], providers=["CPUExecutionProvider"])
    for seed, batch in enumerate((1, 2, 3, 7, 64)):
        inputs = probe_inputs(spec, 300 + seed, 0, batch)
        expected = eager_outputs(copy.deepcopy(module).eval(), spec, inputs)["image"]
        assert expected.std() > 0.02
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["styled", "residual"])
def test_exporting_twice_gives_the_same_bytes(name: str) -> None:
    module, spec = network_of(name)
    assert onnx_from_generator(inference_copy(module, spec), spec) == exported(name)[0]


def test_there_is_a_report_of_every_pass_and_the_counts_meet() -> None:
    data, reports = exported("styled")
    assert [r.name for r in reports] == list(DEFAULT_PASSES)
    for earlier, later in itertools.pairwise(reports):
        assert earlier.nodes_after == later.nodes_before
        assert earlier.nodes_after <= earlier.nodes_before
        assert 0 <= earlier.max_abs_change < 1e-5
    assert reports[-1].nodes_after == len(nodes_of(data)) < reports[0].nodes_before
    did = {r.name for r in reports if r.changed}
    assert {"fold_constants", "simplify", "fold_affine", "fuse_clamp", "share_common", "prune"} <= did


def test_passes_are_left_out_and_added_by_name() -> None:
    assert chosen_passes() == DEFAULT_PASSES
    assert "fuse_clamp" not in chosen_passes(["fuse_clamp"])
    assert chosen_passes(extra=["convtranspose_to_subpixel"])[-2:] == ("convtranspose_to_subpixel", "prune")
    assert chosen_passes(["prune"], ["convtranspose_to_subpixel"])[-1] == "convtranspose_to_subpixel"
    assert chosen_passes(extra=["fuse_clamp"]) == DEFAULT_PASSES
    for arguments in ((["speed"],), ((), ["speed"])):
        with pytest.raises(InputError, match="no pass is called 'speed'") as caught:
            chosen_passes(*arguments)
        assert caught.value.expected == ", ".join(PASSES)
    with pytest.raises(InputError, match="both left out and asked for"):
        chosen_passes(["fuse_clamp"], ["fuse_clamp"])


def test_without_a_pass_its_work_is_not_done_and_the_graph_is_as_right() -> None:
    module, spec = network_of("dcgan")
    twin = inference_copy(module, spec)
    data = onnx_from_generator(twin, spec, passes=chosen_passes(["fold_batchnorm"], ["convtranspose_to_subpixel"]))
    found = Counter(nodes_of(data))
    assert (found["BatchNormalization"], found["ConvTranspose"], found["DepthToSpace"]) == (3, 0, 3)
    inputs = probe_inputs(spec, 5, 0, 3)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, inputs)[0], eager_outputs(twin, spec, inputs)["image"], rtol=0, atol=1e-5
    )


def test_a_pass_that_computes_something_else_fails_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model) -> PassReport:
        relu = next(node for node in model.graph if node.op_type == "Relu")
        relu.op_type = "Sigmoid"
        return PassReport("wrong", ["made it wrong"])

    monkeypatch.setitem(pipeline.PASSES, "wrong", wrong)
    module, spec = network_of("dcgan")
    with pytest.raises(ExportError, match=r"dcgan-generator: the pass wrong changed what the graph computes") as caught:
        onnx_from_generator(inference_copy(module, spec), spec, passes=[*DEFAULT_PASSES, "wrong"])
    assert "--without-pass wrong" in (caught.value.remedy or "")


def test_a_graph_that_does_not_run_is_an_error_that_says_when() -> None:
    _, spec = network_of("mlp")
    model = onnx.load_from_string(exported("mlp")[0])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 16], np.int64), "baked"))
    for node in model.graph.node:
        node.input[:] = ["two" if name == "z" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["z", "baked"], ["two"]))
    with pytest.raises(ExportError, match="mlp-generator: the graph does not run before any pass") as caught:
        optimised_from_exported(model, spec)
    assert caught.value.expected == "a graph that takes z [3, 16]"
