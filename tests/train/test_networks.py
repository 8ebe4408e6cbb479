"""Architectures: shapes, ranges, the papers' widths, and what a hostile record gets."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from ganruntime.errors import InputError
from gantrain.networks import NETWORKS, NetworkRecord, network_from_record


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_draws_what_it_says(size: int, channels: int) -> None:
    settings = {"size": size, "channels": channels, "width": 4}
    generator = network_from_record(NetworkRecord("dcgan_generator", {"z_size": 7, **settings}))
    discriminator = network_from_record(NetworkRecord("dcgan_discriminator", settings))
    images = generator(torch.randn(5, 7))
    assert images.shape == (5, channels, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1.0
    assert discriminator(images).shape == (5,)
    (z,), (image,) = generator.input_tensors(), generator.output_tensors()
    assert z.shape == (7,)
    assert image.shape == (channels, size, size)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (20, 3), (32, 1)])
def test_mlp_draws_what_it_says(size: int, channels: int) -> None:
    settings = {"size": size, "channels": channels}
    generator = network_from_record(NetworkRecord("mlp_generator", {"z_size": 6, "widths": [8, 16], **settings}))
    discriminator = network_from_record(NetworkRecord("mlp_discriminator", {"widths": [16], **settings}))
    images = generator(torch.randn(3, 6))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1.0
    assert discriminator(images).shape == (3,)


def test_dcgan_at_64_px_is_the_papers_network() -> None:
    generator = network_from_record(
        NetworkRecord("dcgan_generator", {"z_size": 100, "size": 64, "channels": 3, "width": 64})
    )
    planes = [m.out_channels for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert planes == [512, 256, 128, 64, 3]
    kinds = [type(m).__name__ for m in generator.layers]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 4 + ["ConvTranspose2d", "Tanh"]
    first = generator.layers[3].weight.detach()
    assert abs(first.mean()) < 1e-3
    assert first.std() == pytest.approx(0.02, rel=0.02)


def test_mlp_has_the_default_widths_and_batch_norm_from_the_second_layer_on() -> None:
    generator = network_from_record(NetworkRecord("mlp_generator", {}))
    assert [m.out_features for m in generator.modules() if isinstance(m, nn.Linear)] == [128, 256, 512, 1024, 32 * 32]
    assert [m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm1d)] == [256, 512, 1024]
    discriminator = network_from_record(NetworkRecord("mlp_discriminator", {}))
    assert [m.out_features for m in discriminator.modules() if isinstance(m, nn.Linear)] == [512, 256, 1]


def test_max_width_caps_the_deep_layers() -> None:
    generator = network_from_record(NetworkRecord("dcgan_generator", {"size": 128, "width": 8, "max_width": 16}))
    planes = [m.out_channels for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert planes == [16, 16, 16, 16, 8, 1]


def test_discriminator_without_batch_norm_judges_each_image_alone() -> None:
    torch.manual_seed(0)
    network = network_from_record(NetworkRecord("dcgan_discriminator", {"size": 16, "width": 4, "batch_norm": False}))
    images = torch.rand(4, 1, 16, 16)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("network", "settings", "named"),
    [
        ("dcgan", {}, "dcgan"),
        ("dcgan_generator", {"size": 48}, "size"),
        ("dcgan_generator", {"size": True}, "size"),
        ("dcgan_generator", {"z_size": 0}, "z_size"),
        ("dcgan_generator", {"z_size": 10**12}, "z_size"),
        ("dcgan_generator", {"width": "wide"}, "width"),
        ("dcgan_generator", {"width": 10**9}, "width"),
        ("dcgan_generator", {"wdith": 4}, "wdith"),
        ("dcgan_discriminator", {"channels": -1}, "channels"),
        ("mlp_generator", {"widths": []}, "widths"),
        ("mlp_generator", {"widths": 5}, "widths"),
        ("mlp_generator", {"widths": [10**9]}, "widths"),
        ("mlp_generator", {"size": 1.5}, "size"),
    ],
)
def test_a_record_that_does_not_fit_is_an_error_that_names_it(network: str, settings: dict, named: str) -> None:
    with pytest.raises(InputError) as raised:
        network_from_record(NetworkRecord(network, settings))
    assert named in str(raised.value)


def test_every_registered_network_exists() -> None:
    for name in NETWORKS:
        assert isinstance(network_from_record(NetworkRecord(name, {})), nn.Module)


def test_registry_and_recipes_do_not_import_torch() -> None:
    code = (
        "import sys, gantrain.networks, gantrain.objectives, gantrain.recipes as r;"
        "[r.recipe_from_name(n) for n in r.RECIPES]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
