"""Inversion: the latent whose image is nearest to a given one, by gradient descent through the generator.

After Zhu, Krähenbühl, Shechtman and Efros, "Generative Visual Manipulation on the Natural Image Manifold", 2016
(arXiv:1609.03552), and for w StyleGAN2's projector (Karras et al., 2020, arXiv:1912.04958, appendix D). The loss has a
local optimum for every wrong hair colour, so many latents are drawn first, and the best of them are all descended from
at once; the nearest at the end is the answer.

The loss is the squared difference at every resolution down to 4 pixels, averaged (the coarse ones place what the fine
ones then sharpen), plus a prior that keeps the latent where the generator was trained: its squared length per
coordinate, for z ~ N(0, 1) its negative log-likelihood; for w its squared distance to the mean of w in deviations.
Latents on a sphere, in a ball or in a cube are put back after every step instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output, values_from_uint8
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, TensorSpec

SPACES = ("z", "w")
PSNR_CAP_DB = 200.0  # of equal images
_LEAST_SIDE = 4
_PIECE = 64  # candidates drawn at a time
_W_SAMPLES = 1024  # for the mean and the deviation of w

OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class Inversion:
    """What was found.

    latent: float32, the shape of the generator's latent input, or [w_size] in the space w.
    space: `z` or `w`.
    inputs: the other inputs that the image was drawn with, by name, one row each.
    image: uint8 [H, W, C], the reconstruction.
    psnr_db: of it against the target, both in uint8, capped at 200.
    start_psnr_db: the same for the best of the candidates, before any step.
    restarts_psnr_db: of every descent, best first.
    """

    latent: NDArray[np.float32]
    space: str
    inputs: Mapping[str, NDArray[np.generic]]
    image: NDArray[np.uint8]
    psnr_db: float
    start_psnr_db: float
    restarts_psnr_db: tuple[float, ...]


def invert(
    generator: nn.Module,
    spec: GeneratorSpec,
    target: NDArray[np.uint8],
    *,
    space: str = "z",
    steps: int = 400,
    restarts: int = 4,
    candidates: int = 512,
    rate: float = 0.1,
    prior: float = 1e-3,
    seed: int = 0,
    label: int | None = None,
    on_step: OnStep | None = None,
) -> Inversion:
    """The latent whose image is nearest to `target`. The same arguments give the same latent on the same machine.

    Args:
        generator: in eval mode; its parameters are not changed.
        target: uint8 [H, W, C], of the generator's height, width and channels.
        space: `w` for a generator with a mapping network, `z` for any with a latent.
        steps: of Adam; its rate rises over the first twentieth and falls as a cosine to nothing.
        restarts: how many of the candidates are descended from.
        candidates: latents drawn, at least `restarts`.
        rate: Adam's largest.
        prior: weight of the prior, against a loss in squared units of the output's half range.
        label: class of the image; None leaves every candidate the class it was drawn with.
        on_step: called with the steps made and the smallest loss.

    Raises:
        InputError: an argument does not fit the generator, or is out of range.
    """
    image = require_invertible(generator, spec, space)
    latent = spec.latent
    assert latent is not None
    _check_target(target, image, spec)
    for name, value, least in (("steps", steps, 1), ("restarts", restarts, 1), ("candidates", candidates, restarts)):
        if value < least:
            raise InputError(f"{name} is out of range", got=value, expected=f"at least {least}")
    device = next(generator.parameters()).device
    assert isinstance(image.role, Image)
    low, high = image.role.range
    wanted = torch.from_numpy(values_from_uint8(target[None], image)).to(device, torch.float32)  # [1, C, H, W]
    levels = _pyramid(wanted * (2.0 / (high - low)))
    # What is beyond the range is drawn as white or black: where the target is either, it is no difference.
    lower = torch.where(wanted <= low, low, -math.inf)
    upper = torch.where(wanted >= high, high, math.inf)

    def distances(images: Tensor) -> Tensor:
        found = _pyramid(images.clamp(lower, upper) * (2.0 / (high - low)))
        parts = [(a - b).square().mean((1, 2, 3)) for a, b in zip(found, levels, strict=True)]
        return torch.stack(parts).mean(0)  # [N]

    draw = _Drawing(generator, spec, latent, space, device)
    start, others = draw.best(distances, seed, candidates, restarts, label)
    start_psnr = _psnr(draw.pixels(start[:1], {n: t[:1] for n, t in others.items()}, image)[0], target)

    x = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1.0, 0.05 * steps)) * _cosine(step / steps)
        loss = distances(draw.images(x, others)) + prior * draw.unlikeliness(x)  # [restarts]
        (x.grad,) = torch.autograd.grad(loss.sum(), x)  # and none of the weights
        optimiser.step()
        draw.put_back(x)
        if on_step is not None:
            on_step(step + 1, float(loss.detach().min()))
    found = x.detach()
    images = draw.pixels(found, others, image)  # uint8 [restarts, H, W, C]
    psnr = [_psnr(one, target) for one in images]
    best = int(np.argmax(psnr))
    return Inversion(
        latent=found[best].cpu().numpy(),
        space=space,
        inputs={name: tensor[best].cpu().numpy() for name, tensor in others.items()},
        image=images[best],
        psnr_db=psnr[best],
        start_psnr_db=start_psnr,
        restarts_psnr_db=tuple(sorted(psnr, reverse=True)),
    )


class _Drawing:
    """The generator as a function of the latent that is searched for, the other inputs held."""

    def __init__(
        self, generator: Any, spec: GeneratorSpec, latent: TensorSpec, space: str, device: torch.device
    ) -> None:
        self.generator, self.spec, self.latent, self.space, self.device = generator, spec, latent, space, device
        self.w_mean = self.w_deviation = torch.zeros(1, device=device)

    @torch.no_grad()
    def best(
        self, distances: Callable[[Tensor], Tensor], seed: int, candidates: int, keep: int, label: int | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The `keep` nearest of the candidates, nearest first: latents, and the other inputs."""
        drawn = noise.inputs(self.spec, seed, 0, candidates)
        inputs = {name: torch.from_numpy(values).to(self.device) for name, values in drawn.items()}
        for tensor in self.spec.inputs:
            if label is not None and isinstance(tensor.role, Label):
                inputs[tensor.name].fill_(label)
        x = inputs.pop(self.latent.name)
        if self.space == "w":
            given = [inputs[t.name] for t in self.spec.inputs if isinstance(t.role, Label)]
            x = self.generator.mapping(x, *given)  # [candidates, w_size]
            self._measure_w(seed, label)
        scores = [
            distances(self.images(x[k : k + _PIECE], {n: t[k : k + _PIECE] for n, t in inputs.items()}))
            for k in range(0, candidates, _PIECE)
        ]
        nearest = torch.cat(scores).topk(keep, largest=False).indices
        return x[nearest].clone(), {name: tensor[nearest] for name, tensor in inputs.items()}

    def _measure_w(self, seed: int, label: int | None) -> None:
        drawn = noise.inputs(self.spec, seed, 0, _W_SAMPLES)
        z = torch.from_numpy(drawn[self.latent.name]).to(self.device)
        labels = [torch.from_numpy(drawn[t.name]) for t in self.spec.inputs if isinstance(t.role, Label)]
        given = [one.to(self.device) if label is None else one.to(self.device).fill_(label) for one in labels]
        w = self.generator.mapping(z, *given)
        self.w_mean, self.w_deviation = w.mean(0), w.std(0) + 1e-8

    def images(self, x: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """Latents [N, …] and the other inputs [N, …] -> images in the output's values."""
        if self.space == "z":
            arguments = [x if t.name == self.latent.name else others[t.name] for t in self.spec.inputs]
            images: Tensor = self.generator(*arguments)
        else:
            plane = [others[t.name] for t in self.generator.noise_tensors()]
            images = self.generator.synthesis(self.generator.styles(x), plane)
        return images

    @torch.no_grad()
    def pixels(self, x: Tensor, others: Mapping[str, Tensor], image: TensorSpec) -> NDArray[np.uint8]:
        return uint8_from_output(self.images(x, others).cpu().numpy(), image)

    def unlikeliness(self, x: Tensor) -> Tensor:
        """What the prior takes for unlikely, [N]: 1 on average where latents are drawn."""
        if self.space == "w":
            return ((x - self.w_mean) / self.w_deviation).square().mean(1)
        role = self.latent.role
        assert isinstance(role, Latent)
        return (x / role.scale).square().flatten(1).mean(1) if role.distribution == "normal" else x.new_zeros(len(x))

    @torch.no_grad()
    def put_back(self, x: Tensor) -> None:
        """Puts latents of a bounded distribution back to where they may lie, in place."""
        role = self.latent.role
        assert isinstance(role, Latent)
        if self.space == "w" or role.distribution == "normal":
            return
        if role.distribution == "uniform":
            x.clamp_(-role.scale, math.nextafter(role.scale, 0.0))
            return
        length = x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        x.mul_(role.scale / (length if role.distribution == "sphere" else length.clamp(min=role.scale)))


def require_invertible(generator: nn.Module, spec: GeneratorSpec, space: str) -> TensorSpec:
    """The image output of a generator that can be inverted in this space. Raises `InputError` for any other."""
    images = [t for t in spec.outputs if isinstance(t.role, Image)]
    latents = [t for t in spec.inputs if isinstance(t.role, Latent)]
    if len(latents) != 1 or len(images) != 1 or len(spec.outputs) != 1 or not _is_fixed(images[0]):
        raise InputError(
            f"{spec.name} cannot be inverted",
            got=f"{', '.join(t.role.kind for t in spec.inputs)} -> {', '.join(t.role.kind for t in spec.outputs)}",
            expected="a generator with one latent and one image [C, H, W] of a fixed size",
        )
    drawn = noise.inputs(spec, 0, 0, 1)
    missing = [t.name for t in spec.inputs if t.name not in drawn]
    if missing:
        raise InputError(f"{spec.name} cannot be inverted: it takes inputs that only you have", got=", ".join(missing))
    if space not in SPACES:
        raise InputError("no latent space has this name", got=repr(space), expected=", ".join(SPACES))
    if space == "w" and not all(hasattr(generator, part) for part in ("mapping", "styles", "synthesis")):
        raise InputError(f"{spec.name} has no space w", got=type(generator).__name__, expected="a StyleGAN2 generator")
    return images[0]


def _is_fixed(image: TensorSpec) -> bool:
    """Whether it is [C, H, W] of one size."""
    return isinstance(image.role, Image) and image.role.layout == "CHW" and None not in image.shape


def _check_target(target: NDArray[np.uint8], image: TensorSpec, spec: GeneratorSpec) -> None:
    channels, height, width = image.shape  # of our networks, planes first
    if target.dtype != np.uint8 or target.shape != (height, width, channels):
        raise InputError(
            f"the image does not fit {spec.name}",
            got=f"{target.dtype} {list(target.shape)}",
            expected=f"uint8 {[height, width, channels]}",
        )


def _pyramid(images: Tensor) -> list[Tensor]:
    """[N, C, H, W] at its size, half of it, … and at least 4 pixels."""
    levels = [images]
    while min(levels[-1].shape[2:]) >= 2 * _LEAST_SIDE:
        levels.append(functional.avg_pool2d(levels[-1], 2))
    return levels


def _cosine(share: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * share)


def _psnr(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, the peak being 255."""
    error = float(np.square(image.astype(np.float64) - target.astype(np.float64)).mean())
    return PSNR_CAP_DB if error == 0 else min(PSNR_CAP_DB, 10.0 * math.log10(255.0**2 / error))
