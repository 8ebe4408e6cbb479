"""A training at step 0: the networks and optimisers of a plan, the generator's spec, and the run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from ganruntime.files import folder_written_atomically
from ganruntime.spec import GeneratorSpec, Provenance
from gantrain.augmentations.ada import Controller
from gantrain.checkpoint import spec_from_generator
from gantrain.data.split import HELD_OUT_KEY
from gantrain.ema import averaged_copy
from gantrain.networks import NetworkRecord, network_from_record
from gantrain.optimisers import optimiser_of
from gantrain.penalties.path_length import PATH_LENGTH
from gantrain.plan import Plan
from gantrain.precision import fresh_scalers
from gantrain.recipes.training_settings import ImageSettings
from gantrain.run_folder import LOG_FILE, SAMPLES_FOLDER, checkpoint_of, sample_of, write_run, write_sheet, writing
from gantrain.schedules.growth import Growth
from gantrain.sheets import sheet_of
from gantrain.training_state import TrainingState, save_state
from gantrain.view import ADA

_PATCH, _PATCHES_A_SIDE = 4, 8  # of the transformer's image: pixels, and from 64 px on no more than 64 places


def fresh_state(plan: Plan) -> TrainingState:
    """Networks initialised from torch's random state, and optimisers that have not stepped."""
    s = plan.settings
    networks = [
        # Convolutions over channels-last images take a fifth less time on CPUs, and tensor cores want them so.
        network_from_record(record).to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for record in (generator_record(plan), discriminator_record(plan))
    ]
    generator, discriminator = networks
    extras: dict[str, torch.Tensor] = {}
    if isinstance(s, ImageSettings) and s.ada_target:
        extras[ADA] = Controller(s.ada_target, s.ada_images).state
    if isinstance(s, ImageSettings) and s.path_length:
        extras[PATH_LENGTH] = torch.zeros((), device=plan.device)
    state = TrainingState(
        generator=generator,
        discriminator=discriminator,
        average=averaged_copy(generator),
        generator_optimiser=optimiser_of(generator, s, s.generator_lr),
        discriminator_optimiser=optimiser_of(discriminator, s, s.discriminator_lr),
        extras=extras,
        scalers=fresh_scalers(s.precision, plan.device),
    )
    Growth(plan, state)(0)
    return state


def generator_record(plan: Plan) -> NetworkRecord:
    """The record of the generator that the plan trains."""
    return plan.recipe.generator(plan.settings, plan.shape)


def discriminator_record(plan: Plan) -> NetworkRecord:
    """The record of the discriminator: the recipe's own, or the transformer that any image recipe can take."""
    s, data = plan.settings, plan.shape.packed(plan.settings.pack)
    if isinstance(s, ImageSettings) and s.discriminator == "vit":
        patch = min(max(_PATCH, s.size // _PATCHES_A_SIDE), s.size // 2)
        return NetworkRecord(
            "vit_discriminator", {"size": s.size, "channels": data.channels, "patch": patch} | data.conditioning
        )
    return plan.recipe.discriminator(s, data)


def spec_of(plan: Plan, state: TrainingState) -> GeneratorSpec:
    """What a checkpoint of this state says of its generator."""
    held_out = plan.settings.held_out if isinstance(plan.settings, ImageSettings) else 0.0
    provenance = Provenance(
        recipe=plan.recipe.name,
        dataset=plan.data.name,
        steps=state.step,
        seed=plan.record.seed,
        metrics={HELD_OUT_KEY: held_out} if held_out else {},  # a bundle is judged on what its generator never saw
        versions=plan.record.versions,
    )
    return spec_from_generator(state.average, plan.name, provenance)


def create_run(run: Path, plan: Plan, state: TrainingState) -> None:
    """Puts a whole run folder in place, with a checkpoint of step 0, so that there is never a run without one."""
    with writing(run.parent):
        run.parent.mkdir(parents=True, exist_ok=True)
    spec = spec_of(plan, state)
    with folder_written_atomically(run) as folder:
        (folder / SAMPLES_FOLDER).mkdir()
        write_run(folder, plan.record)
        (folder / LOG_FILE).touch()
        write_sheet(sample_of(folder, 0), sheet_of(plan, state.average, spec))
        save_state(checkpoint_of(folder), state, generator_record(plan), spec)
