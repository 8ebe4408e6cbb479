"""Progressive growing: which layers run, the fade, and what a checkpoint and an export make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from ganexport.inference import inference_copy
from ganexport.program.tracing import program_from_generator
from ganruntime.errors import InputError
from gantrain.checkpoint import load_generator, save_generator, spec_from_generator
from gantrain.ema import Averaging, averaged_copy
from gantrain.networks import NetworkRecord, network_from_record
from gantrain.networks.progan import ProganDiscriminator, ProganGenerator

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"size": 16, "channels": 2, "width": 4, "max_width": 8}
GENERATOR = NetworkRecord("progan_generator", {"z_size": 5, **SETTINGS})


@pytest.fixture
def generator() -> ProganGenerator:
    torch.manual_seed(0)
    network = network_from_record(GENERATOR)
    assert isinstance(network, ProganGenerator)
    return network


@pytest.fixture
def discriminator() -> ProganDiscriminator:
    torch.manual_seed(0)
    network = network_from_record(NetworkRecord("progan_discriminator", SETTINGS))
    assert isinstance(network, ProganDiscriminator)
    return network


def moved(network: nn.Module) -> set[str]:
    return {name.split(".weight")[0].split(".bias")[0] for name, p in network.named_parameters() if p.grad is not None}


def squares(images: torch.Tensor, side: int) -> bool:
    """Whether all values of each square of `side` pixels are one."""
    least, most = -functional.max_pool2d(-images, side), functional.max_pool2d(images, side)
    return torch.equal(least, most)


def test_detail_grows_with_growth_and_the_size_does_not(generator: ProganGenerator) -> None:
    z = torch.randn(2, 5)
    for growth, side in ((0.0, 4), (0.5, 2), (1.0, 2), (1.25, 1), (2.0, 1)):
        generator.set_growth(growth)
        images = generator(z)
        assert images.shape == (2, 2, 16, 16)
        assert squares(images, side)
        assert side == 1 or not squares(images, 2 * side)


def test_the_fade_is_a_straight_line_between_the_stages(
    generator: ProganGenerator, discriminator: ProganDiscriminator
) -> None:
    z, images = torch.randn(3, 5), torch.randn(3, 2, 16, 16)
    for network, given in ((generator, z), (discriminator, images)):
        values = {}
        for growth in (1.0, 1.0 + 1e-6, 1.25, 1.5, 2.0):
            network.set_growth(growth)
            values[growth] = network(given)
        # As a stage begins nothing jumps.
        torch.testing.assert_close(values[1.0 + 1e-6], values[1.0], atol=1e-4, rtol=1e-4)
        assert (values[2.0] - values[1.0]).abs().max() > 1e-3
        if network is generator:  # of the discriminator what is mixed goes through further layers
            torch.testing.assert_close(values[1.25], 0.75 * values[1.0] + 0.25 * values[2.0], atol=1e-5, rtol=1e-5)


def test_layers_that_do_not_run_have_no_gradient(
    generator: ProganGenerator, discriminator: ProganDiscriminator
) -> None:
    for network in (generator, discriminator):
        network.set_growth(0.5)
    discriminator(generator(torch.randn(4, 5))).sum().backward()
    assert moved(generator) == {
        "first", "first_convolution", "blocks.0.convolution_1", "blocks.0.convolution_2", "to_images.0", "to_images.1"
    }  # fmt: skip
    assert moved(discriminator) == {
        "from_images.0", "from_images.1", "blocks.0.convolution_1", "blocks.0.convolution_2",
        "last_convolution", "hidden", "last",
    }  # fmt: skip


def test_a_checkpoint_remembers_how_far_it_has_grown(generator: ProganGenerator, tmp_path: Path) -> None:
    generator.set_growth(1.25)
    save_generator(tmp_path / "c", generator, GENERATOR, spec_from_generator(generator, "p"))
    loaded, _ = load_generator(tmp_path / "c")
    assert loaded.stage_and_alpha() == (2, 0.25)
    z = torch.randn(2, 5)
    assert torch.equal(loaded(z), generator.eval()(z))


def test_the_average_grows_with_the_network(generator: ProganGenerator) -> None:
    average = averaged_copy(generator)
    generator.set_growth(0.5)
    Averaging(average, generator).update(0.9)
    assert average.stage_and_alpha() == (1, 0.5)


def test_a_grown_network_is_exported_without_a_fade_and_a_growing_one_as_it_draws(generator: ProganGenerator) -> None:
    spec = spec_from_generator(generator, "p")
    convolutions = {}
    for growth in (1.5, 2.0):
        generator.growth.fill_(growth)  # as loading and averaging do it, behind the back of set_growth
        program = program_from_generator(inference_copy(generator, spec), spec)
        z = torch.randn(3, 5)
        torch.testing.assert_close(program.module()(z), generator.eval()(z))
        convolutions[growth] = sum(n.target is torch.ops.aten.conv2d.default for n in program.graph.nodes)
    # The first, two a block, and one to the image; in the fade one more to the image.
    assert convolutions == {1.5: 7, 2.0: 6}


@pytest.mark.parametrize("growth", [-0.5, 2.5, float("nan")])
def test_a_growth_that_is_out_of_range_is_refused(generator: ProganGenerator, growth: float) -> None:
    with pytest.raises(InputError, match="growth"):
        generator.set_growth(growth)
    assert generator.stage_and_alpha() == (2, 1.0)
