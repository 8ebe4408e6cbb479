"""A step of the discriminator and a step of the generator: what the loop repeats.

A batch is taken in `accumulate` parts of equal size in each of the processes, and their gradients are added up before
the optimiser steps. A part's samples, latents, labels, noise and augmentation are those of the undivided batch, being
functions of (seed, position), and losses and penalties are means over samples, so that the gradients add up to the
batch's. Only what looks across samples sees the part: batch normalisation (ghost batches: Hoffer, Hubara and Soudry,
"Train longer, generalize better", 2017, arXiv:1705.08741) and the minibatch deviation. Packs and a relativistic loss's
pairs are never cut through. Two parts in one process and one part in each of two are the same parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gantrain.batches import Batches
from gantrain.distributed import ALONE, Processes
from gantrain.drawing import Drawing
from gantrain.objectives import objective_from_name
from gantrain.optimisers import gradient_norm
from gantrain.penalties.drift import drift_penalty
from gantrain.penalties.interpolates import factors, slope_penalty
from gantrain.penalties.path_length import PATH_LENGTH, directions, follow, path_lengths, path_penalty
from gantrain.penalties.weight_clipping import clip_weights
from gantrain.penalties.zero_centred import squared_gradients
from gantrain.plan import Plan
from gantrain.precision import LEAST_SCALE, Precision
from gantrain.recipes.training_settings import ImageSettings
from gantrain.schedules.growth import Growth
from gantrain.start import spec_of
from gantrain.statistics import Statistics
from gantrain.training_state import TrainingState
from gantrain.view import View

Labels = tuple[Tensor, ...]


@dataclass(frozen=True)
class Judged:
    """What came of a discriminator step.

    loss: the objective's, mismatched labels included, without penalties, []. logits: of the whole batch, of real and of
    generated samples, [2, batch / pack]. real, fake: samples of this process's last part, [N, C, H, W] or [N, length].
    """

    loss: Tensor
    logits: Tensor
    real: Tensor
    fake: Tensor


class Steps:
    """The two steps of a training; between them they keep the last batch, which serves both networks."""

    def __init__(self, plan: Plan, state: TrainingState, processes: Processes = ALONE) -> None:
        s = plan.settings
        self._processes = processes
        self._settings, self._seed, self._device, self._state = s, plan.record.seed, plan.device, state
        self._objective = objective_from_name(s.objective)
        self._batches = Batches(plan, spec_of(plan, state).inputs[0])
        self._draw = Drawing(plan, state.generator, self._batches)
        self._view, self._grow = View(plan, state), Growth(plan, state)
        self._precision = Precision(s.precision, plan.device)
        # Looked up once: a walk through a small network takes longer than what is done to its weights.
        self._weights = {name: list(getattr(state, name).parameters()) for name in ("generator", "discriminator")}
        self._judges_alone = getattr(state.discriminator, "judges_alone", False)
        self._parts = s.accumulate
        self._of_all = self._parts * processes.count
        self._count = s.batch // self._of_all  # samples in a part
        self._offsets = [(processes.rank * self._parts + part) * self._count for part in range(self._parts)]
        self._of_generator = Statistics(state.generator, self._of_all)
        self._of_discriminator = Statistics(state.discriminator, self._of_all)
        # Of each part of the last batch: what G drew, with its graph; what D was shown of the real samples; the labels.
        self._last: list[tuple[Tensor | None, Tensor, Labels]] = []
        weight = s.path_length if isinstance(s, ImageSettings) else 0.0
        self._path_every = s.path_every if isinstance(s, ImageSettings) else 1
        self._path_weight = self._path_every * weight

    def discriminator(self, d_step: int, *, last: bool) -> Judged:
        """Discriminator step `d_step`, counted from 0; `last` before the generator's, which takes the same batch."""
        s = self._settings
        first = d_step * s.batch
        self._grow(first)
        penalise = d_step % s.penalty_every == 0
        r1, r2 = penalise and s.r1 > 0, penalise and s.r2 > 0
        losses, logits = [], []
        self._last.clear()
        self._of_generator.begin()
        self._of_discriminator.begin()
        _clear(self._weights["discriminator"])
        for offset in self._offsets:
            at = first + offset
            real, labels = self._batches.real(at, self._count)  # [N, C, H, W] or [N, length]; [N] if conditional
            with torch.set_grad_enabled(last and self._parts == 1):  # the last batch also serves G
                fake = self._drawn(at, labels)  # as real; a real and a generated sample of a pair share the label
            shown_real, shown_fake = self._view(real, at, "real"), self._view(fake.detach(), at, "fake")
            shown_real.requires_grad_(r1)
            shown_fake.requires_grad_(r2)
            if self._judges_alone and r1 == r2:  # one pass for both; R1 by itself would double it where it is dear
                twice = tuple(torch.cat([label, label]) for label in labels)
                both = self._judged(torch.cat([shown_real, shown_fake]), twice, exact=r1)
                real_logits, fake_logits = both.chunk(2)  # [N], of packs [N / pack]
            else:
                real_logits = self._judged(shown_real, labels, exact=r1)
                fake_logits = self._judged(shown_fake, labels, exact=r2)
            loss = self._objective.discriminator_loss(real_logits, fake_logits, s.real_label)
            if s.mismatched:
                loss = torch.lerp(loss, self._mismatch_loss(at, shown_real, labels, real_logits), s.mismatched)
            paid = loss
            if s.drift:
                paid = paid + s.drift * drift_penalty(real_logits)
            penalised = [(s.r1, real_logits, shown_real)] * r1 + [(s.r2, fake_logits, shown_fake)] * r2
            squares = squared_gradients([(logits, samples) for _, logits, samples in penalised])
            for (gamma, _, _), square in zip(penalised, squares, strict=True):
                paid = paid + s.penalty_every * gamma / 2.0 * square
            if s.gradient_penalty:
                paid = paid + s.gradient_penalty * self._slope_penalty(first, offset, shown_real, shown_fake, labels)
            self._backward("discriminator", self._share(paid))
            losses.append(self._share(loss.detach()))
            logits.append(torch.stack([real_logits.detach(), fake_logits.detach()]))  # [2, N / pack]
            self._of_discriminator.keep()
            if not last:
                self._of_generator.keep()
            elif self._parts == 1:
                self._last.append((fake, shown_real, labels))
            else:  # drawn again in the generator's step: the graphs of all parts would need the memory of the whole
                self._of_generator.drop()
                self._last.append((None, shown_real.detach(), labels))
        loss, whole = _sum(losses), self._whole(_joined(logits, 1))
        if self._processes.count > 1:
            changes = self._of_discriminator.changes + ([] if last else self._of_generator.changes)
            self._processes.sum_([*_gradients(self._weights["discriminator"]), *changes, loss, whole])
        self._of_discriminator.settle()
        if not last:
            self._of_generator.settle()
        self._step("discriminator", self._state.discriminator_optimiser)
        if s.clip:
            clip_weights(self._state.discriminator, s.clip)
        self._view.saw(whole[0], d_step)
        return Judged(loss, whole, real, fake.detach())

    def generator(self, step: int) -> Tensor:
        """Generator step `step`, counted from 0, after its last discriminator step; the objective's loss, []."""
        s, state = self._settings, self._state
        first = ((step + 1) * s.discriminator_steps - 1) * s.batch
        path = self._path_weight > 0 and step % self._path_every == 0
        losses = []
        if self._parts > 1:  # otherwise the discriminator's step has begun with what it drew
            self._of_generator.begin()
        self._of_discriminator.begin()
        _clear(self._weights["generator"])
        _set_trainable(self._weights["discriminator"], False)  # spares the gradients of D's weights
        if path and self._parts > 1:
            self._follow_path_lengths(first)
        for offset in self._offsets:
            at = first + offset
            fake, shown_real, labels = self._last.pop(0)
            if fake is None:
                fake = self._drawn(at, labels)
            judged = self._judged(self._view(fake, at, "generator"), labels)
            rivals = None
            if self._objective.relative:
                with torch.no_grad():
                    rivals = self._judged(shown_real, labels)
            loss = self._objective.generator_loss(judged, rivals)
            paid = loss
            if path:
                lengths = self._path_lengths(at, labels)
                if self._parts == 1:
                    self._follow([self._share(lengths.detach().mean())])
                paid = paid + self._path_weight * path_penalty(lengths, state.extras[PATH_LENGTH])
            self._backward("generator", self._share(paid))
            losses.append(self._share(loss.detach()))
            self._of_generator.keep()
            self._of_discriminator.keep()
        loss = _sum(losses)
        if self._processes.count > 1:
            changes = self._of_generator.changes + self._of_discriminator.changes
            self._processes.sum_([*_gradients(self._weights["generator"]), *changes, loss])
        self._of_generator.settle()
        self._of_discriminator.settle()
        self._step("generator", state.generator_optimiser)
        _set_trainable(self._weights["discriminator"], True)
        return loss

    def gradient_norm(self, network: Literal["generator", "discriminator"]) -> float | None:
        """Of the last step; None where fp16 has overflowed and left it out, which less of a scale will mend."""
        norm = gradient_norm(getattr(self._state, network))
        scaler = self._state.scalers.get(network)
        return None if scaler and not math.isfinite(norm) and scaler.get_scale() >= LEAST_SCALE else norm

    def _drawn(self, at: int, labels: Labels) -> Tensor:
        with self._precision.passing():
            samples = self._draw(at, self._count, labels)
        return self._precision.widened(samples)

    def _judged(self, shown: Tensor, labels: Labels, *, exact: bool = False) -> Tensor:
        with self._precision.passing(exact=exact):
            logits: Tensor = self._state.discriminator(shown, *labels)
        return self._precision.widened(logits)

    def _backward(self, network: str, loss: Tensor) -> None:
        scaler = self._state.scalers.get(network)
        (scaler.scale(loss) if scaler else loss).backward()  # type: ignore[no-untyped-call]

    def _step(self, network: str, optimiser: torch.optim.Optimizer) -> None:
        scaler = self._state.scalers.get(network)
        if scaler is None:
            optimiser.step()
        else:
            scaler.unscale_(optimiser)
            scaler.step(optimiser)  # left out where a gradient has overflowed
            scaler.update()

    def _mismatch_loss(self, at: int, real: Tensor, labels: Labels, real_logits: Tensor) -> Tensor:
        """The objective's loss where real samples under wrong labels stand for the generated ones."""
        logits = self._judged(real.detach(), self._batches.mismatched(at, labels))
        return self._objective.discriminator_loss(real_logits, logits, self._settings.real_label)

    def _slope_penalty(self, first: int, offset: int, real: Tensor, fake: Tensor, labels: Labels) -> Tensor:
        # One u a pack, counted from the batch's position.
        u = factors(self._seed, first + offset // self._settings.pack, len(real))
        critic = partial(self._judged, labels=labels, exact=True)
        return slope_penalty(critic, real, fake, torch.from_numpy(u).to(self._device))

    def _path_lengths(self, at: int, labels: Labels, *, differentiable: bool = True) -> Tensor:
        styles = self._draw.styles(at, self._count, labels)  # [N, layers, w_size]
        images = self._draw.images(styles, at)  # [N, C, H, W]
        y = torch.from_numpy(directions(self._seed, at, self._count, images.shape[1:])).to(self._device)
        return path_lengths(images, styles, y, differentiable=differentiable)  # [N]

    def _follow_path_lengths(self, first: int) -> None:
        """The moving mean takes the lengths of the whole batch before any part is held against it."""
        means = []
        for offset, (_, _, labels) in zip(self._offsets, self._last, strict=True):
            means.append(self._share(self._path_lengths(first + offset, labels, differentiable=False).detach().mean()))
            self._of_generator.drop()
        self._follow(means)

    def _follow(self, means: list[Tensor]) -> None:
        """Brings the moving mean of path lengths up to date with the shares of this process's parts."""
        mean = _sum(means)
        self._processes.sum_([mean])
        follow(self._state.extras[PATH_LENGTH], mean)

    def _whole(self, logits: Tensor) -> Tensor:
        """This process's logits [2, n] in their place among all of the batch's, with zeros to add the others' to."""
        if self._processes.count == 1:
            return logits
        n = logits.shape[1]
        whole = logits.new_zeros(2, n * self._processes.count)
        whole[:, n * self._processes.rank : n * (self._processes.rank + 1)] = logits
        return whole

    def _share(self, mean: Tensor) -> Tensor:
        """A part's mean as its share of the batch's."""
        return mean if self._of_all == 1 else mean / self._of_all


def _gradients(weights: list[nn.Parameter]) -> list[Tensor]:
    """Those that there are: layers that have not grown yet have none, in all processes alike."""
    return [weight.grad for weight in weights if weight.grad is not None]


def _clear(weights: list[nn.Parameter]) -> None:
    for weight in weights:
        weight.grad = None


def _set_trainable(weights: list[nn.Parameter], trainable: bool) -> None:
    for weight in weights:
        weight.requires_grad_(trainable)


def _sum(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def _joined(values: list[Tensor], dim: int) -> Tensor:
    return values[0] if len(values) == 1 else torch.cat(values, dim)
