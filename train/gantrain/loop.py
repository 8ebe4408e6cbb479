"""The training loop, top to bottom: one page for every recipe.

On the CPU with the same number of threads a seed gives the same bits, whether the run is interrupted and resumed or
not: latents, the order of the data and mirroring are functions of (seed, step), and everything else is in the state.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganruntime.errors import InputError, TrainingError
from ganruntime.files import folder_written_atomically
from ganruntime.images import sheet_from_images, uint8_from_output
from ganruntime.noise import latents, stream_of
from ganruntime.spec import GeneratorSpec, Provenance
from gantrain.augment import shifted, shifts
from gantrain.checkpoint import spec_from_generator
from gantrain.data import order
from gantrain.data.source import ImageSource
from gantrain.ema import averaged_copy, decay_per_step, update_average
from gantrain.networks import network_from_record
from gantrain.objectives import objective_from_name
from gantrain.plan import Plan, new_plan, resumed_plan
from gantrain.progress import StepReport
from gantrain.recipes.settings import TrainingSettings
from gantrain.run_folder import (
    LOG_FILE,
    SAMPLES_FOLDER,
    checkpoint_of,
    locked,
    log,
    log_of,
    sample_of,
    truncate_log,
    write_run,
    write_sheet,
    writing,
)
from gantrain.stop_signals import StopSignals, TrainingStopped
from gantrain.training_state import TrainingState, load_state, save_state

EARLY_SHEETS = (0, 100, 300)


def train(
    recipe_name: str,
    source: str | ImageSource | None,
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
        source: `digits`, `faces`, the path of a folder or zip of images, or images in memory. None only with `resume`,
            for what the run was started on.
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
        state = _fresh_state(plan)
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
            _create_run(run, plan, state)
            stack.enter_context(locked(run))
        stop = stack.enter_context(StopSignals())
        return _train(run, plan, state, stop, on_step or (lambda report: None))


def _train(
    run: Path, plan: Plan, state: TrainingState, stop: StopSignals, on_step: Callable[[StepReport], None]
) -> Path:
    s, seed, device = plan.settings, plan.record.seed, plan.device
    objective = objective_from_name(s.objective)
    generator, discriminator = state.generator, state.discriminator
    latent = _spec(plan, state).inputs[0]
    latent_seed = stream_of(f"gantrain.loop latents of seed {seed}")  # not those that the user will generate with
    pixels = torch.tensor(plan.data.images).permute(0, 3, 1, 2).to(device)  # uint8 [N, C, H, W], channels last
    started, reported = time.perf_counter() - state.seconds, (time.perf_counter(), state.step)
    saved_step = state.step

    with log_of(run) as log_file:
        while state.step < s.steps:
            for k in range(s.discriminator_steps):
                first = (state.step * s.discriminator_steps + k) * s.batch
                real = _real_images(pixels, s, seed, first)  # [N, C, H, W]
                z = torch.from_numpy(latents(latent, latent_seed, first, s.batch)).to(device)  # [N, z_size]
                with torch.set_grad_enabled(k == s.discriminator_steps - 1):  # the last batch also serves G
                    fake = generator(z)  # [N, C, H, W]
                real_logits = discriminator(_shown(real, s, seed, first, "real"))  # [N]
                fake_logits = discriminator(_shown(fake.detach(), s, seed, first, "fake"))  # [N]
                loss_d = objective.discriminator_loss(real_logits, fake_logits, s.real_label)
                state.discriminator_optimiser.zero_grad()
                loss_d.backward()  # type: ignore[no-untyped-call]
                state.discriminator_optimiser.step()

            discriminator.requires_grad_(False)  # spares the gradients of D's weights
            loss_g = objective.generator_loss(discriminator(_shown(fake, s, seed, first, "generator")))
            state.generator_optimiser.zero_grad()
            loss_g.backward()  # type: ignore[no-untyped-call]
            state.generator_optimiser.step()
            discriminator.requires_grad_(True)

            state.step += 1
            images = state.step * s.discriminator_steps * s.batch
            update_average(state.average, generator, decay_per_step(s.ema_half_life, s.batch, state.step * s.batch))

            to_log = state.step == 1 or state.step % s.log_every == 0
            to_save = state.step == s.steps or state.step % s.checkpoint_every == 0
            if device.type == "cpu" or to_log or to_save:
                p_real, p_fake = torch.sigmoid(real_logits).mean(), torch.sigmoid(fake_logits).mean()
                values = torch.stack([loss_d, loss_g, p_real, p_fake]).detach().tolist()
                now = time.perf_counter()
                state.seconds = now - started
                rate = (state.step - reported[1]) * s.discriminator_steps * s.batch / max(now - reported[0], 1e-9)
                reported = (now, state.step)
                report = StepReport(
                    step=state.step,
                    steps=s.steps,
                    images=images,
                    loss_d=values[0],
                    loss_g=values[1],
                    d_real=values[2],
                    d_fake=values[3],
                    seconds=state.seconds,
                    images_per_second=rate,
                )
                _check_losses(run, report, saved_step)
                on_step(report)
                if to_log:
                    log(log_file, _log_line(report))
            if state.step == s.steps or state.step in EARLY_SHEETS or state.step % s.sample_every == 0:
                write_sheet(sample_of(run, state.step), _sheet(plan, state))
            stopped_by = stop.received  # read once: a signal may come at any moment
            if to_save or stopped_by is not None:
                _check_weights(run, state, saved_step)
                save_state(checkpoint_of(run), state, _generator_record(plan), _spec(plan, state))
                saved_step = state.step
            if stopped_by is not None and state.step < s.steps:
                raise TrainingStopped(run, state.step, stopped_by)
    return checkpoint_of(run)


def _real_images(pixels: Tensor, s: TrainingSettings, seed: int, first: int) -> Tensor:
    """uint8 [N, C, H, W] -> the batch at position `first` of the data's order, float32 [batch, C, H, W] in [-1, 1]."""
    chosen = torch.from_numpy(order.indices(seed, first, s.batch, len(pixels))).to(pixels.device)
    real = pixels[chosen].to(torch.float32).div_(127.5).sub_(1.0)
    if s.mirror:
        flipped = torch.from_numpy(order.mirrored(seed, first, s.batch)).to(pixels.device)
        real = torch.where(flipped[:, None, None, None], real.flip(3), real)
    return real


def _shown(images: Tensor, s: TrainingSettings, seed: int, first: int, use: str) -> Tensor:
    """The images [N, C, H, W] as the discriminator sees them."""
    if s.shift == 0:
        return images
    return shifted(images, shifts(seed, first, len(images), s.shift, use))


def _fresh_state(plan: Plan) -> TrainingState:
    s = plan.settings
    channels = plan.data.channels
    networks = [
        # Convolutions over channels-last images take a fifth less time on CPUs, and tensor cores want them so.
        network_from_record(record).to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for record in (plan.recipe.generator(s, channels), plan.recipe.discriminator(s, channels))
    ]
    generator, discriminator = networks
    betas = (s.beta1, s.beta2)
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        average=averaged_copy(generator),
        generator_optimiser=torch.optim.Adam(generator.parameters(), s.generator_lr, betas),
        discriminator_optimiser=torch.optim.Adam(discriminator.parameters(), s.discriminator_lr, betas),
    )


def _generator_record(plan: Plan) -> Any:
    return plan.recipe.generator(plan.settings, plan.data.channels)


def _spec(plan: Plan, state: TrainingState) -> GeneratorSpec:
    provenance = Provenance(
        recipe=plan.recipe.name,
        dataset=plan.data.name,
        steps=state.step,
        seed=plan.record.seed,
        versions=plan.record.versions,
    )
    return spec_from_generator(state.average, plan.name, provenance)


def _create_run(run: Path, plan: Plan, state: TrainingState) -> None:
    """Puts a whole run folder in place, with a checkpoint of step 0, so that there is never a run without one."""
    with writing(run.parent):
        run.parent.mkdir(parents=True, exist_ok=True)
    with folder_written_atomically(run) as folder:
        (folder / SAMPLES_FOLDER).mkdir()
        write_run(folder, plan.record)
        (folder / LOG_FILE).touch()
        write_sheet(sample_of(folder, 0), _sheet(plan, state))
        save_state(checkpoint_of(folder), state, _generator_record(plan), _spec(plan, state))


@torch.no_grad()
def _sheet(plan: Plan, state: TrainingState) -> Any:
    """The averaged generator's images of the seed's first latents."""
    s, spec = plan.settings, _spec(plan, state)
    z = torch.from_numpy(latents(spec.inputs[0], plan.record.seed, 0, s.sample_images)).to(plan.device)
    output = state.average(z).to("cpu").numpy()  # [N, C, H, W]
    return sheet_from_images(uint8_from_output(output, spec.outputs[0]), scale=max(1, 64 // s.size))


def _log_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "images": report.images,
        "loss_d": report.loss_d,
        "loss_g": report.loss_g,
        "d_real": report.d_real,
        "d_fake": report.d_fake,
        "timing": {
            "seconds": round(report.seconds, 3),
            "images_per_second": round(report.images_per_second, 1),
        },
    }


def _check_losses(run: Path, report: StepReport, saved_step: int) -> None:
    for name, value in (("discriminator", report.loss_d), ("generator", report.loss_g)):
        if not math.isfinite(value):
            raise _diverged(run, f"the {name}'s loss is {value} at step {report.step}", saved_step)


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
