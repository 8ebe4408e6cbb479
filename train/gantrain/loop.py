"""The training loop, top to bottom: one page for every recipe.

On the CPU with the same number of threads a seed gives the same bits, whether the run is interrupted and resumed or
not: latents, the order of the data and mirroring are functions of (seed, step), and everything else is in the state.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganruntime.errors import InputError, TrainingError
from gantrain.batches import Batches
from gantrain.drawing import Drawing
from gantrain.ema import decay_per_step, update_average
from gantrain.objectives import objective_from_name
from gantrain.optimisers import gradient_norm, set_rate
from gantrain.penalties.interpolates import factors, slope_penalty
from gantrain.penalties.path_length import PATH_LENGTH, directions, path_penalty
from gantrain.penalties.weight_clipping import clip_weights
from gantrain.penalties.zero_centred import squared_gradient
from gantrain.plan import Plan, Source, new_plan, resumed_plan
from gantrain.progress import StepReport
from gantrain.recipes.training_settings import ImageSettings
from gantrain.run_folder import checkpoint_of, locked, log, log_of, sample_of, truncate_log, write_run, write_sheet
from gantrain.schedules.decay import rate_factor
from gantrain.schedules.growth import Growth
from gantrain.sheets import sheet_of
from gantrain.start import create_run, fresh_state, generator_record, spec_of
from gantrain.stop_signals import StopSignals, TrainingStopped
from gantrain.training_state import TrainingState, load_state, save_state
from gantrain.view import View

EARLY_SHEETS = (0, 100, 300)


def train(
    recipe_name: str,
    source: str | Source | None,
    out: Path | str,
    *,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Path:
    """Trains a generator into a run folder (`gantrain.run_folder`).

    Args:
        recipe_name: a name of `gantrain.recipes.RECIPES`.
        source: `digits`, `faces`, the path of a folder or zip of images, images in memory; for a recipe of vectors
            `ring`, `grid`, `curves` or a `VectorSource`. None only with `resume`, for what the run was started on.
        out: the run folder; new or empty, or with `resume` the run to go on with.
        steps: generator steps in all, in place of the setting `steps`. A resumed run may be given more.
        seed: of weights, latents and the order of the data; in [0, 2⁶⁴). None: 0, or with `resume` the run's.
        settings: changes of the recipe's settings, typed or as text.
        on_step: called after every step on the CPU, and every `log_every` steps elsewhere.
        threads: of torch. None: what torch takes, or with `resume` what the run had.
        device: `cpu`, `cuda` or `cuda:N`. None: `cpu`, or with `resume` what the run had.

    Returns:
        The checkpoint folder.

    Raises:
        InputError: an argument does not fit; with `resume`, one that differs from what the run was started with.
        DataError, DeviceError, CheckpointError: what they say.
        TrainingError: a loss or a weight is no longer finite; the last good checkpoint is kept.
        OutputError: the disk is full; the last checkpoint is kept.
        TrainingStopped: SIGINT or SIGTERM came; a checkpoint of the current step is kept. A KeyboardInterrupt.
    """
    run = Path(out)
    arguments: dict[str, Any] = {"steps": steps, "seed": seed, "threads": threads, "device": device}
    if resume:
        plan = resumed_plan(recipe_name, source, run, settings or {}, **arguments)
    elif source is None:
        raise InputError("a new run needs data", expected="digits, faces, or the path of a folder or zip of images")
    else:
        plan = new_plan(recipe_name, source, run, settings or {}, **arguments)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_torch_as_planned(plan))
        state = fresh_state(plan)
        if resume:
            stack.enter_context(locked(run))
            load_state(checkpoint_of(run), state)
            if state.step > plan.settings.steps:
                raise InputError(
                    f"{run} has made more steps already",
                    got=f"--steps {plan.settings.steps}",
                    expected=f"more than {state.step}",
                    remedy="ask for more steps, or export the checkpoint as it is",
                )
            truncate_log(run, state.step)
            write_run(run, plan.record)
        else:
            create_run(run, plan, state)
            stack.enter_context(locked(run))
        stop = stack.enter_context(StopSignals())
        return _train(run, plan, state, stop, on_step or (lambda report: None))


def _train(
    run: Path, plan: Plan, state: TrainingState, stop: StopSignals, on_step: Callable[[StepReport], None]
) -> Path:
    s, seed, device = plan.settings, plan.record.seed, plan.device
    objective = objective_from_name(s.objective)
    generator, discriminator = state.generator, state.discriminator
    batches = Batches(plan, spec_of(plan, state).inputs[0])
    draw, view, grow = Drawing(plan, generator, batches), View(plan, state), Growth(plan, state)
    started, reported = time.perf_counter() - state.seconds, (time.perf_counter(), state.step)
    saved_step = state.step

    with log_of(run) as log_file:
        while state.step < s.steps:
            to_log = state.step == 0 or (state.step + 1) % s.log_every == 0
            rates = rate_factor(state.step, s.decay_start, s.decay_end, s.decay_to)
            set_rate(state.generator_optimiser, s.generator_lr * rates)
            set_rate(state.discriminator_optimiser, s.discriminator_lr * rates)

            for k in range(s.discriminator_steps):
                d_step = state.step * s.discriminator_steps + k
                first = d_step * s.batch
                real, labels = batches.real(first)  # [N, C, H, W] or [N, length]; of a conditional recipe [N] as well
                grow(first)
                with torch.set_grad_enabled(k == s.discriminator_steps - 1):  # the last batch also serves G
                    fake = draw(first, labels)  # as real; a real and a generated sample of a pair share the label
                shown_real, shown_fake = view(real, first, "real"), view(fake.detach(), first, "fake")
                penalise = d_step % s.penalty_every == 0
                shown_real.requires_grad_(penalise and s.r1 > 0)
                shown_fake.requires_grad_(penalise and s.r2 > 0)
                real_logits = discriminator(shown_real, *labels)  # [N], of packs [N / pack]
                fake_logits = discriminator(shown_fake, *labels)
                loss_d = objective.discriminator_loss(real_logits, fake_logits, s.real_label)
                paid = loss_d
                if penalise and s.r1:
                    paid = paid + s.penalty_every * s.r1 / 2.0 * squared_gradient(real_logits, shown_real)
                if penalise and s.r2:
                    paid = paid + s.penalty_every * s.r2 / 2.0 * squared_gradient(fake_logits, shown_fake)
                if s.gradient_penalty:
                    u = torch.from_numpy(factors(seed, first, len(shown_real))).to(device)  # [N]
                    critic = partial(_with_labels, discriminator, labels)
                    paid = paid + s.gradient_penalty * slope_penalty(critic, shown_real, shown_fake, u)
                state.discriminator_optimiser.zero_grad()
                paid.backward()  # type: ignore[no-untyped-call]
                state.discriminator_optimiser.step()
                if s.clip:
                    clip_weights(discriminator, s.clip)
                view.saw(real_logits, d_step)
            gradient_d = gradient_norm(discriminator) if to_log else None

            discriminator.requires_grad_(False)  # spares the gradients of D's weights
            judged = discriminator(view(fake, first, "generator"), *labels)
            rivals = discriminator(shown_real, *labels).detach() if objective.relative else None
            loss_g = objective.generator_loss(judged, rivals)
            paid = loss_g
            if isinstance(s, ImageSettings) and s.path_length and state.step % s.path_every == 0:
                styles = draw.styles(first, labels)  # [N, layers, w_size]
                images = draw.images(styles, first)  # [N, C, H, W]
                y = torch.from_numpy(directions(seed, first, s.batch, images.shape[1:])).to(device)
                weight = s.path_every * s.path_length
                paid = paid + weight * path_penalty(images, styles, y, state.extras[PATH_LENGTH])
            state.generator_optimiser.zero_grad()
            paid.backward()  # type: ignore[no-untyped-call]
            state.generator_optimiser.step()
            discriminator.requires_grad_(True)
            gradient_g = gradient_norm(generator) if to_log else None

            state.step += 1
            update_average(state.average, generator, decay_per_step(s.ema_half_life, s.batch, state.step * s.batch))

            to_save = state.step == s.steps or state.step % s.checkpoint_every == 0
            if device.type == "cpu" or to_log or to_save:
                d_real, d_fake = objective.opinion(real_logits).mean(), objective.opinion(fake_logits).mean()
                accuracy = objective.accuracy(real_logits, fake_logits)
                values = torch.stack([loss_d, loss_g, d_real, d_fake, accuracy]).detach().tolist()
                now = time.perf_counter()
                state.seconds = now - started
                rate = (state.step - reported[1]) * s.discriminator_steps * s.batch / max(now - reported[0], 1e-9)
                reported = (now, state.step)
                report = StepReport(
                    step=state.step,
                    steps=s.steps,
                    images=state.step * s.discriminator_steps * s.batch,
                    loss_d=values[0],
                    loss_g=values[1],
                    d_real=values[2],
                    d_fake=values[3],
                    d_accuracy=values[4],
                    seconds=state.seconds,
                    images_per_second=rate,
                    gradient_d=gradient_d,
                    gradient_g=gradient_g,
                )
                _check_losses(run, report, saved_step)
                on_step(report)
                if to_log:
                    log(log_file, report.to_log())
            if state.step == s.steps or state.step in EARLY_SHEETS or state.step % s.sample_every == 0:
                write_sheet(sample_of(run, state.step), sheet_of(plan, state.average, spec_of(plan, state)))
            stopped_by = stop.received  # read once: a signal may come at any moment
            if to_save or stopped_by is not None:
                _check_weights(run, state, saved_step)
                save_state(checkpoint_of(run), state, generator_record(plan), spec_of(plan, state))
                saved_step = state.step
            if stopped_by is not None and state.step < s.steps:
                raise TrainingStopped(run, state.step, stopped_by)
    return checkpoint_of(run)


def _with_labels(discriminator: nn.Module, labels: tuple[Tensor, ...], samples: Tensor) -> Tensor:
    logits: Tensor = discriminator(samples, *labels)
    return logits


def _check_losses(run: Path, report: StepReport, saved_step: int) -> None:
    for name, value in (
        ("discriminator's loss", report.loss_d),
        ("generator's loss", report.loss_g),
        ("discriminator's gradient", report.gradient_d),
        ("generator's gradient", report.gradient_g),
    ):
        if value is not None and not math.isfinite(value):
            raise _diverged(run, f"the {name} is {value} at step {report.step}", saved_step)


def _check_weights(run: Path, state: TrainingState, saved_step: int) -> None:
    if not state.is_finite():
        raise _diverged(run, f"a weight is no longer finite at step {state.step}", saved_step)


def _diverged(run: Path, what: str, saved_step: int) -> TrainingError:
    return TrainingError(
        f"training has diverged: {what}",
        got=f"the last good checkpoint is of step {saved_step}: {checkpoint_of(run)}",
        remedy="start a new run with lower learning rates: --set generator_lr=1e-4 --set discriminator_lr=1e-4",
    )


@contextlib.contextmanager
def _torch_as_planned(plan: Plan) -> Iterator[None]:
    """Seeds torch and sets its threads; the caller's random states and threads are put back afterwards."""
    threads = torch.get_num_threads()
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(plan.record.seed)
        torch.set_num_threads(plan.record.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
