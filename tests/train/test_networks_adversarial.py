"""The pairs of the GAN family: what they draw and judge, labels that matter, and gradients of gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganruntime.errors import InputError
from gantrain.networks import NETWORKS, NetworkRecord, network_from_record
from gantrain.networks.vectors import Maxout

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["cat", "dog", "owl"]
SMALL = {"width": 4, "max_width": 8}
IMAGE_PAIRS = ("dcgan", "resnet", "r3gan", "progan", "stylegan2")
VIT = {"patch": 4, "width": 8, "blocks": 2, "heads": 2}
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "dcgan_discriminator": {**SMALL, "batch_norm": False, "spectral_norm": True},
    "resnet_discriminator": SMALL,
    "r3gan_discriminator": {**SMALL, "cardinality": 2},
    "progan_discriminator": {**SMALL, "group": 0},
    "stylegan2_discriminator": {**SMALL, "group": 0},
    "vit_discriminator": {**VIT, "spectral_norm": True},
}
JUDGES = {name: (name, settings) for name, settings in DISCRIMINATORS.items()} | {
    "dcgan_discriminator by projection": (
        "dcgan_discriminator",
        {**DISCRIMINATORS["dcgan_discriminator"], "conditioning": "projection"},
    )
}


def built(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(3)
    return network_from_record(NetworkRecord(name, settings))


def inputs_of(generator: nn.Module, n: int) -> list[Tensor]:
    """Random inputs as the generator's own spec tensors say them."""
    drawn = []
    for tensor in generator.input_tensors():
        shape = (n, *tensor.shape)
        if tensor.role.kind == "label":
            drawn.append(torch.randint(len(tensor.role.classes), shape))
        else:
            drawn.append(torch.rand(shape) if tensor.role.kind == "scalar" else torch.randn(shape))
    return drawn


@pytest.mark.parametrize(("size", "channels", "classes"), [(16, 1, []), (32, 3, CLASSES), (64, 1, [])])
@pytest.mark.parametrize("pair", IMAGE_PAIRS)
def test_a_pair_draws_and_judges_what_it_says(pair: str, size: int, channels: int, classes: list[str]) -> None:
    shared = {"size": size, "channels": channels, "classes": classes, **SMALL}
    generator = built(f"{pair}_generator", z_size=5, **shared)
    discriminator = built(f"{pair}_discriminator", **shared)
    inputs = inputs_of(generator, 4)
    images = generator(*inputs)
    (tensor,) = generator.output_tensors()
    assert images.shape == (4, *tensor.shape) == (4, channels, size, size)
    assert images.dtype == torch.float32
    labels = inputs[1:2] if classes else []
    logits = discriminator(images, *labels)
    assert logits.shape == (4,)
    logits.sum().backward()
    smaller = [f"{part}_images.{i}." for part in ("to", "from") for i in range(6)] if pair == "progan" else []
    for name, parameter in itertools.chain(generator.named_parameters(), discriminator.named_parameters()):
        if parameter.grad is None:  # a grown network has no use for the images of its stages
            assert name.startswith(tuple(smaller)), name
            continue
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("name", "settings"), JUDGES.values(), ids=list(JUDGES))
def test_the_gradient_penalty_has_a_gradient(name: str, settings: dict[str, Any]) -> None:
    """∂/∂θ of |∇x D|², against finite differences along a random direction of the weights, in float64."""
    network = built(name, size=16, channels=2, classes=CLASSES, **settings).double().eval()
    images, label = torch.randn(3, 2, 16, 16, dtype=torch.float64), torch.tensor([0, 2, 1])
    weights = dict(network.named_parameters())
    direction = {name: torch.randn_like(p) for name, p in weights.items()}

    def penalty(step: float) -> Tensor:
        x = images.clone().requires_grad_()
        moved = {name: p + step * direction[name] for name, p in weights.items()} if step else weights
        logits = torch.func.functional_call(network, moved, (x, label))
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    # Biases that are only added have no gradient.
    gradients = torch.autograd.grad(penalty(0.0), list(weights.values()), allow_unused=True)
    pairs = zip(gradients, direction.values(), strict=True)
    slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)
    step = 1e-6
    measured = float((penalty(step) - penalty(-step)).detach()) / (2 * step)
    assert abs(slope) > 1e-9
    assert slope == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize(("name", "settings"), JUDGES.values(), ids=list(JUDGES))
def test_each_image_is_judged_alone_and_by_its_label(name: str, settings: dict[str, Any]) -> None:
    network = built(name, size=16, channels=1, classes=CLASSES, **settings).eval()
    images, label = torch.randn(3, 1, 16, 16), torch.tensor([0, 2, 1])
    together = network(images, label)
    alone = torch.cat([network(image[None], one[None]) for image, one in zip(images, label, strict=True)])
    torch.testing.assert_close(together, alone)
    other = network(images, torch.tensor([0, 1, 1]))
    assert torch.equal(other[[0, 2]], together[[0, 2]])
    assert abs(other[1] - together[1]) > 1e-5


@pytest.mark.parametrize("pair", IMAGE_PAIRS)
def test_a_label_changes_the_image_and_is_asked_for(pair: str) -> None:
    generator = built(f"{pair}_generator", size=16, classes=CLASSES, **SMALL)
    if pair == "resnet":  # its gains and biases start alike for all classes
        for parameter in generator.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
    generator.eval()
    z, _, *rest = inputs_of(generator, 1)
    images = [generator(z, torch.tensor([k]), *rest) for k in range(3)]
    for a, b in itertools.combinations(images, 2):
        assert (a - b).abs().max() > 1e-4
    with pytest.raises(InputError, match="do not fit"):
        generator(z, *rest)
    with pytest.raises(InputError, match="without classes"):
        built(f"{pair}_discriminator", size=16, **SMALL)(torch.zeros(1, 3, 16, 16), torch.tensor([0]))


def test_a_mini_batch_that_is_all_alike_says_so() -> None:
    from gantrain.networks.equalised import minibatch_deviation

    x = torch.randn(6, 3, 2, 2)
    plane = minibatch_deviation(x, group=4)[:, 3]  # 6 images: groups of 3, images i, i + 2 and i + 4
    for i in range(2):
        members = x[[i, i + 2, i + 4]]
        expected = members.var(dim=0, correction=0).sqrt().mean()
        assert torch.allclose(plane[[i, i + 2, i + 4]], expected.expand(3, 2, 2), atol=1e-5)
    assert minibatch_deviation(x[:1].expand(6, -1, -1, -1))[:, 3].max() < 1e-3


def test_packing_judges_consecutive_samples_as_one() -> None:
    packed = built("vector_discriminator", inputs=2, widths=[6, 5], maxout=3, packing=3)
    points = torch.randn(12, 2)
    logits = packed(points)
    assert logits.shape == (4,)
    changed = points.clone()
    changed[5] += 1.0
    assert (packed(changed) != logits).tolist() == [False, True, False, False]
    with pytest.raises(InputError, match="multiple of packing = 3"):
        packed(points[:10])


def test_maxout_is_the_largest_of_its_pieces() -> None:
    torch.manual_seed(0)
    layer, x = Maxout(3, 2, 5), torch.randn(4, 3)
    pieces = layer.linear(x)
    for n, unit in itertools.product(range(4), range(2)):
        assert layer(x)[n, unit] == max(pieces[n, 5 * unit + k] for k in range(5))


def test_the_toy_networks_are_those_of_pacgan_and_the_painter_fits_the_same_classes() -> None:
    generator, discriminator = built("vector_generator"), built("vector_discriminator")
    assert [m.out_features for m in generator.modules() if isinstance(m, nn.Linear)] == [400, 400, 400, 400, 2]
    assert [m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm1d)] == [400] * 4
    assert [m.out_features for m in discriminator.modules() if isinstance(m, nn.Linear)] == [1000, 1000, 1000, 1]
    painter = built("vector_generator", z_size=5, outputs=15, widths=[128], batch_norm=False)
    judge = built("vector_discriminator", inputs=15, widths=[128], maxout=1)
    assert [type(m).__name__ for m in painter.layers] == ["Linear", "ReLU", "Linear"]
    (tensor,) = painter.output_tensors()
    assert (tensor.role.kind, tensor.shape) == ("vector", (15,))
    assert judge(painter(torch.randn(4, 5))).shape == (4,)


def test_a_discriminator_of_vectors_can_see_frequencies_from_coarse_to_fine() -> None:
    torch.manual_seed(3)
    judge = built("vector_discriminator", widths=[8], maxout=1, leak=0.2, frequencies=200)
    seen, x = judge.frequencies, torch.randn(6, 2)
    sizes = seen.directions.norm(dim=1)
    assert 0.5 <= float(sizes.min()) < 0.6
    assert 20.0 < float(sizes.max()) <= 30.0
    assert torch.allclose(seen.amplitudes, (0.5 / sizes).sqrt())
    y, n, k = seen(x), 4, 17
    angle, amplitude = float(x[n] @ seen.directions[k]), float(seen.amplitudes[k])
    assert float(y[n, k]) == pytest.approx(math.sin(angle) * amplitude, abs=1e-5)
    assert float(y[n, 200 + k]) == pytest.approx(math.cos(angle) * amplitude, abs=1e-5)
    assert torch.equal(judge(x), judge.layers(torch.cat([x, y], dim=1)).squeeze(1))
    assert {"frequencies.directions", "frequencies.amplitudes"} <= set(judge.state_dict())  # drawn once, and kept
    assert built("vector_discriminator", packing=2, frequencies=3, widths=[4])(x).shape == (3,)


def test_one_piece_is_a_relu_that_may_leak() -> None:
    torch.manual_seed(0)
    layer, x = Maxout(3, 4, 1, 0.25), torch.randn(5, 3)
    y = layer.linear(x)
    assert torch.equal(layer(x), torch.where(y > 0, y, 0.25 * y))
    layer.leak = 0.0
    assert torch.equal(layer(x), y.clamp(min=0))


def test_a_generator_of_vectors_can_see_frequencies_and_skip() -> None:
    torch.manual_seed(5)
    generator, z = built("vector_generator", z_size=2, widths=[8], frequencies=6, skip=3.0).eval(), torch.randn(7, 2)
    assert torch.allclose(generator.skip @ generator.skip.T, 9.0 * torch.eye(2), atol=1e-5)
    assert torch.allclose(generator(z), generator.layers(z) + z @ generator.skip.T)
    assert generator.layers[1].in_features == 12
    # Not trained, and no part of the skip's gain or of the features is lost on the way to a checkpoint.
    assert {n for n, _ in generator.named_buffers()} >= {"skip", "layers.0.directions", "layers.0.amplitudes"}
    assert {"skip"}.isdisjoint(dict(generator.named_parameters()))
    assert built("vector_generator", z_size=5, outputs=3, widths=[8], skip=1.0).eval()(torch.randn(2, 5)).shape == (
        2,
        3,
    )


def test_signs_of_z_choose_places_and_the_rest_of_it_varies_what_is_drawn_there() -> None:
    torch.manual_seed(7)
    generator = built("vector_generator", z_size=9, widths=[8], frequencies=6, skip=3.0, signs=7).eval()
    z = torch.randn(64, 9)
    places = generator.places.places  # [2, 7]
    assert torch.allclose(places @ places.T, torch.eye(2), atol=2e-3)
    seen = generator.places(z)  # [64, 2 + 2]
    for order in (torch.arange(7), torch.randperm(7)):  # exact, in whatever order a device adds
        assert torch.equal(seen[:, :2].double(), z[:, 2:].sign()[:, order].double() @ places[:, order].double().T)
    assert torch.allclose(seen[:, 2:], 0.2 * z[:, :2])
    assert torch.allclose(generator(z), generator.layers(seen) + seen[:, :2] @ generator.skip.T, atol=1e-5)
    # How large those components are is not seen: there is nothing between two places.
    farther = torch.cat([z[:, :2], 5.0 * z[:, 2:]], dim=1)
    assert torch.equal(generator(farther), generator(z))
    assert len(torch.unique(generator.places(torch.randn(20_000, 9))[:, :2], dim=0)) == 2**7
    assert "places.places" in dict(generator.named_buffers())  # drawn once, and kept
    # Without frequencies and skip as well, and with more outputs.
    assert built("vector_generator", z_size=5, outputs=3, widths=[8], signs=4).eval()(torch.randn(2, 5)).shape == (2, 3)


def test_networks_of_vectors_see_and_draw_in_the_unit_of_the_data() -> None:
    torch.manual_seed(9)
    z, x = torch.randn(4, 2), torch.randn(6, 2)
    small = built("vector_generator", widths=[8], batch_norm=False, skip=2.0, scale=0.25)
    plain = built("vector_generator", widths=[8], batch_norm=False, skip=2.0)
    plain.load_state_dict(small.state_dict())
    assert torch.equal(small(z), 0.25 * plain(z))
    near, far = (built("vector_discriminator", widths=[8], frequencies=5, scale=s) for s in (0.25, 1.0))
    far.load_state_dict(near.state_dict())
    assert torch.equal(near(0.25 * x), far(x))


def test_r3gan_starts_with_blocks_that_are_the_identity() -> None:
    generator = built("r3gan_generator", size=16, blocks=2, **SMALL)
    for stage, planes in zip(generator.stages, (8, 8, 4), strict=True):
        x = torch.randn(2, planes, 4, 4)
        assert torch.equal(stage(x), x)


def test_resnet_has_the_papers_networks_at_32_px() -> None:
    generator = built("resnet_generator", size=32, width=256, max_width=256)
    discriminator = built("resnet_discriminator", size=32, width=128, max_width=128, last_size=8, flat_blocks=2)
    assert sum(p.numel() for p in generator.parameters()) == 4_276_739  # the published count of its generator
    x, shapes = torch.zeros(1, 3, 32, 32), []
    for block in discriminator.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(128, 16, 16), (128, 8, 8), (128, 8, 8), (128, 8, 8)]


@pytest.mark.parametrize(
    ("network", "settings", "named"),
    [
        ("vector_generator", {"batch_norm": 1}, "batch_norm"),
        ("vector_discriminator", {"packing": 0}, "packing"),
        ("vector_discriminator", {"leak": -0.1}, "leak"),
        ("vector_discriminator", {"frequencies": 2.0}, "frequencies"),
        ("vector_generator", {"skip": -1}, "skip"),
        ("vector_generator", {"scale": 0}, "scale"),
        ("vector_generator", {"z_size": 4, "signs": 4}, "signs"),  # one component at least is left
        ("vector_generator", {"frequencies": -1}, "frequencies"),
        ("dcgan_discriminator", {"conditioning": "projected"}, "conditioning"),
        ("dcgan_generator", {"classes": "ab"}, "classes"),
        ("dcgan_generator", {"classes": ["a", "a"]}, "classes"),
        ("dcgan_generator", {"classes": ["a", 3]}, "classes"),
        ("dcgan_discriminator", {"spectral_norm": "yes"}, "spectral_norm"),
        ("resnet_generator", {"size": 512}, "size"),
        ("resnet_discriminator", {"last_size": 3}, "size"),
        ("resnet_discriminator", {"last_size": 32}, "size"),
        ("r3gan_generator", {"cardinality": 5}, "cardinality"),
        ("r3gan_discriminator", {"blocks": 0}, "blocks"),
        ("progan_generator", {"size": 4}, "size"),
        ("progan_discriminator", {"max_width": 3, "width": 4}, "max_width"),
        ("stylegan2_generator", {"mapping_lr": float("nan")}, "mapping_lr"),
        ("stylegan2_generator", {"mapping_lr": 10**400}, "mapping_lr"),
        ("stylegan2_generator", {"noise": "random"}, "noise"),
        ("stylegan2_generator", {"size": 24}, "size"),
        ("stylegan2_discriminator", {"group": -1}, "group"),
        ("vit_discriminator", {"patch": 5}, "patch"),
        ("vit_discriminator", {"heads": 3}, "heads"),
    ],
)
def test_a_record_of_the_family_that_does_not_fit_names_its_setting(
    network: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        network_from_record(NetworkRecord(network, settings))


def test_every_discriminator_is_tried_here() -> None:
    tried = {*DISCRIMINATORS, "mlp_discriminator", "vector_discriminator"}
    assert tried == {n for n in NETWORKS if n.endswith("_discriminator")}
