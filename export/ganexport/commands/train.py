"""`ganexport train`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ganexport.openmp import spin_briefly
from ganruntime.errors import GanError, InputError, MissingDependencyError, TrainingError

if TYPE_CHECKING:
    from gantrain.distributed import Processes


@click.command(name="train")
@click.argument("recipe")
@click.option(
    "--data",
    "source",
    metavar="SOURCE",
    help="digits, faces, or a path: a folder or zip of images, IDX files, CIFAR. Vectors: ring, grid, curves.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run folder, new unless --resume.")
@click.option("--steps", type=int, help="Generator steps in all. A resumed run may be given more.")
@click.option("--seed", type=int, help="Seed of weights, latents and the order of the data. [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, as if it had never stopped.")
@click.option("--preset", help="A named set of settings; `ganexport recipes` lists them.")
@click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="Change a setting; as often as you like.")
@click.option("--size", type=int, help="Side of the images in pixels; short for --set size=N.")
@click.option("--device", help="cpu, cuda or cuda:N. [default: cpu, or with --resume what the run had]")
@click.option("--threads", type=int, help="CPU threads. [default: all, or with --resume as many as the run had]")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    recipe: str,
    source: str | None,
    out: Path,
    steps: int | None,
    seed: int | None,
    resume: bool,
    preset: str | None,
    changes: tuple[str, ...],
    size: int | None,
    device: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Train RECIPE into a run folder; `ganexport recipes` lists them.

    Ctrl-C stops after the current step and leaves a checkpoint. Several processes, each with its share of every batch:
    torchrun --nproc-per-node 2 -m ganexport train …

    The run folder holds the last checkpoint, a log (log.jsonl), sample sheets (samples/) and index.html, a page that
    shows the run as it goes on, and says what is wrong with it where something is. It can be exported at any time, and
    resumed with --resume; on a CPU an interrupted run ends in the same bits as one that was not.

    Every thousand steps (--set metrics_every=N, 0 for never) the generator is scored, and the best so far is kept as
    OUT/best: evaluate, export and generate from it as from OUT.

    \b
    Example:
      ganexport train dcgan --data digits --out runs/digits
      ganexport train dcgan --data digits --out runs/digits --resume --steps 10000
      ganexport train toy --data ring --out runs/ring
      ganexport to-onnx runs/digits/best -o digits.gan
      ganexport train dcgan --data photos.zip --size 64 --set width=64 --out runs/photos --device cuda
    """
    spin_briefly()
    _require_training()
    from gantrain.distributed import PeerError, processes_from_environment
    from gantrain.loop import train
    from gantrain.progress import ProgressLine
    from gantrain.run_folder import read_run
    from gantrain.stop_signals import TrainingStopped

    processes = processes_from_environment()
    with _said_once(processes.first, InputError):
        settings = _settings(recipe, preset, changes, size, steps)
    progress = None if quiet or not processes.first else ProgressLine(sys.stderr)
    try:
        with _said_once(processes.first, TrainingError):  # a divergence is found by all of them
            checkpoint = train(
                recipe,
                source,
                out,
                steps=steps,
                seed=seed,
                resume=resume,
                settings=settings,
                on_step=progress,
                threads=threads,
                device=device,
            )
    except PeerError as error:
        if error.told:
            sys.exit(1)
        raise
    except TrainingStopped as stop:
        if progress:
            progress.close()
        go_on = shlex.join([*_launcher(processes), "ganexport", "train", recipe, "--out", str(out), "--resume"])
        if processes.first:
            click.echo(f"stopped after step {stop.step}; the checkpoint is in {out}\nto go on: {go_on}", err=True)
        # As shells report a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM.
        sys.exit(128 + stop.signal_number)
    finally:
        if progress:
            progress.close()
    if not processes.first:
        return
    data = read_run(out).data
    if data.get("left_out"):
        count, name = data["left_out_files"], data["left_out"][0]
        click.echo(f"left out of the data: {count} files, such as {name}; run.json names them", err=True)
    click.echo(checkpoint)


def _settings(
    recipe: str, preset: str | None, changes: tuple[str, ...], size: int | None, steps: int | None
) -> dict[str, object]:
    """What `--preset`, `--size` and `--set` change. Raises `InputError`."""
    from gantrain.recipes import recipe_from_name
    from gantrain.recipes.settings import changes_from_arguments

    settings: dict[str, object] = {}
    if preset is not None:
        presets = recipe_from_name(recipe).presets
        if preset not in presets:
            raise InputError(
                f"recipe {recipe!r} has no preset {preset!r}",
                expected=", ".join(presets) or "none: this recipe has no presets",
                remedy=f"ganexport recipes {recipe}",
            )
        settings |= presets[preset]
        if steps is not None:
            settings.pop("steps", None)
    given = changes_from_arguments(changes)
    if size is not None:
        if "size" in given:
            raise InputError("the size is given twice", got=f"--size {size} and --set size={given['size']}")
        settings["size"] = size
    return settings | given


@contextlib.contextmanager
def _said_once(first: bool, kind: type[GanError]) -> Iterator[None]:
    """Leaves it to the first process to say what all of them find; what only this one finds is said."""
    from gantrain.distributed import PeerError

    try:
        yield
    except PeerError:
        raise
    except kind:
        if first:
            raise
        sys.exit(1)


def _launcher(processes: Processes) -> list[str]:
    if processes.count == 1:
        return []
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", str(processes.count)), "-m"]


def _require_training() -> None:
    """Raises `MissingDependencyError` where a package that training needs is not installed."""
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}, which is not installed", remedy='pip install "ganexport[train]"'
        ) from error
