"""Architectures, one a file. A checkpoint names its network and the network's settings; this registry builds it.

Nothing here imports torch before a network is built, so that recipes can be listed without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ganruntime.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# name in network.json -> module:class. Names are part of the checkpoint format and never change their meaning.
NETWORKS: dict[str, str] = {
    "mlp_generator": "gantrain.networks.mlp:MlpGenerator",
    "mlp_discriminator": "gantrain.networks.mlp:MlpDiscriminator",
    "dcgan_generator": "gantrain.networks.dcgan:DcganGenerator",
    "dcgan_discriminator": "gantrain.networks.dcgan:DcganDiscriminator",
    "vector_generator": "gantrain.networks.vectors:VectorGenerator",
    "vector_discriminator": "gantrain.networks.vectors:VectorDiscriminator",
    "resnet_generator": "gantrain.networks.resnet:ResnetGenerator",
    "resnet_discriminator": "gantrain.networks.resnet:ResnetDiscriminator",
    "r3gan_generator": "gantrain.networks.r3gan:R3ganGenerator",
    "r3gan_discriminator": "gantrain.networks.r3gan:R3ganDiscriminator",
    "progan_generator": "gantrain.networks.progan:ProganGenerator",
    "progan_discriminator": "gantrain.networks.progan:ProganDiscriminator",
    "stylegan2_generator": "gantrain.networks.stylegan2:Stylegan2Generator",
    "stylegan2_discriminator": "gantrain.networks.stylegan2_discriminator:Stylegan2Discriminator",
    "vit_discriminator": "gantrain.networks.vit:VitDiscriminator",
}


@dataclass(frozen=True)
class NetworkRecord:
    """A network by name: an entry of `NETWORKS`, and the keyword arguments of its class as plain JSON values."""

    network: str
    settings: Mapping[str, Any]


def network_from_record(record: NetworkRecord) -> nn.Module:
    """Builds the network, freshly initialised from torch's global random state.

    Raises:
        InputError: no network has that name, or its settings are not those of the network, or out of range.
    """
    if record.network not in NETWORKS:
        raise InputError("no network has this name", got=repr(record.network), expected=", ".join(NETWORKS))
    module_name, class_name = NETWORKS[record.network].split(":")
    network_class: type[nn.Module] = getattr(import_module(module_name), class_name)
    parameters = inspect.signature(network_class).parameters
    needed = {name for name, p in parameters.items() if p.default is inspect.Parameter.empty}
    given = set(record.settings)
    if not needed <= given <= set(parameters):
        raise InputError(
            f"{record.network}: the settings are not those of the network",
            got=", ".join(sorted(given)),
            expected=", ".join(parameters),
        )
    return network_class(**record.settings)


def checked_integer(name: str, value: object, least: int, most: int) -> int:
    """`value`, if it is an integer in [least, most]; raises `InputError` that names the setting otherwise.

    Networks check what they are built from, because the settings may come from a file that somebody else wrote.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} is out of range", got=repr(value), expected=f"an integer from {least} to {most}")
    return value
