"""StyleGAN2: the scaled form against the grouped one, truncation, mixing, noise, and the mean that a method moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ganruntime.errors import InputError
from gantrain.networks import NetworkRecord, network_from_record
from gantrain.networks.modulated import ModulatedConv2d
from gantrain.networks.resampling import downsampling, upsampled
from gantrain.networks.stylegan2 import Stylegan2Generator

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"z_size": 5, "size": 16, "channels": 2, "width": 4, "max_width": 8, "w_size": 6}


def built(**changes: object) -> Stylegan2Generator:
    torch.manual_seed(1)
    network = network_from_record(NetworkRecord("stylegan2_generator", {**SETTINGS, **changes}))
    assert isinstance(network, Stylegan2Generator)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("strength", "bias")):
                parameter.add_(0.5 * torch.randn_like(parameter))
        network.w_avg.normal_()
    return network.eval()


def inputs(network: Stylegan2Generator, n: int, seed: int = 0) -> tuple[Tensor, Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    noise = [torch.randn(n, *t.shape) for t in network.noise_tensors()]
    return torch.randn(n, network.z_size), torch.rand(n), noise


def grouped_form(layer: ModulatedConv2d, x: Tensor, w: Tensor) -> Tensor:
    """The reference twin, as the paper's equations 1 and 3 have it: a weight per sample, one group per sample."""
    n, inputs = x.shape[:2]
    weight = (layer.weight * layer.scale)[None] * layer.style(w)[:, None, :, None, None]  # [N, O, I, k, k]
    if layer.demodulate:
        weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    outputs, kernel = weight.shape[1], weight.shape[3]
    x = x.reshape(1, n * inputs, *x.shape[2:])
    if layer.blur is None:
        y = functional.conv2d(x, weight.reshape(n * outputs, inputs, kernel, kernel), padding=kernel // 2, groups=n)
        return y.reshape(n, outputs, *y.shape[2:])
    transposed = weight.transpose(1, 2).reshape(n * inputs, outputs, kernel, kernel)
    y = functional.conv_transpose2d(x, transposed, stride=2, groups=n)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=y.dtype) / 4.0
    y = functional.conv2d(y.reshape(-1, 1, *y.shape[2:]), (taps[:, None] * taps)[None, None], padding=1)
    return y.reshape(n, outputs, *y.shape[2:])


@pytest.mark.parametrize(
    ("kernel", "demodulate", "up"),
    [(3, True, False), (3, False, False), (3, True, True), (3, False, True), (1, False, False), (1, True, False)],
)
def test_scaled_form_equals_the_grouped_form(kernel: int, demodulate: bool, up: bool) -> None:
    torch.manual_seed(2)
    layer = ModulatedConv2d(5, 7, kernel, 6, demodulate=demodulate, up=up).double()
    for n in (1, 2, 5):
        x, w = torch.randn(n, 5, 4, 6, dtype=torch.float64), torch.randn(n, 6, dtype=torch.float64)
        torch.testing.assert_close(layer(x, w), grouped_form(layer, x, w), rtol=1e-9, atol=1e-9)


def test_demodulated_outputs_have_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(64, 32, 3, 4)
    w = 5.0 * torch.randn(2, 4)
    y = layer(torch.randn(2, 64, 40, 40), w)
    assert y.std().item() == pytest.approx(1.0, rel=0.05)


def test_a_blurred_convolution_up_keeps_a_constant_constant() -> None:
    layer = ModulatedConv2d(1, 1, 3, 1, demodulate=False, up=True)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1.0 / layer.scale
    y = layer(torch.ones(1, 1, 8, 8), torch.zeros(1, 1))
    assert y.shape == (1, 1, 16, 16)
    assert torch.allclose(y[0, 0, 2:-2, 2:-2], torch.ones(12, 12), atol=1e-6)


def test_down_is_the_adjoint_of_bilinear_up_away_from_the_border() -> None:
    x, y = torch.zeros(1, 1, 8, 8), torch.randn(1, 1, 16, 16)
    x[0, 0, 3:5, 2:6] = torch.randn(2, 4)
    assert float((upsampled(x) * y).sum()) == pytest.approx(float((x * downsampling()(y)).sum() * 4), rel=1e-5)


def test_truncation_moves_w_towards_its_mean() -> None:
    network = built()
    w = torch.randn(3, 6)
    styles = network.styles(w, torch.tensor([0.0, 1.0, 0.25]))
    assert styles.shape == (3, network.style_layers, 6)
    assert torch.equal(styles[0], network.w_avg.expand_as(styles[0]))
    torch.testing.assert_close(styles[1, 2], w[1])
    torch.testing.assert_close(styles[2, 0], network.w_avg + 0.25 * (w[2] - network.w_avg))
    assert torch.equal(network.styles(w)[:, 0], w)


def test_at_truncation_0_every_image_is_the_mean_one() -> None:
    network = built(noise="none")
    z, _, _ = inputs(network, 4)
    images = network(z, torch.zeros(4))
    assert torch.allclose(images, images[:1].expand_as(images), atol=1e-6)
    assert network(z, torch.ones(4)).std(0).max() > 0.01


def test_the_mean_of_w_moves_through_its_method_alone() -> None:
    network = built().train()
    before = network.w_avg.clone()
    z, truncation, noise = inputs(network, 4)
    network(z, truncation, *noise)
    assert torch.equal(network.w_avg, before)
    w = torch.randn(8, 6)
    network.update_w_avg(w, decay=0.75)
    torch.testing.assert_close(network.w_avg, 0.75 * before + 0.25 * w.mean(0))


def test_mixing_takes_the_first_w_before_the_crossover_and_the_second_after_it() -> None:
    network = built()
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    last = network.style_layers
    styles = network.mixed_styles(first, second, torch.tensor([0, 1, last - 1, last]))
    assert torch.equal(styles[0], second[0].expand(last, -1))
    assert torch.equal(styles[1], torch.stack([first[1], *[second[1]] * (last - 1)]))
    assert torch.equal(styles[2], torch.stack([*[first[2]] * (last - 1), second[2]]))
    assert torch.equal(styles[3], first[3].expand(last, -1))
    noise = inputs(network, 4)[2]
    mixed = network.synthesis(styles, noise)
    torch.testing.assert_close(mixed[3], network.synthesis(network.styles(first), noise)[3])
    torch.testing.assert_close(mixed[0], network.synthesis(network.styles(second), noise)[0])
    assert (mixed[2] - network.synthesis(network.styles(first), noise)[2]).abs().max() > 1e-4


def test_every_style_layer_and_every_noise_reaches_the_image() -> None:
    network = built()
    z, _, noise = inputs(network, 2)
    styles = network.styles(network.mapping(z)).detach().clone().requires_grad_()
    leaves = [n.requires_grad_() for n in noise]
    network.synthesis(styles, leaves).square().sum().backward()
    assert (styles.grad.abs().amax(2) > 1e-7).all()
    assert [t.shape for t in network.noise_tensors()] == [(1, s, s) for s in (4, 8, 8, 16, 16)]
    assert all((n.grad.abs().flatten(1).amax(1) > 1e-7).all() for n in leaves)


def test_noise_is_an_input_a_constant_or_nothing() -> None:
    names = {m: [t.name for t in built(noise=m).input_tensors()] for m in ("input", "constant", "none")}
    assert names["input"] == ["z", "truncation", *(f"noise_{i}" for i in range(5))]
    assert names["constant"] == names["none"] == ["z", "truncation"]
    constant = built(noise="constant")
    z, truncation, _ = inputs(constant, 2)
    images = constant(z, truncation)
    assert torch.equal(images, constant(z, truncation))
    constant.noise_4.add_(1.0)
    assert (constant(z, truncation) - images).abs().max() > 1e-4


def test_path_length_regularisation_has_its_gradients() -> None:
    """|Jᵀy| needs the gradient of a gradient through every modulated convolution."""
    network = built().train()
    z, _, noise = inputs(network, 2)
    styles = network.styles(network.mapping(z))
    images = network.synthesis(styles, noise)
    (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), styles, create_graph=True)
    gradient.square().sum().sqrt().backward()
    for name, parameter in network.named_parameters():
        if "convolution.weight" in name or (name.startswith("mapping") and name.endswith("weight")):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_a_label_is_asked_of_the_mapping() -> None:
    network = built(classes=["a", "b"])
    with pytest.raises(InputError, match="labels do not fit"):
        network.mapping(torch.randn(2, 5))
    a, b = (network.mapping(torch.ones(1, 5), torch.tensor([k])) for k in (0, 1))
    assert (a - b).abs().max() > 1e-4


def test_mapping_layers_learn_slower_by_their_multiplier_and_start_alike() -> None:
    torch.manual_seed(0)
    slow = network_from_record(NetworkRecord("stylegan2_generator", {**SETTINGS, "mapping_lr": 0.01, "w_size": 256}))
    layer = slow.mapping.layers[1]
    assert layer.weight.std().item() == pytest.approx(100.0, rel=0.02)
    assert (layer.weight * layer.weight_scale).std().item() == pytest.approx(1 / math.sqrt(256), rel=0.02)
