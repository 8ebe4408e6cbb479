"""The training loop, top to bottom: one page for every recipe.

On the CPU with the same number of threads a seed gives the same bits, whether the run is interrupted and resumed or
not: latents, the order of the data and mirroring are functions of (seed, step), and everything else is in the state.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ganruntime.errors import InputError
from gantrain.distributed import Processes, joined
from gantrain.divergence import check_losses, check_weights
from gantrain.ema import Averaging, decay_per_step
from gantrain.metrics.during_training import Monitor
from gantrain.objectives import objective_from_name
from gantrain.observers import Observers, monitor_of
from gantrain.optimisers import set_rate
from gantrain.plan import Plan, Source, new_plan, resumed_plan
from gantrain.progress import StepReport
from gantrain.run_folder import checkpoint_of, locked, sample_of, truncate_log, write_run, write_sheet
from gantrain.samples import diversity
from gantrain.schedules.decay import rate_factor
from gantrain.sheets import sheet_of
from gantrain.start import create_run, fresh_state, generator_record, spec_of
from gantrain.steps import Steps
from gantrain.stop_signals import StopSignals, TrainingStopped
from gantrain.training_state import TrainingState, load_state, save_state
from gantrain.unobserved import Unobserved

EARLY_SHEETS = (0, 100, 300, 1000, 2000, 5000)


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

    Where torchrun has started several processes (`gantrain.distributed`), all of them call this with the same
    arguments; the first one alone writes and reports.

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
        device: `cpu`, `cuda` or `cuda:N`. None: `cpu`, or with `resume` what the run had. Of several processes on
            `cuda` each takes a GPU of its own.

    Returns:
        The checkpoint folder.

    Raises:
        InputError: an argument does not fit; with `resume`, one that differs from what the run was started with.
        DataError, DeviceError, CheckpointError: what they say.
        TrainingError: a loss or a weight is no longer finite; the last good checkpoint is kept. With several
            processes also that one of them has ended (`PeerError`), or that their weights differ.
        OutputError: the disk is full; the last checkpoint is kept.
        TrainingStopped: SIGINT or SIGTERM came; a checkpoint of the current step is kept. A KeyboardInterrupt.
    """
    run = Path(out)
    arguments: dict[str, Any] = {"steps": steps, "seed": seed, "threads": threads, "device": device}
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(joined())
        with processes.agreed():
            if resume:
                plan = resumed_plan(recipe_name, source, run, settings or {}, processes=processes, **arguments)
            elif source is None:
                data = "digits, faces, or the path of a folder or zip of images"
                raise InputError("a new run needs data", expected=data)
            else:
                plan = new_plan(recipe_name, source, run, settings or {}, processes=processes, **arguments)
        with processes.agreed():
            stack.enter_context(_torch_as_planned(plan))
            state, monitor = fresh_state(plan), monitor_of(plan) if processes.first else None
            if resume:
                if processes.first:
                    stack.enter_context(locked(run))
                load_state(checkpoint_of(run), state)
                if state.step > plan.settings.steps:
                    raise InputError(
                        f"{run} has made more steps already",
                        got=f"--steps {plan.settings.steps}",
                        expected=f"more than {state.step}",
                        remedy="ask for more steps, or export the checkpoint as it is",
                    )
        with processes.agreed():
            if resume and processes.first:
                truncate_log(run, state.step)
                write_run(run, plan.record)
            elif processes.first:
                create_run(run, plan, state)
                stack.enter_context(locked(run))
        processes.check_equal("the training data", lambda: bytes.fromhex(plan.data.fingerprint))
        stop = stack.enter_context(StopSignals(patient=processes.count > 1))
        return _train(run, plan, state, processes, monitor, stop, on_step or (lambda report: None))


def _train(
    run: Path,
    plan: Plan,
    state: TrainingState,
    processes: Processes,
    monitor: Monitor | None,
    stop: StopSignals,
    on_step: Callable[[StepReport], None],
) -> Path:
    s, device = plan.settings, plan.device
    turn, objective = Steps(plan, state, processes), objective_from_name(s.objective)
    averaging = Averaging(state.average, state.generator)
    started, reported = time.perf_counter() - state.seconds, (time.perf_counter(), state.step)
    saved_step = state.step
    processes.check_equal("the weights", state.fingerprint)

    with Observers(run, plan, state, monitor, on_step) if processes.first else Unobserved() as observers:
        while state.step < s.steps:
            next_step = state.step + 1
            to_log = state.step == 0 or next_step % s.log_every == 0 or observers.scores(next_step)
            rates = rate_factor(state.step, s.decay_start, s.decay_end, s.decay_to)
            set_rate(state.generator_optimiser, s.generator_lr * rates)
            set_rate(state.discriminator_optimiser, s.discriminator_lr * rates)

            for k in range(s.discriminator_steps):
                last = k == s.discriminator_steps - 1  # this batch serves the generator too
                judged = turn.discriminator(state.step * s.discriminator_steps + k, last=last)
            gradient_d = turn.gradient_norm("discriminator") if to_log else None

            loss_g = turn.generator(state.step)
            gradient_g = turn.gradient_norm("generator") if to_log else None

            state.step += 1
            decay = decay_per_step(s.ema_half_life, s.batch, state.step * s.batch)
            averaging.update(decay)

            metrics = None
            if observers.scores(state.step):
                check_weights(run, state, saved_step)
                metrics = observers.score()
            best_now = state.best is not None and state.best.step == state.step
            due = state.step == s.steps or state.step % s.checkpoint_every == 0
            to_save = due or best_now
            if device.type == "cpu" or to_log or to_save:
                opinions = objective.opinion(judged.logits).mean(1)  # [2]
                figures = [judged.loss, loss_g, *opinions, objective.accuracy(*judged.logits)]
                values = torch.stack(figures).tolist()
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
                    diversity=diversity(judged.fake, judged.real).item() if to_log else None,
                    metrics=metrics,
                    best_step=None if state.best is None else state.best.step,
                )
                check_losses(run, report, saved_step)
                observers.report(report, to_log)
            to_draw = state.step == s.steps or state.step in EARLY_SHEETS or state.step % s.sample_every == 0
            if to_draw and processes.first:
                write_sheet(sample_of(run, state.step), sheet_of(plan, state.average, spec_of(plan, state)))
            stopped_by = processes.largest(stop.received or 0)  # read once: a signal may come at any moment, to any
            if to_save or stopped_by:
                check_weights(run, state, saved_step)
                if due or stopped_by:  # what is best the first process alone knows
                    processes.check_equal("the weights", state.fingerprint)
                if processes.first:
                    save_state(checkpoint_of(run), state, generator_record(plan), spec_of(plan, state))
                observers.saved()
                saved_step = state.step
            if stopped_by and state.step < s.steps:
                processes.wait()  # none ends before the checkpoint is there
                raise TrainingStopped(run, state.step, stopped_by)
        processes.wait()
    return checkpoint_of(run)


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
