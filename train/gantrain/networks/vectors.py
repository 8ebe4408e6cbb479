"""Generators of short vectors: points of a toy distribution, a painter's curves.

The defaults are the toy set-up of PacGAN: Lin, Khetan, Fanti and Oh, "PacGAN: The power of two samples in generative
adversarial networks", 2018 (arXiv:1712.04086), section 4.1, itself that of VEEGAN. A generator of four hidden layers of
400 with batch normalisation and ReLU; a discriminator of three hidden layers of 200 with maxout of five pieces, that
judges `packing` samples at once, all real or all generated. Weights start as Glorot and Bengio have it; those of the
published code are from N(0, 0.02²).

Four options are not the paper's. Networks that see `frequencies` of their input are sharp where perceptrons of
coordinates are smooth (Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
Domains", 2020, arXiv:2006.10739): a discriminator tells a mode from what lies beside it, and a generator, which must
tear a latent space that is whole into modes that are not, tears it more sharply. And a generator with a `skip` from z
reaches all of the data from the first step on, so that no mode is out of its sight. The fourth, `signs`, spares the
tearing: see `Places`.

A painter that draws curves of 15 points from 5 ideas: z_size 5, outputs 15, widths [128], batch_norm false, against
inputs 15, widths [128], maxout 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ganruntime.errors import InputError
from ganruntime.spec import TensorSpec, Vector
from gantrain.networks import checked_integer
from gantrain.networks.checks import checked_flag, checked_number, checked_widths, latent_and_label

# Radians per unit of what they see.
_LOWEST, _HIGHEST = 0.5, 30.0  # of the discriminator's
_GENERATOR_STD = 2.0  # of each component of the generator's
_SMOOTH_STD = 0.2  # of what is left of z beside the places
_EXACT = 1024  # entries of the map are whole numbers of this part: sums of ± them are exact in any order


class Frequencies(nn.Module):
    """x [N, inputs] -> a·sin(b·x) and a·cos(b·x) for each of `count` fixed vectors b: [N, 2·count].

    They are kept with the weights, and not trained.

    Args:
        directions: b, float32 [count, inputs], radians per unit of x.
        amplitudes: a, float32 [count].
    """

    directions: Tensor
    amplitudes: Tensor

    def __init__(self, directions: Tensor, amplitudes: Tensor) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.register_buffer("amplitudes", amplitudes)

    def forward(self, x: Tensor) -> Tensor:
        angles = nn.functional.linear(x, self.directions)  # [N, count]
        return torch.cat([self.amplitudes * angles.sin(), self.amplitudes * angles.cos()], dim=1)


def coarse_to_fine(inputs: int, count: int) -> Frequencies:
    """Random directions of log-uniform size, 0.5 to 30 radians per unit: some see where in the data x is, and some
    where in a mode. Amplitudes √(0.5 / |b|) let what is coarse be learned first, before modes are too far apart for a
    generator to move between them. Drawn from torch's global random state.
    """
    sizes = _LOWEST * torch.exp(math.log(_HIGHEST / _LOWEST) * torch.rand(count))
    directions = nn.functional.normalize(torch.randn(count, inputs), dim=1) * sizes[:, None]
    return Frequencies(directions, (_LOWEST / sizes).sqrt())


class Places(nn.Module):
    """z [N, z_size] -> [N, outputs + z_size - signs]: the place that the signs of z's last components choose, and what
    is left of z, scaled down.

    A continuous map of a latent space that is whole draws something between any two modes (Khayatkhoei, Elgammal and
    Singh, "Disconnected Manifold Learning for Generative Adversarial Networks", 2018, arXiv:1806.00880, who train
    several generators; a categorical code, as InfoGAN has it, serves as well). Here the discrete part of the latent is
    the signs of some components of z, which all devices and precisions agree about: they choose one of 2^signs places,
    a fixed random orthogonal map of ±1, spread over all of the data much as a Gaussian is. What lies between two places
    no latent asks for; and a place is the same to the last bit on all devices, for where neighbours belong to different
    modes the generator is so steep that their rounding would show. The other components vary what is drawn at a place;
    they start small, so that places do not overlap.
    """

    places: Tensor  # float32 [outputs, signs]

    def __init__(self, z_size: int, outputs: int, signs: int) -> None:
        super().__init__()
        self.smooth = z_size - signs
        places = nn.init.orthogonal_(torch.empty(outputs, signs))
        self.register_buffer("places", (places * _EXACT).round() / _EXACT)

    def forward(self, z: Tensor) -> Tensor:
        place = nn.functional.linear(z[:, self.smooth :].sign(), self.places)  # [N, outputs]
        return torch.cat([place, _SMOOTH_STD * z[:, : self.smooth]], dim=1)


class VectorGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1) -> vectors float32 [N, outputs], unbounded.

    Args:
        batch_norm: after every hidden layer, before its ReLU.
        frequencies: how many sines and cosines of z the first layer sees, in place of z; 0 for none.
        skip: 0 for none, or the gain of a fixed random orthogonal map of z that the output is added to.
        scale: the unit of the data: what the output is multiplied with.
        signs: 0, or of how many last components of z the sign alone is seen, as `Places` has it. Frequencies and skip
            are then of the place, and frequencies of the other components too.

    Raises:
        InputError: a setting is out of range.
    """

    skip: Tensor  # float32 [outputs, z_size]; with signs [outputs, outputs]

    def __init__(
        self,
        z_size: int = 2,
        outputs: int = 2,
        widths: Sequence[int] = (400, 400, 400, 400),
        batch_norm: bool = True,
        frequencies: int = 0,
        skip: float = 0.0,
        scale: float = 1.0,
        signs: int = 0,
    ) -> None:
        super().__init__()
        self.scale = checked_number("scale", scale, 1e-6, 1e6)
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.outputs = checked_integer("outputs", outputs, 1, 65536)
        batch_norm = checked_flag("batch_norm", batch_norm)
        widths = checked_widths(widths)
        layers: list[nn.Module] = []
        inputs = skipped = self.z_size
        self.places: Places | None = None
        if checked_integer("signs", signs, 0, self.z_size - 1):
            self.places = Places(self.z_size, self.outputs, signs)
            inputs, skipped = self.outputs + self.z_size - signs, self.outputs
        if checked_integer("frequencies", frequencies, 0, 4096):
            directions = _GENERATOR_STD * torch.randn(frequencies, inputs)
            layers.append(Frequencies(directions, torch.ones(frequencies)))
            inputs = 2 * frequencies
        for fan_in, fan_out in itertools.pairwise((inputs, *widths)):
            layers.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(widths[-1], self.outputs))
        self.layers = nn.Sequential(*layers)
        _initialise(self)
        self.has_skip = checked_number("skip", skip, 0.0, 1e3) > 0
        if self.has_skip:
            self.register_buffer("skip", nn.init.orthogonal_(torch.empty(self.outputs, skipped), gain=skip))

    def forward(self, z: Tensor) -> Tensor:
        seen = z if self.places is None else self.places(z)
        vectors: Tensor = self.layers(seen)  # [N, outputs]
        if self.has_skip:
            vectors = vectors + nn.functional.linear(seen[:, : self.skip.shape[1]], self.skip)
        return vectors if self.scale == 1.0 else vectors * self.scale

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, ())

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return (TensorSpec("vector", "float32", (self.outputs,), Vector()),)


class Maxout(nn.Module):
    """[N, inputs] -> [N, outputs], each the largest of `pieces` linear functions; with one piece, leaky ReLU of one.

    Goodfellow et al., "Maxout Networks", 2013 (arXiv:1302.4389).
    """

    def __init__(self, inputs: int, outputs: int, pieces: int, leak: float = 0.0) -> None:
        super().__init__()
        self.outputs, self.pieces, self.leak = outputs, pieces, leak
        self.linear = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)  # [N, outputs * pieces]
        if self.pieces == 1:
            return leaky_relu(x, self.leak) if self.leak else torch.relu(x)
        largest: Tensor = x.reshape(-1, self.outputs, self.pieces).max(dim=2).values  # [N, outputs]
        return largest


class VectorDiscriminator(nn.Module):
    """Vectors float32 [N, inputs] -> logits float32 [N / packing], positive for "real".

    Args:
        packing: m, how many consecutive vectors are judged as one; N must be a multiple of it.
        maxout: pieces of each hidden unit; 1 for ReLU.
        leak: with one piece, the slope of the ReLU below 0.
        frequencies: how many sines and cosines of the input it sees beside it; 0 for none.
        scale: the unit of the data: what the input is divided by.

    Raises:
        InputError: a setting is out of range, or N is not a multiple of `packing`.
    """

    judges_alone = True  # nothing in it looks across a batch: real and generated ones may come in one

    def __init__(
        self,
        inputs: int = 2,
        widths: Sequence[int] = (200, 200, 200),
        maxout: int = 5,
        packing: int = 1,
        leak: float = 0.0,
        frequencies: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = checked_number("scale", scale, 1e-6, 1e6)
        checked_integer("inputs", inputs, 1, 65536)
        checked_integer("maxout", maxout, 1, 64)
        self.packing = checked_integer("packing", packing, 1, 64)
        leak = checked_number("leak", leak, 0.0, 1.0)
        widths, inputs = checked_widths(widths), inputs * packing
        layers: list[nn.Module] = []
        self.frequencies: Frequencies | None = None
        if checked_integer("frequencies", frequencies, 0, 4096):
            self.frequencies = coarse_to_fine(inputs, frequencies)
            inputs += 2 * frequencies
        layers += [Maxout(fan_in, fan_out, maxout, leak) for fan_in, fan_out in itertools.pairwise((inputs, *widths))]
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
        packs = vectors.reshape(len(vectors) // self.packing, -1) / self.scale  # [N / m, m * inputs]
        if self.frequencies is not None:
            packs = torch.cat([packs, self.frequencies(packs)], dim=1)
        logits: Tensor = self.layers(packs).squeeze(1)  # [N / m]
        return logits


def _initialise(network: nn.Module) -> None:
    """Glorot's uniform weights, and zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
