#!/usr/bin/env python3
"""Modes found and high-quality samples on ring 8 and grid 25: recipe `toy` beside a vanilla GAN and PacGAN.

    python benchmarks/training_toys.py                      both sets × four contenders × ten seeds
    python benchmarks/training_toys.py --seeds 2 --quick    200 steps each, to see that all of it works; writes nothing

`vanilla` is the non-saturating loss of Goodfellow et al. 2014 without penalty, in the set-up of Lin et al., "PacGAN"
(arXiv:1712.04086); `pack2` and `pack4` are that with a discriminator that judges two and four samples together. The
paper trains networks of 400 and 200 for 400,000 steps; here these presets get as many steps as take the CPU seconds
that `toy` takes, narrower networks for it, and of six learning rates the one that did best on seed 100 (share of high
quality times share of modes found), for each set and preset. They are far from done after that: what the paper's own
runs reach stands in the table as published.

A run is judged as in the paper by 2,500 samples: a mode is found that has a sample within three σ, and the share of
such samples is that of high quality. As much is said of 50,000 samples, with the spread about a centre in σ, which
shows a generator that raises its share by shrinking modes, and with the total variation distance of the modes' shares.
Every latent is used; nothing is truncated or rejected. Finished runs are kept in runs/training_toys, and not trained
again; one that was interrupted goes on.

Writes results/training_toys.json, .md and .png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import RESULTS, Report, run

from ganruntime.errors import InputError
from ganruntime.files import write_atomically
from ganruntime.noise import latents
from gantrain.checkpoint import load_generator
from gantrain.data.toys import GaussianMixture, grid, ring
from gantrain.loop import train
from gantrain.metrics.modes import SAMPLES, modes_found
from gantrain.recipes import recipe_from_name
from gantrain.recipes.settings import settings_with

RUNS = Path(__file__).parent.parent / "runs" / "training_toys"  # ignored by git
SETS: dict[str, Callable[[], GaussianMixture]] = {"ring": ring, "grid": grid}
# Of the presets, which are the paper's set-up: what lets them get somewhere in as much time as `toy` takes.
_NARROW: dict[str, Any] = {"generator_widths": (128, 128, 128, 128), "discriminator_widths": (64, 64, 64)}
_STEPS = {"vanilla": 6000, "pack2": 7500, "pack4": 8500}
# Of 2e-4, 3e-4, 5e-4, 1e-3, 2e-3 and 5e-3, on seed 100.
_RATES = {
    "ring": {"vanilla": 5e-4, "pack2": 2e-3, "pack4": 1e-3},
    "grid": {"vanilla": 2e-3, "pack2": 5e-3, "pack4": 2e-3},
}
_PRESETS = recipe_from_name("toy").presets
_TOY: dict[str, dict[str, Any]] = {"ring": dict(_PRESETS["ring"]), "grid": {}}
CONTENDERS = ("toy", "vanilla", "pack2", "pack4")
# Lin et al. 2018, table 1: modes and share of high quality, means of ten runs.
PUBLISHED = {
    "ring": {"GAN": (6.3, 0.982), "PacGAN2": (7.9, 0.956), "PacGAN4": (7.8, 0.959)},
    "grid": {"GAN": (17.3, 0.948), "PacGAN2": (23.8, 0.913), "PacGAN4": (24.8, 0.936)},
}
AIM = 0.97  # share of high quality, with every mode found
MANY = 50_000
QUICK_STEPS = 200
_JUDGED_WITH = 0x746F7973  # seed of the latents; those of training are derived from the run's seed
_FIGURES = "figures.json"
_SAMPLES = "samples.npy"  # float32 [2500, 2]
# What a run was judged by: what was kept is not used where these differ.
_KEPT = ("set", "contender", "seed", "settings", "samples", "many")


def settings_of(contender: str, data: str) -> dict[str, Any]:
    """What a contender changes of the recipe's settings on a set."""
    if contender == "toy":
        return _TOY[data]
    rate = _RATES[data][contender]
    return {
        **_PRESETS[contender], **_NARROW,
        "steps": _STEPS[contender], "generator_lr": rate, "discriminator_lr": rate,
    }  # fmt: skip


def judged_run(data: str, contender: str, seed: int, changes: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Figures of one run, trained unless they are there."""
    folder = RUNS / ("quick" if quick else "full") / f"{data}-{contender}-{seed}"
    settings = settings_with(recipe_from_name("toy").defaults, changes)
    what = {
        "set": data, "contender": contender, "seed": seed, "settings": settings.to_json(),
        "samples": SAMPLES, "many": MANY,
    }  # fmt: skip
    kept = folder / _FIGURES
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in _KEPT} == what:
            return found
        raise InputError(f"{folder} was made with other settings", remedy=f"train it anew: rm -r {folder}")
    run, source, before = folder / "run", SETS[data](), time.process_time()
    seconds = time.perf_counter()
    # A run that was interrupted goes on: in the same bits, on a CPU and with the same number of threads.
    resume = (run / "run.json").exists()
    train("toy", None if resume else data, run, seed=seed, settings=changes, threads=1, resume=resume)
    timing = {"seconds": time.perf_counter() - seconds, "cpu_seconds": time.process_time() - before, "resumed": resume}
    samples = drawn(run, MANY)
    few, many = modes_found(samples[:SAMPLES], source), modes_found(samples, source)
    result = what | {
        "modes": few.modes, "found": few.found, "high_quality": few.high_quality,
        "found_of_many": many.found, "high_quality_of_many": many.high_quality,
        "distance": many.distance, "spread": many.spread, "timing": timing,
    }  # fmt: skip
    np.save(folder / _SAMPLES, samples[:SAMPLES])
    write_atomically(kept, (json.dumps(result, indent=2) + "\n").encode())
    return result


def drawn(run: Path, count: int) -> NDArray[np.float32]:
    """`count` samples of the run's generator, float32 [count, 2]; the first are the same for any count."""
    generator, spec = load_generator(run)
    with torch.inference_mode():
        z = torch.from_numpy(latents(spec.inputs[0], _JUDGED_WITH, 0, count))
        samples: NDArray[np.float32] = generator(z).numpy()
    return samples


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error; that of one value is not known."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the runs of one set and contender: {figure: [mean, standard error]}."""
    names = ("found", "high_quality", "found_of_many", "high_quality_of_many", "distance", "spread")
    figures: dict[str, Any] = {name: mean_and_error([run[name] for run in runs]) for name in names}
    figures["runs"] = len(runs)
    figures["every_mode"] = sum(run["found"] == run["modes"] for run in runs)
    figures["cpu_seconds"] = sum(run["timing"]["cpu_seconds"] for run in runs)
    return figures


def markdown(table: Mapping[str, Mapping[str, Mapping[str, Any]]], about: Sequence[str]) -> str:
    """The table as results/training_toys.md has it."""

    def pair(values: tuple[float, float], scale: float, digits: int) -> str:
        return f"{scale * values[0]:.{digits}f} ± {scale * values[1]:.{digits}f}"

    lines = ["# Toys: modes found, and samples of high quality", "", *about, ""]
    for data, contenders in table.items():
        modes = len(SETS[data]().centres)
        lines += [
            f"## {data}: {modes} modes",
            "",
            f"| | modes, {SAMPLES:,} samples | high quality % | runs with every mode "
            f"| high quality %, {MANY:,} samples | spread, σ | distance of the modes' shares | CPU s a run |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, f in contenders.items():
            lines.append(
                f"| {name} | {pair(f['found'], 1, 1)} | {pair(f['high_quality'], 100, 1)} | {f['every_mode']} "
                f"| {pair(f['high_quality_of_many'], 100, 2)} "
                f"| {pair(f['spread'], 1, 2)} | {pair(f['distance'], 1, 3)} "
                f"| {f['cpu_seconds'] / f['runs']:.0f} |"
            )
        lines += [
            f"| {name}, as published | {found:.1f} | {100 * quality:.1f} | | | | | |"
            for name, (found, quality) in PUBLISHED[data].items()
        ]
        lines += ["| perfect samples | " + f"{modes} | 98.9 | | 98.89 | 1.00 | 0 | |", ""]
    return "\n".join(lines)


def picture(path: Path, seed: int, high_quality: Mapping[str, Mapping[str, float]]) -> None:
    """Samples of `toy` beside those of `vanilla`, of one seed, for both sets.

    high_quality: the share, by set and contender.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 9.5), dpi=110, layout="constrained")
    for row, data in enumerate(SETS):
        source = SETS[data]()
        for column, contender in enumerate(("toy", "vanilla")):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            samples = np.load(RUNS / "full" / f"{data}-{contender}-{seed}" / _SAMPLES)
            reach = 1.25 * float(np.abs(source.centres).max())
            axes.scatter(*source.centres.T, s=90, facecolors="none", edgecolors="#e07a2f", linewidths=0.8)
            axes.scatter(*samples.T, s=2, color="#1f5ab4", linewidths=0, alpha=0.6)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            found = modes_found(samples, source)
            axes.set_title(
                f"{data}, {contender}: {found.found} of {found.modes} modes, "
                f"{100 * high_quality[data][contender]:.1f} % of high quality",
                fontsize=10,
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=10, help="0, 1, … (default %(default)s)")
    options.add_argument("--only", choices=CONTENDERS, nargs="+", default=list(CONTENDERS), help="train these alone")
    options.add_argument("--sets", choices=SETS, nargs="+", default=list(SETS), help="train these alone")
    options.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps a run; writes no results")
    arguments = options.parse_args()
    if arguments.seeds < (1 if arguments.quick else 2):
        options.error("--seeds: at least 2, for a standard error, or 1 with --quick")
    report = Report("training_toys", None)
    quick = {"steps": QUICK_STEPS} if arguments.quick else {}
    runs: list[dict[str, Any]] = []
    # Contender after contender, the recipe first: a table can be made of what is there.
    for contender in arguments.only:
        for data, seed in itertools.product(arguments.sets, range(arguments.seeds)):
            changes = settings_of(contender, data) | quick
            run = judged_run(data, contender, seed, changes, arguments.quick)
            runs.append(run)
            print(
                f"{data} {contender} seed {seed}: {run['found']} of {run['modes']} modes, "
                f"{100 * run['high_quality']:.1f} % ({100 * run['high_quality_of_many']:.2f} % of {MANY:,}), "
                f"spread {run['spread']:.2f} σ, {run['timing']['cpu_seconds']:.0f} s",
                flush=True,
            )
    if arguments.quick or "toy" not in arguments.only or "vanilla" not in arguments.only or len(arguments.sets) < 2:
        print("short runs, or less than both sets of toy and vanilla: nothing is written")
        return 0
    table = {
        data: {
            name: summary([r for r in runs if (r["set"], r["contender"]) == (data, name)]) for name in arguments.only
        }
        for data in SETS
    }
    steps = recipe_from_name("toy").defaults.steps
    others = ", ".join(f"{name} {count:,}" for name, count in _STEPS.items())
    absent = [name for name in CONTENDERS if name not in arguments.only]
    command = f"benchmarks/training_toys.py --seeds {arguments.seeds} --only {' '.join(arguments.only)}"
    about = [
        f"`{command}`: seeds 0 to {arguments.seeds - 1}, mean ± standard error over the seeds. `toy` is the recipe, "
        f"{steps:,} generator steps; the others are its presets of those names, the set-up of Lin et al. 2018, with "
        "narrower networks, as many steps as take the same CPU time when the machine is quiet "
        f"({others}), and of six learning rates the best on seed 100. As published: "
        "table 1 of Lin et al., wider networks and 400,000 steps. No latent is truncated and no sample rejected; "
        "samples are of the generator as it is exported." + (f" Not run yet: {', '.join(absent)}." if absent else ""),
        "",
        f"CPU time of all runs: {sum(r['timing']['cpu_seconds'] for r in runs) / 60:.0f} minutes, one thread each. "
        "Environment, settings and every run: [training_toys.json](training_toys.json).",
        "",
        "![samples of `toy` beside `vanilla`](training_toys.png)",
    ]
    report.put("command", command)
    report.put("not_run", absent)
    report.put("published", PUBLISHED)
    report.put("summary", table)
    report.put("runs", runs)
    for data in SETS:
        figures = table[data]["toy"]
        modes = len(SETS[data]().centres)
        report.limit(f"{data}: modes that toy misses, mean", modes - figures["found"][0], 0.0)
        report.limit(
            f"{data}: share of toy's samples that is not of high quality", 1.0 - figures["high_quality"][0], 1.0 - AIM
        )
    write_atomically(RESULTS / "training_toys.md", (markdown(table, about) + "\n").encode())
    qualities = {
        data: {r["contender"]: r["high_quality"] for r in runs if r["set"] == data and r["seed"] == 0} for data in SETS
    }
    picture(RESULTS / "training_toys.png", 0, qualities)
    return report.finish()


if __name__ == "__main__":
    run(main)
