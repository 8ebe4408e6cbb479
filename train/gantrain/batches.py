"""Batches: real samples with their labels, and the latents that go with them, each a function of (seed, position).

Positions count real samples over the whole training, so that a resumed run goes on with the very next one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ganruntime.noise import latents, stream_of
from ganruntime.spec import TensorSpec
from gantrain.ahead import Ahead
from gantrain.data import order
from gantrain.data.source import ImageSource
from gantrain.plan import Plan
from gantrain.recipes.training_settings import ImageSettings


class Batches:
    """The training data on the plan's device: images are held there as uint8, vectors drawn when they are asked for.

    Args:
        plan: whose data, seed and batch size these are.
        latent: what the generator draws from.
    """

    def __init__(self, plan: Plan, latent: TensorSpec) -> None:
        self._seed, self._count, self._device = plan.record.seed, plan.settings.batch, plan.device
        self._mirror = isinstance(plan.settings, ImageSettings) and plan.settings.mirror
        self._latent, self._label = latent, plan.label
        self._classes = 0 if plan.label is None else len(plan.data.classes[plan.label])
        self._latents: dict[str, Ahead] = {}
        # Not those that the user will generate with.
        self._latent_seed = stream_of(f"gantrain.loop latents of seed {self._seed}")
        self._data = plan.data
        if isinstance(plan.data, ImageSource):
            # uint8 [N, C, H, W], channels last
            self._pixels = torch.tensor(plan.data.images).permute(0, 3, 1, 2).to(self._device)
        else:
            self._rows = Ahead(plan.data.rows, plan.data.size, self._device)

    def real(self, first: int, count: int | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The samples at positions `first` …, `count` of them or a batch: images float32 [count, C, H, W] in [-1, 1],
        or vectors float32 [count, length]; and of a conditional recipe the labels int64 [count], otherwise nothing."""
        count = self._count if count is None else count
        if not isinstance(self._data, ImageSource):
            rows = self._rows(first, count)
            if self._label is None:
                return rows, ()
            return rows, (torch.from_numpy(self._data.labels(first, count)[self._label]).to(self._device),)
        places = order.indices(self._seed, first, count, len(self._pixels))
        real = self._pixels[torch.from_numpy(places).to(self._device)].to(torch.float32).div_(127.5).sub_(1.0)
        if self._mirror:
            flipped = torch.from_numpy(order.mirrored(self._seed, first, count)).to(self._device)
            real = torch.where(flipped[:, None, None, None], real.flip(3), real)
        if self._label is None:
            return real, ()
        return real, (torch.from_numpy(self._data.labels[self._label][places]).to(self._device),)

    def mismatched(self, first: int, labels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """For the labels int64 [N] of positions `first` … wrong ones, each of the other classes as likely as the next.

        Reed et al., "Generative Adversarial Text to Image Synthesis", 2016 (arXiv:1605.05396): GAN-CLS.
        """
        (label,) = labels
        turns = torch.from_numpy(order.mismatches(self._seed, first, len(label), self._classes))
        return ((label + turns.to(self._device)) % self._classes,)

    def latents(self, first: int, count: int, use: str = "") -> Tensor:
        """The latents of generated samples `first` … : float32 [count, *latent.shape]; others for each `use`."""
        if use not in self._latents:
            seed = stream_of(f"{self._latent_seed} {use}") if use else self._latent_seed
            self._latents[use] = Ahead(partial(latents, self._latent, seed), self._latent.size, self._device)
        return self._latents[use](first, count)


def packed(samples: Tensor, pack: int) -> Tensor:
    """PacGAN: [N, C, …] -> [N / pack, pack · C, …], `pack` samples in a row judged as one.

    Lin, Khetan, Fanti and Oh, "PacGAN: The power of two samples in generative adversarial networks", 2017
    (arXiv:1712.04086): a generator that has lost modes repeats itself within a pack, and the discriminator sees it.
    """
    if pack == 1:
        return samples
    return samples.reshape(len(samples) // pack, pack * samples.shape[1], *samples.shape[2:])
