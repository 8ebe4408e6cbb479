"""Settings that are each in range and contradict one another, the data, or the number of processes."""

from __future__ import annotations

from ganruntime.errors import InputError
from gantrain.data.source import ImageSource
from gantrain.data.vectors import VectorSource
from gantrain.distributed import Processes
from gantrain.objectives import objective_from_name
from gantrain.recipes import Recipe
from gantrain.recipes.training_settings import ImageSettings, TrainingSettings


def check_together(recipe: Recipe, s: TrainingSettings, data: ImageSource | VectorSource) -> None:
    """Raises `InputError` for settings that contradict each other, or the data."""
    if s.batch % s.pack:
        raise InputError("a batch is no whole number of packs", got=f"batch={s.batch}, pack={s.pack}")
    if s.pack > 1 and recipe.conditional:
        raise InputError("a conditional recipe judges samples one by one", got=f"pack={s.pack}", expected="pack=1")
    if s.real_label != 1.0 and not objective_from_name(s.objective).smooths:
        raise InputError(
            f"objective {s.objective} has no target to smooth", got=f"real_label={s.real_label:g}", expected="1"
        )
    if s.gradient_penalty and getattr(s, "batch_norm", False):
        raise InputError(
            "the gradient penalty wants a critic that judges each sample by itself",
            got="batch_norm=true",
            remedy="--set batch_norm=false",
        )
    if s.decay_end and s.decay_end <= s.decay_start:
        raise InputError("the learning rates' decay ends before it starts", got=f"{s.decay_start} to {s.decay_end}")
    if isinstance(s, ImageSettings) and not recipe.styles and (s.mixing or s.path_length):
        raise InputError(
            f"the generator of recipe {recipe.name!r} has no styles",
            got=f"mixing={s.mixing:g}, path_length={s.path_length:g}",
            expected="0 and 0",
        )
    if isinstance(s, ImageSettings) and s.stage_images and (not recipe.grows or s.discriminator != "own"):
        raise InputError(
            f"the networks of recipe {recipe.name!r} do not grow"
            if not recipe.grows
            else f"discriminator {s.discriminator!r} does not grow",
            got=f"stage_images={s.stage_images}",
            expected="0",
        )
    if isinstance(s, ImageSettings) and s.ada_target and not (s.shift or s.colour or s.cutout):
        raise InputError(
            "ADA has nothing to augment with", got=f"ada_target={s.ada_target:g}", remedy="--set shift=4, or colour=1"
        )
    if not recipe.conditional:
        if s.label or s.mismatched:
            got = f"label={s.label}" if s.label else f"mismatched={s.mismatched:g}"
            raise InputError(f"recipe {recipe.name!r} takes no labels", got=got)
    elif s.label not in data.classes and (s.label or len(data.classes) != 1):
        raise InputError(
            f"{data.name} has no such labels" if s.label else f"{data.name}: which labels?",
            got=repr(s.label) if s.label else None,
            expected=", ".join(data.classes) or "data with labels: digits, faces",
            remedy=f"--set label={next(iter(data.classes))}" if data.classes else "ganexport train dcgan needs none",
        )
    elif s.mismatched and len(data.classes[s.label or next(iter(data.classes))]) < 2:
        raise InputError(
            f"{data.name} has a single class, and no label is wrong",
            got=f"mismatched={s.mismatched:g}",
            expected="mismatched=0",
        )


def check_parts(s: TrainingSettings, processes: Processes) -> None:
    """Raises `InputError` where the batch cannot be cut into equal parts."""
    parts = s.accumulate * processes.count
    if s.batch % (s.pack * parts) or s.batch // parts < 2:
        among = f", {processes.count} processes" if processes.count > 1 else ""
        raise InputError(
            "a batch cannot be taken in so many parts",
            got=f"batch={s.batch}, accumulate={s.accumulate}, pack={s.pack}{among}",
            expected="parts of equal size, of at least two samples, and of whole packs",
        )
