"""Matrix functions of weights: computed at export, with the network's own bits; those of inputs are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import odd_networks as odd
import onnx
import pytest
import torch
from hazards import exported, operators
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.program.baked import bake_constants
from ganexport.program.tracing import program_from_generator
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector

torch.set_num_threads(1)
SIDE, CHANNELS = 4, 4


class Coupling(nn.Module):
    """An affine coupling on images (Dinh et al., "Density estimation using Real NVP", 2017, equation 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        shift, scale = self.net(a).chunk(2, 1)
        return a, b, shift, torch.tanh(scale)

    def encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b, shift, log_scale = self.parts(x)
        return torch.cat([a, b * torch.exp(log_scale) + shift], 1), log_scale.sum((1, 2, 3))

    def drawn(self, z: Tensor) -> Tensor:
        a, b, shift, log_scale = self.parts(z)
        return torch.cat([a, (b - shift) * torch.exp(-log_scale)], 1)


class Invertible1x1(nn.Module):
    """Glow's invertible 1×1 convolution. precise: inverse and determinant in float64, as in normflows."""

    def __init__(self, precise: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CHANNELS, CHANNELS) + 2 * torch.eye(CHANNELS))
        self.precise = precise

    def _weight(self) -> Tensor:
        return self.weight.double() if self.precise else self.weight

    def encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_determinant = torch.slogdet(self._weight())[1].to(x.dtype) * (x.shape[2] * x.shape[3])
        return functional.conv2d(x, self.weight[:, :, None, None]), log_determinant.expand(x.shape[0])

    def drawn(self, z: Tensor) -> Tensor:
        inverse = torch.inverse(self._weight()).to(z.dtype)
        return functional.conv2d(z, inverse.view(CHANNELS, CHANNELS, 1, 1))


class Drawn(nn.Module):
    """z to x."""

    def __init__(self, precise: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList([Coupling(), Invertible1x1(precise), Coupling()])

    def forward(self, z: Tensor) -> Tensor:
        for step in reversed(self.steps):
            z = cast(Any, step).drawn(z)
        return z


class Encoded(Drawn):
    """x to z, and the logarithm of the Jacobian's determinant."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        total = torch.zeros(x.shape[0])
        for step in self.steps:
            x, change = cast(Any, step).encoded(x)
            total = total + change
        return x, total[:, None]


PICTURE = TensorSpec("x", "float32", (CHANNELS, SIDE, SIDE), Image())
CODE = TensorSpec("z", "float32", (CHANNELS, SIDE, SIDE), Latent())
DIRECTIONS: dict[str, tuple[type[Drawn], GeneratorSpec]] = {
    "drawn": (Drawn, GeneratorSpec("flow", (CODE,), (PICTURE,))),
    "encoded": (
        Encoded,
        GeneratorSpec(
            "flow",
            (PICTURE,),
            (TensorSpec("z", "float32", CODE.shape, Vector()), TensorSpec("log_det", "float32", (1,), Vector())),
        ),
    ),
}


@pytest.mark.parametrize(("direction", "precise"), [("drawn", False), ("drawn", True), ("encoded", True)])
def test_a_flow_is_exported_in_both_directions_for_every_batch(direction: str, precise: bool) -> None:
    torch.manual_seed(3)
    network, spec = DIRECTIONS[direction]
    graph = exported(network(precise).eval(), spec)
    assert not {"Det", "Cast", "Inverse"} & set(operators(graph))
    model = onnx.load_from_string(graph)
    assert TensorProto.DOUBLE not in {weight.data_type for weight in model.graph.initializer}


def test_what_is_baked_has_the_networks_own_bits() -> None:
    torch.manual_seed(3)
    network, spec = DIRECTIONS["drawn"]
    flow = network(True).eval()
    graph = onnx.load_from_string(onnx_from_generator(inference_copy(flow, spec), spec))
    weights = {numpy_helper.to_array(weight).tobytes() for weight in graph.graph.initializer}
    assert torch.inverse(flow.get_parameter("steps.1.weight").detach().double()).float().numpy().tobytes() in weights


class Linear(nn.Module):
    """z times a matrix that a function makes of a weight, and of z."""

    def __init__(self, matrix: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(odd.LATENT, odd.LATENT) + 4 * torch.eye(odd.LATENT))
        self.matrix = matrix

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = torch.matmul(z[:, None], self.matrix(self.weight, z))[:, 0]
        return x


def _changed_before(weight: Tensor, z: Tensor) -> Tensor:
    double = weight.double()
    double.mul_(2.0)
    return torch.inverse(double).float()


def _lower_solved(weight: Tensor, z: Tensor) -> Tensor:
    lower = torch.tril(weight, -1) + torch.eye(odd.LATENT)
    solved: Tensor = torch.linalg.solve_triangular(lower, weight.triu(), upper=False)
    return solved


BAKED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "in place before": _changed_before,
    "LU solved": _lower_solved,
    "matrix exponential": lambda w, z: torch.linalg.matrix_exp((w - w.T) / 8),
    "pseudo-inverse": lambda w, z: torch.linalg.pinv(w),
    "determinant": lambda w, z: w / torch.det(w.double()).abs().log().float(),
}


def vector_spec() -> GeneratorSpec:
    return GeneratorSpec("matrix", (odd.Z,), (TensorSpec("x", "float32", (odd.LATENT,), Vector()),))


@pytest.mark.parametrize("name", BAKED)
def test_matrix_functions_of_weights_become_constants(name: str) -> None:
    torch.manual_seed(4)
    assert set(operators(exported(Linear(BAKED[name]).eval(), vector_spec()))) <= {
        "MatMul",
        "Gemm",
        "Unsqueeze",
        "Squeeze",
        "Gather",
        "Reshape",
    }


def test_an_orthogonal_parametrisation_is_exported() -> None:
    torch.manual_seed(5)
    for map_name in ("matrix_exp", "householder"):
        layer = nn.utils.parametrizations.orthogonal(nn.Linear(odd.LATENT, odd.LATENT), orthogonal_map=map_name)
        assert operators(exported(layer.eval(), vector_spec())) == ["Gemm"]


def _written_into(weight: Tensor, z: Tensor) -> Tensor:
    own = weight.clone()
    own[0] = z[0]
    return torch.inverse(own)


FROM_INPUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "an input in the matrix": lambda w, z: torch.inverse(w * (1.0 + z[:, :1, None])),
    "an input written into a weight's copy": _written_into,
    "an inverse per sample": lambda w, z: torch.inverse(w + z[:, :, None]),
}


@pytest.mark.parametrize("name", FROM_INPUTS)
def test_a_matrix_function_of_an_input_is_refused_by_its_module(name: str) -> None:
    torch.manual_seed(6)
    network = nn.Sequential(nn.Identity(), Linear(FROM_INPUTS[name])).eval()
    with pytest.raises(ExportError) as caught:
        onnx_from_generator(inference_copy(network, vector_spec()), vector_spec())
    assert "'1' (Linear)" in caught.value.problem
    assert "closed form" in str(caught.value.remedy)


def test_what_is_written_into_after_it_was_read_is_left_alone() -> None:
    """Its value when it is read is not the one at the end; refusing it is better than a wrong constant."""

    def changed_after(weight: Tensor, z: Tensor) -> Tensor:
        inverse = torch.inverse(weight)
        early = inverse * z[:, :1, None]
        inverse.add_(1.0)
        return early + inverse

    torch.manual_seed(7)
    with pytest.raises(ExportError, match="linalg_inv_ex"):
        onnx_from_generator(inference_copy(Linear(changed_after).eval(), vector_spec()), vector_spec())


def test_weights_stay_as_they_are_and_places_are_named() -> None:
    torch.manual_seed(8)
    network = nn.Sequential(nn.Identity(), Linear(_changed_before)).eval()
    program = program_from_generator(inference_copy(network, vector_spec()), vector_spec())
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    places = bake_constants(program)
    assert len(places) == 1
    assert places[0].startswith("'1' (Linear)")
    for name, tensor in before.items():
        np.testing.assert_array_equal(program.state_dict[name], tensor)
    assert bake_constants(program_from_generator(nn.Linear(odd.LATENT, odd.LATENT), vector_spec())) == []
