"""What a run is to do: worked out from the arguments, and where it is resumed, held against its run.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy
import torch

from ganruntime import __version__
from ganruntime.errors import CheckpointError, DeviceError, InputError
from gantrain.contradictions import check_parts, check_together
from gantrain.data.named import source_from_name
from gantrain.data.source import ImageSource
from gantrain.data.split import split
from gantrain.data.toys import TOYS, toy_from_name
from gantrain.data.vectors import VectorSource
from gantrain.distributed import ALONE, Processes
from gantrain.event_files import import_writer
from gantrain.precision import check_precision
from gantrain.recipes import DataShape, Recipe, recipe_from_name
from gantrain.recipes.settings import settings_with
from gantrain.recipes.training_settings import ImageSettings, TrainingSettings
from gantrain.run_folder import RUN_FILE, RunRecord, check_new, read_run

# What may change from one part of a run to the next: it decides when to stop, to save and to look, and how what is
# computed is rounded, not what it is.
FREE_SETTINGS = ("steps", "checkpoint_every", "metrics_every", "tensorboard", "accumulate", "precision")
_MOST_NAMES = 1_000

Source = ImageSource | VectorSource


@dataclass(frozen=True)
class Plan:
    """A recipe, its settings, the data and the record of both that goes to run.json.

    data: what is trained on. whole: the same before anything was held out of it.
    """

    recipe: Recipe
    settings: TrainingSettings
    data: Source
    record: RunRecord
    device: torch.device
    whole: Source

    @property
    def name(self) -> str:
        """The generator's name in its spec."""
        return f"{self.recipe.name}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.data.name).strip('-') or 'images'}"[:128]

    @property
    def label(self) -> str | None:
        """The attribute that conditions both networks; None where the recipe is not conditional."""
        if not self.recipe.conditional:
            return None
        return self.settings.label or next(iter(self.data.classes))

    @property
    def shape(self) -> DataShape:
        """What the networks are built for."""
        classes = () if self.label is None else tuple(self.data.classes[self.label])
        if isinstance(self.data, ImageSource):
            return DataShape("image", channels=self.data.channels, classes=classes)
        return DataShape("vector", length=self.data.size, classes=classes)


def new_plan(
    recipe_name: str,
    source: str | Source,
    run: Path,
    changes: Mapping[str, Any],
    *,
    steps: int | None,
    seed: int | None,
    threads: int | None,
    device: str | None,
    processes: Processes = ALONE,
) -> Plan:
    """The plan of a new run.

    Raises:
        InputError: an argument does not fit, or there is something at `run` already.
        DataError: the data cannot be used.
        DeviceError: the device is not there.
        MissingDependencyError: TensorBoard files are asked for, and tensorboardX is not installed.
    """
    recipe = recipe_from_name(recipe_name)
    settings = settings_with(recipe.defaults, _with_steps(changes, steps))
    chosen = device_from_name(device or "cpu", processes)
    check_precision(settings.precision, chosen)
    seed = _checked_seed(0 if seed is None else seed)
    check_new(run)
    _check_installed(settings)
    whole = _data(source, recipe, settings)
    data = _to_train_on(whole, settings)
    check_together(recipe, settings, data)
    check_parts(settings, processes)
    record = RunRecord(
        recipe=recipe.name,
        settings=settings.to_json(),
        data=_data_record(source, data),
        seed=seed,
        device=chosen.type if processes.count > 1 else str(chosen),
        threads=_checked_threads(threads) or torch.get_num_threads(),
        processes=processes.count,
        versions={"ganexport": __version__, "torch": str(torch.__version__), "numpy": numpy.__version__},
    )
    return Plan(recipe, settings, data, record, chosen, whole)


def resumed_plan(
    recipe_name: str,
    source: str | Source | None,
    run: Path,
    changes: Mapping[str, Any],
    *,
    steps: int | None,
    seed: int | None,
    threads: int | None,
    device: str | None,
    processes: Processes = ALONE,
) -> Plan:
    """The plan of a run that goes on: run.json's, with what may change: `FREE_SETTINGS`, threads, device, processes.

    Raises:
        InputError: there is no run, or an argument differs from what it was started with; names what differs.
        CheckpointError: run.json is damaged.
        DataError: the data cannot be used.
        DeviceError: the device is not there.
    """
    before = read_run(run)
    _same(run, "the recipe", before.recipe, recipe_name)
    recipe = recipe_from_name(before.recipe)
    try:
        settings = settings_with(recipe.defaults, {**_unknown_then(recipe, before), **before.settings})
    except InputError as error:
        raise CheckpointError(
            f"{run / RUN_FILE}: {error.problem}", got=error.got, expected=error.expected, remedy="start a new run"
        ) from error
    asked = settings_with(settings, _with_steps(changes, steps))
    for f in fields(settings):
        if f.name not in FREE_SETTINGS:
            _same(run, f"setting {f.name!r}", getattr(settings, f.name), getattr(asked, f.name))
    _check_installed(asked)
    if seed is not None:
        _same(run, "the seed", before.seed, seed)
    chosen = device_from_name(device or before.device, processes)
    check_precision(asked.precision, chosen)
    check_parts(asked, processes)
    whole = _data(source if source is not None else str(before.data.get("source", "")), recipe, settings)
    data = _to_train_on(whole, settings)
    known = before.data
    if data.fingerprint != known.get("fingerprint"):
        if isinstance(data, ImageSource) and data.fingerprint_without_classes == known.get("fingerprint"):
            raise InputError(
                f"{run} was started before the names of classes were part of what a run records of its data",
                got=f"{data.name}, {_amount(known)}: the same pixels and labels, under names that cannot be checked",
                expected="a run whose record has them",
                remedy="export its checkpoint as it is, or start a new run on these data with another --out",
            )
        raise InputError(
            f"{run} was started on other data",
            got=f"{data.name}, {_amount(_data_record(source or '', data))}, {data.fingerprint[:12]}…",
            expected=f"{known.get('name')}, {_amount(known)}, {str(known.get('fingerprint'))[:12]}…",
            remedy="name the same data, or choose another --out for a new run",
        )
    # As many threads as before, whatever torch has now: sums over other splits round otherwise. With more or fewer
    # processes they do so anyway, and share the cores in another way.
    usual = before.threads if processes.count == before.processes else torch.get_num_threads()
    record = replace(
        before,
        settings=asked.to_json(),
        device=chosen.type if processes.count > 1 else str(chosen),
        threads=_checked_threads(threads) or usual,
        processes=processes.count,
    )
    return Plan(recipe, asked, data, record, chosen, whole)


def device_from_name(name: str, processes: Processes = ALONE) -> torch.device:
    """`cpu`, `cuda` or `cuda:1`; with several processes `cuda` is another GPU for each of a machine's.

    Raises:
        InputError: no device has this name, or one GPU is named for several processes.
        DeviceError: there is no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise InputError("no device has this name", got=repr(name), expected="cpu, cuda or cuda:N")
    if processes.count > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise InputError(
                "several processes cannot share a GPU", got=f"--device {name}", expected="--device cuda: one for each"
            )
        name = f"cuda:{processes.local_rank}"
    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise DeviceError(
                f"device {name} is not there",
                got=f"{found} CUDA devices, torch {torch.__version__}",
                remedy="--device cpu, or install a torch built for CUDA and check the driver with nvidia-smi",
            )
    return device


def _data(source: str | Source, recipe: Recipe, settings: TrainingSettings) -> Source:
    if not isinstance(settings, ImageSettings):
        if isinstance(source, ImageSource) or (isinstance(source, str) and source not in TOYS):
            raise InputError(
                f"recipe {recipe.name!r} trains on vectors",
                got=source if isinstance(source, str) else f"{source.name}, images",
                expected=", ".join(TOYS),
                remedy="ganexport recipes lists the recipes for images",
            )
        return toy_from_name(source) if isinstance(source, str) else source
    if isinstance(source, VectorSource) or (isinstance(source, str) and source in TOYS):
        raise InputError(
            f"recipe {recipe.name!r} trains on images",
            got=source if isinstance(source, str) else f"{source.name}, vectors",
            expected="digits, faces, or the path of a folder or zip of images",
            remedy="ganexport recipes lists the recipes for vectors",
        )
    if isinstance(source, str):
        return source_from_name(source, settings.size, settings.channels, settings.images, settings.broken)
    if source.images.shape[1:3] != (settings.size, settings.size):
        raise InputError(
            f"{source.name} has images of another size",
            got=list(source.images.shape),
            expected=f"[N, {settings.size}, {settings.size}, C]",
        )
    return source


def _check_installed(settings: TrainingSettings) -> None:
    """Raises `MissingDependencyError` before anything is begun."""
    if settings.tensorboard:
        import_writer()


def _to_train_on(whole: Source, settings: TrainingSettings) -> Source:
    if isinstance(whole, ImageSource) and isinstance(settings, ImageSettings):
        return split(whole, settings.held_out).train
    return whole


def _data_record(source: str | Source, data: Source) -> dict[str, Any]:
    where = source if isinstance(source, str) else data.name
    if isinstance(source, str) and source not in ("digits", "faces", *TOYS):
        where = str(Path(source).expanduser().resolve())
    amount: dict[str, Any] = {"length": data.size} if isinstance(data, VectorSource) else {}
    if isinstance(data, ImageSource):
        amount = {"images": len(data.images), "channels": data.channels}
        if data.skipped:
            # A folder of pictures with as many captions would make a record of megabytes.
            amount |= {"left_out_files": len(data.skipped), "left_out": list(data.skipped[:_MOST_NAMES])}
    return {"source": where, "name": data.name, "fingerprint": data.fingerprint} | amount


def _amount(record: Mapping[str, Any]) -> str:
    if "length" in record:
        return f"vectors of {record['length']}"
    return f"{record.get('images')} images"


def _with_steps(changes: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    if steps is None:
        return dict(changes)
    if "steps" in changes:
        raise InputError("steps are given twice", got=f"steps={changes['steps']} and {steps}")
    return {**changes, "steps": steps}


def _unknown_then(recipe: Recipe, record: RunRecord) -> dict[str, Any]:
    """The parts that a run's record does not mention, switched off: there were none of them when it was started."""
    base = ImageSettings if recipe.kind == "image" else TrainingSettings
    return {f.name: f.default for f in fields(base) if f.name not in record.settings}


def _same(run: Path, what: str, before: object, asked: object) -> None:
    if before != asked:
        raise InputError(
            f"{run} was started with another value of {what}"
            if what.startswith("setting")
            else f"{run}: {what} differs",
            got=asked,
            expected=before,
            remedy="leave it out to go on as before, or choose another --out for a new run",
        )


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise InputError("the seed is out of range", got=repr(seed), expected="an integer from 0 to 2^64 - 1")
    return seed


def _checked_threads(threads: int | None) -> int | None:
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= 1024):
        raise InputError("the number of threads is out of range", got=repr(threads), expected="from 1 to 1024")
    return threads
