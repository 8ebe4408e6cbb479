"""The passes together, on networks of ours and on those of others; and the proof, with passes that are wrong."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hand_made_graphs import normal, operators, run
from torch import nn

from ganexport.passes import pipeline
from ganexport.passes.pipeline import DEFAULT_PASSES, PASSES, run_passes
from ganexport.passes.report import PassReport
from ganruntime.errors import ExportError, InputError


class Old(nn.Module):
    """What an older code base writes: spectral norm by hook, BatchNorm, a gain, a clamp."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.dense = nn.utils.spectral_norm(nn.Linear(16, 8 * 16))
        self.up = nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(8, 8, 4, 2, 1))
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.up(self.dense(z).view(-1, 8, 4, 4))))
        return torch.clamp(self.out(x) * 0.5 + 0.5, 0, 1)


@pytest.fixture(scope="module")
def exported() -> tuple[nn.Module, bytes]:
    """The network after a few steps in train mode, so that no statistic is trivial, and its graph as traced."""
    torch.manual_seed(0)
    network = Old()
    for _ in range(5):
        network(torch.randn(8, 16))
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.randn(2, 16),),
            dynamo=True,
            input_names=["z"],
            output_names=["image"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            optimize=False,
            verbose=False,
            opset_version=18,
        )
    assert program is not None
    return network, program.model_proto.SerializeToString()


def model_of(data: bytes) -> ir.Model:
    import onnx

    return ir.from_proto(onnx.load_from_string(data))


def test_what_remains_is_what_inference_needs(exported: tuple[nn.Module, bytes]) -> None:
    network, data = exported
    model = model_of(data)
    reports = run_passes(model, {"z": normal(3, 16)})
    assert operators(model) == ["Gemm", "Reshape", "ConvTranspose", "Relu", "Conv", "Clip"]
    assert [r.name for r in reports] == list(DEFAULT_PASSES)
    assert all(r.max_abs_change < 1e-5 for r in reports)
    z = normal(7, 16, seed=5)
    with torch.inference_mode():
        expected = network(torch.from_numpy(z)).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(run(model, {"z": z})[0], expected, atol=1e-5)
    # Nothing is left over: every constant is read.
    read = {value.name for node in model.graph for value in node.inputs if value is not None}
    assert set(model.graph.initializers) <= read


def test_a_pass_that_changes_what_is_computed_is_named(
    exported: tuple[nn.Module, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: ir.Model) -> PassReport:
        name, value = next((n, v) for n, v in model.graph.initializers.items() if "weight" in n)
        value.const_value = ir.tensor(value.const_value.numpy() * 1.01, name=name)
        return PassReport("wrong", ["made it wrong"])

    monkeypatch.setitem(pipeline.PASSES, "wrong", wrong)
    with pytest.raises(ExportError, match="the pass wrong changed what the graph computes"):
        run_passes(model_of(exported[1]), {"z": normal(3, 16)}, [*DEFAULT_PASSES, "wrong"])


def test_a_pass_that_makes_nan_is_named(exported: tuple[nn.Module, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model) -> PassReport:
        name, value = next((n, v) for n, v in model.graph.initializers.items() if "weight" in n)
        value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), np.nan), name=name)
        return PassReport("wrong", ["made it wrong"])

    monkeypatch.setitem(pipeline.PASSES, "wrong", wrong)
    with pytest.raises(ExportError, match="the pass wrong"):
        run_passes(model_of(exported[1]), {"z": normal(3, 16)}, ["wrong"])


def test_an_unknown_pass() -> None:
    with pytest.raises(InputError, match="no pass is called 'speed'"):
        run_passes(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10), {}, ["speed"])


def test_the_default_is_a_choice_of_the_known_passes() -> None:
    assert set(DEFAULT_PASSES) <= set(PASSES)
