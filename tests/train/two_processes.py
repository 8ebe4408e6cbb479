"""What test_distributed.py has two processes do, in one start of torchrun: `torchrun … two_processes.py FOLDER`.

Everything is done by both. What each finds goes to FOLDER/found-RANK.json. `two_processes.py FOLDER every` trains every
recipe into FOLDER instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_runs import TINY_RECIPES

from ganruntime.errors import GanError
from gantrain.data.source import ImageSource
from gantrain.distributed import Processes, joined
from gantrain.loop import train
from gantrain.precision import PRECISIONS
from gantrain.progress import StepReport
from gantrain.stop_signals import TrainingStopped

STEPS, STOP = 5, 2
# Batch normalisation and ADA; styles, path length and the minibatch deviation.
RECIPES = {"dcgan": {}, "stylegan2": {"accumulate": 2}}


def source(recipe: str) -> ImageSource:
    """Noise: scikit-learn's digits would take a second to import, in each process."""
    size = TINY_RECIPES[recipe][1]["size"]
    return ImageSource("noise", np.random.default_rng(0).integers(0, 256, (50, size, size, 1), np.uint8))


def arguments(recipe: str, **changes: Any) -> dict[str, Any]:
    settings = TINY_RECIPES[recipe][1] | {"metrics_every": 0} | changes
    return {"steps": STEPS, "seed": 5, "settings": settings, "threads": 1}


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    with joined() as processes:
        (folder / f"pid-{processes.rank}").write_text(str(os.getpid()))
        processes.wait()
        for recipe, changes in RECIPES.items():
            given = arguments(recipe, **changes)
            train(recipe, source(recipe), folder / recipe, **given)
            found[f"{recipe} stopped"] = stopped(processes, recipe, folder, given)
            processes.wait()
            if processes.first:  # the test goes on with a copy of it in one process
                shutil.copytree(folder / f"{recipe}-parts", folder / f"{recipe}-kept")
            processes.wait()
            train(recipe, source(recipe), folder / f"{recipe}-parts", resume=True)
        train("dcgan", source("dcgan"), folder / "from-one", resume=True, settings={"accumulate": 1})

        small = {"batch": 6, "pack": 2, "size": 8}
        found["refused"] = error_of(lambda: train("mlp", source("stylegan2"), folder / "no", settings=small))
        found["alone"] = error_of(lambda: differing(processes))
        found["equal"] = error_of(lambda: processes.check_equal("the hashes", lambda: hashlib.sha256(b"").digest()))
        unequal = hashlib.sha256(bytes(processes.rank)).digest
        found["unequal"] = error_of(lambda: processes.check_equal("the hashes", unequal))
        found["sums"] = sums(processes)
        found["largest"] = processes.largest(10 * processes.rank)
        processes.wait()
    found["threads left"] = [name for name in threads() if "gloo" in name]
    (folder / f"found-{processes.rank}.json").write_text(json.dumps(found))


def threads() -> list[str]:
    """The names of this process's threads."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


def train_every(folder: Path) -> None:
    with joined():
        for recipe, (data, _) in TINY_RECIPES.items():
            for precision in PRECISIONS if recipe == "lsgan" else ("fp32",):
                train(recipe, data, folder / f"{recipe}-{precision}", **arguments(recipe, precision=precision))


def stopped(processes: Processes, recipe: str, folder: Path, given: dict[str, Any]) -> list[int]:
    """Step and signal of a run whose second process is asked to stop, which the first one's reports do."""

    def on_step(report: StepReport) -> None:
        if report.step == STOP:
            os.kill(int((folder / "pid-1").read_text()), signal.SIGTERM)

    try:
        train(recipe, source(recipe), folder / f"{recipe}-parts", on_step=on_step, **given)
    except TrainingStopped as stop:
        return [stop.step, stop.signal_number]
    return []


def differing(processes: Processes) -> None:
    """Only the second process finds something wrong."""
    with processes.agreed():
        if not processes.first:
            raise GanError("something that only one finds")


def sums(processes: Processes) -> list[Any]:
    tensors = [torch.full((2, 3), 1.0 + processes.rank), torch.tensor(0.5), torch.arange(24.0).reshape(2, 3, 2, 2)]
    tensors[2] = tensors[2].to(memory_format=torch.channels_last)
    processes.sum_(tensors)
    return [tensor.tolist() for tensor in tensors]


def error_of(action: Any) -> list[Any]:
    try:
        action()
    except GanError as error:
        return [type(error).__name__, error.problem, getattr(error, "told", None)]
    return []


if __name__ == "__main__":
    (train_every if sys.argv[2:] == ["every"] else main)(Path(sys.argv[1]))
