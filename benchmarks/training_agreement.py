"""Whether the plain loops of `plain_loops.py` train as `gantrain.loop.train` does.

Both start from the same weights, and take two steps on the same inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from plain_loops import PLAIN_STEPS, Labels, Plain
from torch import Tensor, nn

from gantrain.batches import Batches
from gantrain.checkpoint import WEIGHTS_FILE, read_tensors
from gantrain.drawing import Drawing
from gantrain.loop import train
from gantrain.penalties.interpolates import factors
from gantrain.penalties.path_length import directions
from gantrain.plan import Plan, new_plan
from gantrain.progress import StepReport
from gantrain.recipes import RECIPES
from gantrain.start import fresh_state, spec_of
from gantrain.training_state import FOLDER, TrainingState

SEED = 5
NEVER = 1_000_000_000

# Digits at 32 px and the recipes' own widths; the progressive GAN is grown, which is where it spends its time.
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: ("digits", {}) for name in RECIPES} | {
    "painter": ("curves", {}),
    "toy": ("ring", {}),
    "progressive": ("digits", {"stage_images": 0}),
}


class GivenFeed:
    """Our own inputs, step after step, for a plain loop that is held against ours."""

    def __init__(self, plan: Plan, state: TrainingState) -> None:
        self._seed, self._batch, self._first = plan.record.seed, plan.settings.batch, -plan.settings.batch
        self._device = plan.device
        self._batches = Batches(plan, spec_of(plan, state).inputs[0])
        self._draw = Drawing(plan, state.generator, self._batches)

    def real(self) -> tuple[Tensor, Labels]:
        self._first += self._batch
        return self._batches.real(self._first, self._batch)

    def z(self) -> Tensor:
        return self._batches.latents(self._first, self._batch)

    def factors(self) -> Tensor:
        return torch.from_numpy(factors(self._seed, self._first, self._batch)).to(self._device)

    def mixing(self, layers: int) -> tuple[Tensor, Tensor]:
        crossovers = self._draw.crossovers(self._first, self._batch)
        return self._batches.latents(self._first, self._batch, "mixed"), crossovers

    def noise(self, sides: list[int]) -> list[Tensor]:
        return self._draw.noise(self._first, self._batch)

    def directions(self, images: Tensor) -> Tensor:
        return torch.from_numpy(directions(self._seed, self._first, self._batch, images.shape[1:])).to(self._device)


def planned(
    recipe: str, folder: Path, threads: int, changes: dict[str, Any] | None = None, device: str = "cpu"
) -> Plan:
    source, settings = CASES[recipe]
    given = settings | (changes or {})
    return new_plan(recipe, source, folder / "planned", given, steps=NEVER, seed=SEED, threads=threads, device=device)


def fresh(plan: Plan) -> TrainingState:
    """The state that `train` starts from: the same random weights."""
    torch.manual_seed(plan.record.seed)
    return fresh_state(plan)


def plain_from(plan: Plan, *, tuned: bool = False) -> Plain:
    """The plain training of a plan, from the weights that ours starts from."""
    state = fresh(plan)
    order = torch.channels_last if tuned else torch.contiguous_format
    networks = [network.to(memory_format=order) for network in (state.generator, state.discriminator)]  # type: ignore[call-overload]
    return Plain(plan.settings, *networks, tuned=tuned)


@dataclass(frozen=True)
class Agreement:
    """How far the plain loop's first steps are from ours.

    first_step: the largest relative difference of losses and gradient norms in the first step.
    weights: the largest distance of a network's weights after two steps, over how far they went.
    """

    first_step: float
    weights: float

    def holds(self) -> bool:
        # Float sums in another order. Adam's first steps are as long for a gradient that is nothing but rounding, as it
        # is for a bias before batch normalisation, as for any other: those weights go where they like.
        return self.first_step < 1e-3 and self.weights < 0.25


def agreement(
    recipe: str, folder: Path, threads: int, changes: dict[str, Any] | None = None, device: str = "cpu"
) -> Agreement:
    """Two steps of `train` and two of the plain loop on the same inputs, compared; on a GPU without TF32, which rounds
    more than the two may be apart, and with algorithms that give the same bits twice."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        return _agreement(recipe, folder, threads, changes, device)


def _agreement(recipe: str, folder: Path, threads: int, changes: dict[str, Any] | None, device: str) -> Agreement:
    plan = planned(recipe, folder, threads, changes, device)
    source, settings = CASES[recipe]
    reports: list[StepReport] = []
    checkpoint = train(
        recipe, source, folder / "checked", steps=2, seed=SEED, threads=threads, on_step=reports.append,
        settings=settings | (changes or {}), device=device,
    )  # fmt: skip
    start, plain, feed = fresh(plan), plain_from(plan), GivenFeed(plan, fresh(plan))
    loss_d, loss_g = PLAIN_STEPS[recipe](plain, feed)
    ours = (reports[0].loss_d, reports[0].loss_g, reports[0].gradient_d, reports[0].gradient_g)
    theirs = (loss_d.item(), loss_g.item(), gradient_norm(plain.discriminator), gradient_norm(plain.generator))
    # A loss is a difference of numbers around 1; a gradient's norm stands for itself.
    first_step = max(
        abs(a - b) / max(abs(b), floor) for a, b, floor in zip(ours, theirs, (1.0, 1.0, 1e-6, 1e-6), strict=True)
    )
    PLAIN_STEPS[recipe](plain, feed)
    trained = {
        checkpoint / FOLDER / "generator.safetensors": (plain.generator, start.generator),
        checkpoint / FOLDER / "discriminator.safetensors": (plain.discriminator, start.discriminator),
        checkpoint / WEIGHTS_FILE: (plain.average if plan.settings.ema_half_life else plain.generator, start.generator),
    }
    return Agreement(first_step, max(distance(read_tensors(file), *networks) for file, networks in trained.items()))


def gradient_norm(network: nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm())


def distance(ours: dict[str, Tensor], theirs: nn.Module, start: nn.Module) -> float:
    """Of our weights from the others', over that of the others' from where they started."""
    before = dict(start.named_parameters())
    apart = sum(float((ours[name] - p.detach().cpu()).square().sum()) for name, p in theirs.named_parameters())
    moved = sum(float((before[name] - p).detach().square().sum()) for name, p in theirs.named_parameters())
    return (apart / moved) ** 0.5
