"""Every hazard of generators that is known by name: exported and computed the same, or refused by its module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import hazard_layers as hazard
import odd_networks as odd
import pytest
import torch
from hazards import exported, operators
from torch import nn
from torch.nn import functional

from ganexport.graph import inference_copy, onnx_from_generator
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec, TensorSpec, Vector

EXPORTED: dict[str, Callable[[], nn.Module]] = {
    "spectral norm, hook": lambda: hazard.Drawn(hazard.spectral(nn.Conv2d(4, 3, 3), True)),
    "spectral norm, parametrisation": lambda: hazard.Drawn(hazard.spectral(nn.ConvTranspose2d(4, 3, 4, 2, 1), False)),
    "weight norm, hook": lambda: hazard.Drawn(hazard.weight_normed(nn.Conv2d(4, 3, 3), True)),
    "weight norm, parametrisation": lambda: hazard.Drawn(hazard.weight_normed(nn.Conv2d(4, 3, 3), False)),
    "instance norm": lambda: hazard.Drawn(nn.InstanceNorm2d(4)),
    "instance norm, affine": lambda: hazard.Drawn(hazard.settled(nn.InstanceNorm2d(4, affine=True))),
    "instance norm with running statistics": lambda: hazard.Drawn(
        hazard.settled(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    ),
    "group norm": lambda: hazard.Drawn(hazard.settled(nn.GroupNorm(2, 4))),
    "pixel norm": lambda: hazard.Drawn(hazard.PixelNorm(), nn.Conv2d(4, 3, 3)),
    "pixel shuffle": lambda: hazard.Drawn(nn.Conv2d(4, 12, 3), nn.PixelShuffle(2)),
    "pixel unshuffle": lambda: hazard.Drawn(nn.PixelUnshuffle(2), nn.Conv2d(16, 3, 1)),
    "equalised learning rate": lambda: hazard.Drawn(hazard.EqualisedConv(4, 3)),
    "fade-in under way": lambda: hazard.Drawn(hazard.FadeIn(0.3)),
    "fade-in at its end": lambda: hazard.Drawn(hazard.FadeIn(1.0)),
    "grid sample, closed inverse": lambda: hazard.Drawn(hazard.Warp("closed")),
    "grid sample, border": lambda: hazard.Drawn(hazard.Warp("closed", "bilinear", "border", False)),
    "grid sample, reflection": lambda: hazard.Drawn(hazard.Warp("closed", "bilinear", "reflection", False)),
    "grid sample, torch.inverse": lambda: hazard.Drawn(hazard.Warp("torch")),
    "flow with baked inverses": lambda: hazard.Flow(baked=True),
    "inverse of a weight at every sample": lambda: hazard.Flow(baked=False),
    "custom autograd function of plain torch": lambda: hazard.Drawn(hazard.Applied(hazard.ScaledActivation.apply)),
    "bilinear upsampling": lambda: hazard.Drawn(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 3)),
    "reflection padding": lambda: hazard.Drawn(nn.ReflectionPad2d(2), nn.Conv2d(4, 3, 5)),
    "dropout in eval mode": lambda: hazard.Drawn(nn.Dropout2d(0.5), nn.Conv2d(4, 3, 3)),
    "lstm": lambda: Recurrent(),
}


class Recurrent(nn.Module):
    """A generator of curves."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(odd.LATENT, 6, batch_first=True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        steps = z[:, None] * torch.linspace(0.5, 1.5, 5)[None, :, None]  # [N, T, 8]
        curve: torch.Tensor = self.lstm(steps)[0]
        return curve


def spec_of(network: nn.Module) -> GeneratorSpec:
    with torch.no_grad():
        shape = tuple(network.eval()(torch.randn(2, odd.LATENT)).shape[1:])
    return odd.spec_of(outputs=(TensorSpec("image", "float32", shape, Vector()),))


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old hooks are deprecated, and in many checkpoints
        network = make()
        network.train()
        network(torch.randn(4, odd.LATENT))  # what a training leaves behind: computed weights, statistics
        return network.eval()


@pytest.mark.parametrize("name", EXPORTED)
def test_a_hazard_is_exported_and_computes_the_same(name: str) -> None:
    network = made(EXPORTED[name])
    graph = exported(network, spec_of(network))
    assert "Dropout" not in operators(graph)


def test_a_batch_of_one_is_computed_by_the_same_graph() -> None:
    torch.manual_seed(1)
    exported(hazard.OneIsSpecial(), odd.spec_of())


def test_truncation_by_lerp_is_exported_with_psi_an_input() -> None:
    torch.manual_seed(1)
    exported(hazard.Truncated(), odd.spec_of(odd.Z, odd.TRUNCATION))


REFUSED = {
    "extension op that torch cannot look into": (
        lambda: hazard.Drawn(nn.Identity(), hazard.Applied(hazard.NumpyActivation.apply)),
        "torch cannot trace 'layers.1' (Applied), torch.Tensor.numpy",
        "plain torch",
    ),
    "extension op that ONNX has not": (
        lambda: hazard.Drawn(nn.Identity(), hazard.LibraryOp()),
        "torch.onnx cannot export 'layers.1' (LibraryOp), odd.bias_act.default",
        "plain torch",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hazard_is_refused_by_its_module_and_node_with_the_change_to_make(name: str) -> None:
    make, problem, remedy = REFUSED[name]
    network = made(make)
    spec = spec_of(network)
    with pytest.raises(ExportError) as caught:
        onnx_from_generator(inference_copy(network, spec), spec)
    assert problem in caught.value.problem
    assert "hazard_layers.py:" in caught.value.problem
    assert remedy in (caught.value.remedy or "")


def test_statistics_that_an_instance_norm_keeps_are_the_eval_modes_own() -> None:
    """Not those of the image: with running statistics, eval computes something else than training did."""
    torch.manual_seed(2)
    norm = hazard.settled(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)).eval()
    x = torch.randn(2, 4, 8, 8)
    assert float((norm(x) - functional.instance_norm(x, weight=norm.weight, bias=norm.bias)).abs().max()) > 0.1


GEOMETRIES = [
    (kernel, stride, padding, output_padding, dilation)
    for kernel in (1, 2, 3, 4, 5)
    for stride in (1, 2, 3)
    for padding in (0, 1, 2)
    for output_padding in (0, 1, 2)
    for dilation in (1, 2)
    if output_padding < max(stride, dilation) and (8 - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 > 0
]
TOGETHER = 24  # an export takes a second whatever it holds, so many geometries are outputs of one network


class ManyGeometries(nn.Module):
    def __init__(self, geometries: Sequence[tuple[int, int, int, int, int]]) -> None:
        super().__init__()
        self.linear = nn.Linear(odd.LATENT, 4 * 64)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(4, 6, k, s, p, o, groups=1 + i % 2, bias=i % 3 > 0, dilation=d)
            for i, (k, s, p, o, d) in enumerate(geometries)
        )

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.tanh(self.linear(z)).reshape(-1, 4, 8, 8)
        return tuple(layer(x) for layer in self.layers)


RUN = [g for g in GEOMETRIES if g[3] < g[1]]


@pytest.mark.parametrize("start", range(0, len(RUN), TOGETHER))
def test_a_transposed_convolution_of_every_geometry_is_exported(start: int) -> None:
    torch.manual_seed(start)
    network = ManyGeometries(RUN[start : start + TOGETHER]).eval()
    with torch.no_grad():
        shapes = [tuple(y.shape[1:]) for y in network(torch.randn(2, odd.LATENT))]
    outputs = tuple(TensorSpec(f"image_{i}", "float32", shape, Vector()) for i, shape in enumerate(shapes))
    exported(network, odd.spec_of(outputs=outputs))


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[3] >= g[1]][::9])
def test_an_output_padding_that_no_backend_takes_is_refused_by_its_module(
    geometry: tuple[int, int, int, int, int],
) -> None:
    kernel, stride, padding, output_padding, dilation = geometry
    network = hazard.Drawn(nn.ConvTranspose2d(4, 6, kernel, stride, padding, output_padding, dilation=dilation)).eval()
    spec = spec_of(network)
    with pytest.raises(ExportError, match="output padding that is not smaller than the stride") as caught:
        onnx_from_generator(inference_copy(network, spec), spec)
    assert "'layers.0' (ConvTranspose2d)" in caught.value.problem
    assert "crop less" in (caught.value.remedy or "")
