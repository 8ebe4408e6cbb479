"""Generators of short vectors: points of a toy distribution, a painter's curves.

The defaults are the toy set-up of PacGAN: Lin, Khetan, Fanti and Oh, "PacGAN: The power of two samples in generative
adversarial networks", 2018 (arXiv:1712.04086), section 4.1, itself that of VEEGAN. A generator of four hidden layers of
400 with batch normalisation and ReLU; a discriminator of three hidden layers of 200 with maxout of five pieces, that
judges `packing` samples at once, all real or all generated.

A painter that draws curves of 15 points from 5 ideas: z_size 5, outputs 15, widths [128], batch_norm false, against
inputs 15, widths [128], maxout 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganruntime.errors import InputError
from ganruntime.spec import TensorSpec, Vector
from gantrain.networks import checked_integer
from gantrain.networks.checks import checked_flag, checked_widths, latent_and_label


class VectorGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1) -> vectors float32 [N, outputs], unbounded.

    Args:
        batch_norm: after every hidden layer, before its ReLU.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        z_size: int = 2,
        outputs: int = 2,
        widths: Sequence[int] = (400, 400, 400, 400),
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.outputs = checked_integer("outputs", outputs, 1, 65536)
        batch_norm = checked_flag("batch_norm", batch_norm)
        widths = checked_widths(widths)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise((self.z_size, *widths)):
            layers.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(widths[-1], self.outputs))
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        vectors: Tensor = self.layers(z)  # [N, outputs]
        return vectors

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, ())

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return (TensorSpec("vector", "float32", (self.outputs,), Vector()),)


class Maxout(nn.Module):
    """[N, inputs] -> [N, outputs], each the largest of `pieces` linear functions; with one piece, ReLU of one.

    Goodfellow et al., "Maxout Networks", 2013 (arXiv:1302.4389).
    """

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.outputs, self.pieces = outputs, pieces
        self.linear = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)  # [N, outputs * pieces]
        if self.pieces == 1:
            return torch.relu(x)
        largest: Tensor = x.reshape(-1, self.outputs, self.pieces).max(dim=2).values  # [N, outputs]
        return largest


class VectorDiscriminator(nn.Module):
    """Vectors float32 [N, inputs] -> logits float32 [N / packing], positive for "real".

    Args:
        packing: m, how many consecutive vectors are judged as one; N must be a multiple of it.
        maxout: pieces of each hidden unit; 1 for ReLU.

    Raises:
        InputError: a setting is out of range, or N is not a multiple of `packing`.
    """

    judges_alone = True  # nothing in it looks across a batch: real and generated ones may come in one

    def __init__(
        self, inputs: int = 2, widths: Sequence[int] = (200, 200, 200), maxout: int = 5, packing: int = 1
    ) -> None:
        super().__init__()
        checked_integer("inputs", inputs, 1, 65536)
        checked_integer("maxout", maxout, 1, 64)
        self.packing = checked_integer("packing", packing, 1, 64)
        widths = checked_widths(widths)
        layers: list[nn.Module] = [
            Maxout(fan_in, fan_out, maxout) for fan_in, fan_out in itertools.pairwise((inputs * packing, *widths))
        ]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, vectors: Tensor) -> Tensor:
        if len(vectors) % self.packing:
            raise InputError(
                "the batch does not divide into packs",
                got=f"{len(vectors)} samples",
                expected=f"a multiple of packing = {self.packing}",
                remedy="choose another batch, or another packing",
            )
        packs = vectors.reshape(len(vectors) // self.packing, -1)  # [N / m, m * inputs]
        logits: Tensor = self.layers(packs).squeeze(1)  # [N / m]
        return logits


def _initialise(network: nn.Module) -> None:
    """Glorot's uniform weights and zero biases, as the set-up's published code has them."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
