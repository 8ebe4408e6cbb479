"""The recipes' training steps as one writes them straight away: what `training_steps.py` measures ours against.

Same networks, objective, penalties, optimiser, averaged weights and batch; torch's own random numbers, random batches
out of memory, no log, no report, nothing that could be resumed. What every careful author does is done here too: fakes
for the discriminator alone are drawn without a graph, those of its last step serve the generator, and the
discriminator's weights are frozen meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, relu, softplus

from gantrain.data.source import ImageSource
from gantrain.data.toys import Curves, GaussianMixture

Labels = tuple[Tensor, ...]
Losses = tuple[Tensor, Tensor]


class Feed(Protocol):
    """What a step is fed, each call the next."""

    def real(self) -> tuple[Tensor, Labels]:
        """float32 [batch, C, H, W] in [-1, 1] or [batch, length]; labels int64 [batch] of a conditional recipe."""

    def z(self) -> Tensor:
        """float32 [batch, z_size] ~ N(0, 1), those of the last real batch."""

    def factors(self) -> Tensor:
        """float32 [batch] ~ U(0, 1): where between real and fake the gradient penalty is taken."""

    def mixing(self, layers: int) -> tuple[Tensor, Tensor]:
        """A second z, and the layer from which it counts: int64 [batch]."""

    def noise(self, sides: list[int]) -> list[Tensor]:
        """float32 [batch, 1, side, side] ~ N(0, 1), of a StyleGAN2."""

    def directions(self, images: Tensor) -> Tensor:
        """float32 as the images ~ N(0, 1) / √(H · W), of the path length."""


@dataclass
class Plain:
    """Networks and optimisers of a plain training, and the recipe's settings `s`."""

    s: Any
    generator: nn.Module
    discriminator: nn.Module
    tuned: bool = False
    steps: int = 0
    path_mean: Tensor = field(init=False)

    def __post_init__(self) -> None:
        s = self.s
        self.path_mean = torch.zeros((), device=next(self.generator.parameters()).device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        adam = {"betas": (s.beta1, s.beta2)} | ({"fused": True} if self.tuned else {})
        kind: Callable[..., torch.optim.Optimizer] = (
            torch.optim.RMSprop if s.optimiser == "rmsprop" else torch.optim.Adam
        )
        options = {} if s.optimiser == "rmsprop" else adam
        self.generator_optimiser = kind(self.generator.parameters(), s.generator_lr, **options)
        self.discriminator_optimiser = kind(self.discriminator.parameters(), s.discriminator_lr, **options)

    @property
    def networks(self) -> tuple[Any, Any]:
        return self.generator, self.discriminator

    def improve_discriminator(self, loss: Tensor) -> None:
        self.discriminator_optimiser.zero_grad()
        loss.backward()
        self.discriminator_optimiser.step()

    def improve_generator(self, loss: Tensor) -> None:
        self.generator_optimiser.zero_grad()
        loss.backward()
        self.generator_optimiser.step()
        self.steps += 1
        self._average()

    def _average(self) -> None:
        if not self.s.ema_half_life:
            return
        half_life = min(self.s.ema_half_life, 0.05 * self.steps * self.s.batch)
        with torch.no_grad():
            for kept, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(weight, 1.0 - 0.5 ** (self.s.batch / half_life))
            for kept, statistic in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                kept.copy_(statistic)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """For the generator's step."""
        self.discriminator.requires_grad_(False)
        yield
        self.discriminator.requires_grad_(True)


def classic(p: Plain, feed: Feed) -> Losses:
    """GAN, DCGAN, LSGAN, conditional GAN, painter: a step each."""
    G, D = p.networks
    real, labels = feed.real()
    fake = G(feed.z(), *labels)
    on_real, on_fake = D(real, *labels), D(fake.detach(), *labels)
    ones, zeros = torch.ones_like(on_real), torch.zeros_like(on_fake)
    if p.s.objective == "least_squares":
        loss_d = 0.5 * (mse_loss(on_real, ones) + mse_loss(on_fake, zeros))
    else:
        loss_d = binary_cross_entropy_with_logits(on_real, ones) + binary_cross_entropy_with_logits(on_fake, zeros)
    p.improve_discriminator(loss_d)
    with p.frozen():
        judged = D(fake, *labels)
        if p.s.objective == "least_squares":
            loss_g = 0.5 * mse_loss(judged, ones)
        elif p.s.objective == "minimax":
            loss_g = -binary_cross_entropy_with_logits(judged, zeros)
        else:
            loss_g = binary_cross_entropy_with_logits(judged, ones)
        p.improve_generator(loss_g)
    return loss_d, loss_g


def critic(p: Plain, feed: Feed) -> Losses:
    """WGAN, WGAN-GP, SNGAN, Progressive GAN once it has grown: one or more critic steps for one of the generator."""
    G, D = p.networks
    for k in range(p.s.discriminator_steps):
        real, labels = feed.real()
        with torch.set_grad_enabled(k == p.s.discriminator_steps - 1):
            fake = G(feed.z(), *labels)
        on_real, on_fake = D(real, *labels), D(fake.detach(), *labels)
        if p.s.objective == "hinge":
            loss_d = relu(1.0 - on_real).mean() + relu(1.0 + on_fake).mean()
        else:
            loss_d = on_fake.mean() - on_real.mean()
        paid = loss_d
        if p.s.gradient_penalty:
            u = feed.factors()[:, None, None, None]
            between = (u * real + (1.0 - u) * fake.detach()).requires_grad_(True)
            slope = torch.autograd.grad(D(between, *labels).sum(), between, create_graph=True)[0]
            paid = paid + p.s.gradient_penalty * ((slope.flatten(1).norm(dim=1) - 1.0) ** 2).mean()
        if p.s.drift:
            paid = paid + p.s.drift * (on_real**2).mean()
        p.improve_discriminator(paid)
        if p.s.clip:
            with torch.no_grad():
                for weight in D.parameters():
                    weight.clamp_(-p.s.clip, p.s.clip)
    with p.frozen():
        loss_g = -D(fake, *labels).mean()
        p.improve_generator(loss_g)
    return loss_d, loss_g


def relativistic(p: Plain, feed: Feed) -> Losses:
    """R3GAN and the toys: pairs, with R1 and R2 in every step."""
    G, D = p.networks
    real, _ = feed.real()
    fake = G(feed.z())
    real, shown = real.requires_grad_(True), fake.detach().requires_grad_(True)
    on_real, on_fake = D(real), D(shown)
    loss_d = softplus(on_fake - on_real).mean()
    r1 = torch.autograd.grad(on_real.sum(), real, create_graph=True)[0].square().flatten(1).sum(1).mean()
    r2 = torch.autograd.grad(on_fake.sum(), shown, create_graph=True)[0].square().flatten(1).sum(1).mean()
    p.improve_discriminator(loss_d + 0.5 * p.s.r1 * r1 + 0.5 * p.s.r2 * r2)
    with p.frozen():
        with torch.no_grad():
            rivals = D(real)
        loss_g = softplus(rivals - D(fake)).mean()
        p.improve_generator(loss_g)
    return loss_d, loss_g


def styled(p: Plain, feed: Feed) -> Losses:
    """StyleGAN2: style mixing, R1 and the path length now and then, the latter in a pass of its own."""
    (G, D), s = p.networks, p.s
    real, _ = feed.real()
    z, noise = feed.z(), feed.noise([t.shape[-1] for t in G.noise_tensors()])
    other, crossover = feed.mixing(G.style_layers)
    fake = G.synthesis(_mixed(G, z, other, crossover), noise)
    with_r1 = p.steps % s.penalty_every == 0
    real.requires_grad_(with_r1)
    on_real, on_fake = D(real), D(fake.detach())
    loss_d = softplus(-on_real).mean() + softplus(on_fake).mean()
    paid = loss_d
    if with_r1:
        slope = torch.autograd.grad(on_real.sum(), real, create_graph=True)[0]
        paid = paid + s.penalty_every * 0.5 * s.r1 * slope.square().flatten(1).sum(1).mean()
    p.improve_discriminator(paid)
    with p.frozen():
        loss_g = softplus(-D(fake)).mean()
        paid = loss_g
        if p.steps % s.path_every == 0:
            styles = _mixed(G, z, other, crossover)
            images = G.synthesis(styles, noise)
            slope = torch.autograd.grad((images * feed.directions(images)).sum(), styles, create_graph=True)[0]
            lengths = slope.square().sum(2).mean(1).sqrt()
            p.path_mean.lerp_(lengths.detach().mean(), 0.01)
            paid = paid + s.path_every * s.path_length * (lengths - p.path_mean).square().mean()
        p.improve_generator(paid)
    return loss_d, loss_g


def _mixed(generator: Any, z: Tensor, other: Tensor, crossover: Tensor) -> Tensor:
    w = generator.mapping(z)
    generator.update_w_avg(w)
    styles: Tensor = generator.mixed_styles(w, generator.mapping(other), crossover)
    return styles


PLAIN_STEPS: dict[str, Callable[[Plain, Feed], Losses]] = {
    **dict.fromkeys(("mlp", "dcgan", "lsgan", "cgan", "painter"), classic),
    **dict.fromkeys(("wgan", "wgan-gp", "sngan", "sngan-projection", "progressive"), critic),
    **dict.fromkeys(("r3gan", "toy"), relativistic),
    "stylegan2": styled,
}


class RandomFeed:
    """torch's random numbers, and batches at random from `data`, which is held in the device's memory as float32.

    Args:
        label: the attribute that a conditional recipe is told.
        channels_last: the images' memory order.
    """

    def __init__(
        self,
        data: ImageSource | GaussianMixture | Curves,
        s: Any,
        label: str | None,
        *,
        channels_last: bool = False,
        device: str = "cpu",
    ) -> None:
        self._data, self._batch, self._z_size, self._device = data, s.batch, s.z_size, device
        self._mixing = getattr(s, "mixing", 0.0)
        self._labels: Tensor | None = None
        if isinstance(data, ImageSource):
            order = torch.channels_last if channels_last else torch.contiguous_format
            images = torch.tensor(data.images, device=device).permute(0, 3, 1, 2)
            self._images = (images.float() / 127.5 - 1.0).contiguous(memory_format=order)
            self._labels = None if label is None else torch.tensor(data.labels[label], device=device)
        elif isinstance(data, GaussianMixture):
            self._centres = torch.tensor(data.centres, dtype=torch.float32, device=device)
        else:
            self._places = torch.tensor(np.square(data.places), dtype=torch.float32, device=device)

    def real(self) -> tuple[Tensor, Labels]:
        if isinstance(self._data, GaussianMixture):
            modes = torch.randint(len(self._centres), (self._batch,), device=self._device)
            spread = torch.randn(self._batch, self._data.size, device=self._device)
            return self._centres[modes] + self._data.sigma * spread, ()
        if isinstance(self._data, Curves):
            a = 1.0 + torch.rand(self._batch, 1, device=self._device)
            return a * self._places + (a - 1.0), ()
        places = torch.randint(len(self._images), (self._batch,), device=self._device)
        return self._images[places], () if self._labels is None else (self._labels[places],)

    def z(self) -> Tensor:
        return torch.randn(self._batch, self._z_size, device=self._device)

    def factors(self) -> Tensor:
        return torch.rand(self._batch, device=self._device)

    def mixing(self, layers: int) -> tuple[Tensor, Tensor]:
        crossover = torch.randint(1, layers, (self._batch,), device=self._device)
        return self.z(), torch.where(torch.rand(self._batch, device=self._device) < self._mixing, crossover, layers)

    def noise(self, sides: list[int]) -> list[Tensor]:
        return [torch.randn(self._batch, 1, side, side, device=self._device) for side in sides]

    def directions(self, images: Tensor) -> Tensor:
        return torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
