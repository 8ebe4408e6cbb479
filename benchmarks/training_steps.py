#!/usr/bin/env python3
"""Steps a second of `ganexport train`, for every recipe, beside the plain loop that one would write.

Ours is a training as a user has it: data by seed and position, counter-based noise, a progress line on a terminal, a
log line in every tenth step, and its page. It runs in `gantrain.loop.train` itself, and between two of its steps, now
and then, a plain loop (`plain_loops.py`) has its turn: interleaved rounds in one process, the same networks, batch and
threads. Some steps of each come first, and the first of every turn does not count. Sample sheets, checkpoints and
scores are kept out of the steps' times and measured by themselves.

    plain   networks and Adam as torch makes them
    tuned   the same with channels-last images and Adam's fused kernel

Before a time counts, both train from the same weights on the same inputs (`training_agreement.py`): losses and gradient
norms of the first step and the weights after two must agree.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_loops import PLAIN_STEPS, Losses, Plain, RandomFeed
from report import RESULTS, Report, parser, run
from training_agreement import CASES, NEVER, SEED, GivenFeed, agreement, fresh, plain_from, planned

from ganexport.benchmark.environment import lines_from_environment
from ganexport.benchmark.rounds import Spread, ratios
from ganexport.tables import table
from ganruntime.files import write_atomically
from gantrain.loop import EARLY_SHEETS, train
from gantrain.observers import Observers, monitor_of
from gantrain.progress import ProgressLine, StepReport
from gantrain.recipes import RECIPES
from gantrain.run_folder import write_sheet
from gantrain.sheets import sheet_of
from gantrain.start import generator_record, spec_of
from gantrain.training_state import save_state

LIMIT = 1.0  # our time of a step, over the plain loop's
# What is kept out of the steps.
ASIDE = {"checkpoint_every": NEVER, "sample_every": NEVER, "metrics_every": 0}
EXTRAS = ("sheet", "checkpoint", "score")
# Steps after which a recipe's lazy parts have come round; ours logs in every tenth.
PERIODS = {"stylegan2": 16}


class Enough(Exception):
    """Ends a training whose rounds are over."""


@dataclass
class Turns:
    """An `on_step` of our loop, in which other loops have their turns; the rounds of each are seconds a step.

    Args:
        others: name -> a step.
        period: a turn has a multiple of so many steps, and one more before them that does not count.
        slice_seconds: of a turn, about.
        clock: seconds.
    """

    others: dict[str, Callable[[], Losses]]
    rounds: int
    period: int
    slice_seconds: float
    clock: Callable[[], float]
    taken: dict[str, list[float]] = field(default_factory=dict)
    _progress: ProgressLine = field(default_factory=lambda: ProgressLine(Terminal()))
    _warmed: bool = False
    _length: int = 0
    _mine: list[float] = field(default_factory=list)
    _since: float = 0.0
    _skip: int = 3

    def __call__(self, report: StepReport) -> None:
        self._progress(report)
        spent = self.clock() - self._since
        if self._skip:  # the first steps, and the first after a turn of others'
            self._skip -= 1
        elif report.step - 1 not in EARLY_SHEETS:  # the step before this one drew no sample sheet
            self._mine.append(spent)
        if not self._warmed and len(self._mine) == 3:
            self._warm()
        elif self._warmed and len(self._mine) == self._length:
            self._turn()
        self._since = self.clock()

    def _warm(self) -> None:
        self._warmed = True
        for step in self.others.values():
            for _ in range(3):
                step()
        periods = self.slice_seconds / (self.period * float(np.median(self._mine)))
        self._length = self.period * max(1, round(periods))
        self._mine, self._skip = [], 1

    def _turn(self) -> None:
        self.taken.setdefault("ours", []).append(sum(self._mine) / len(self._mine))
        names = list(self.others)
        shift = len(self.taken["ours"]) % len(names)
        for name in names[shift:] + names[:shift]:
            step = self.others[name]
            step()
            start = self.clock()
            for _ in range(self._length):
                step()
            self.taken.setdefault(name, []).append((self.clock() - start) / self._length)
        self._mine, self._skip = [], 1
        if len(self.taken["ours"]) == self.rounds:
            raise Enough


class Terminal(io.StringIO):
    """A terminal that nobody watches: the progress line is made as often as on a real one."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def measured(recipe: str, folder: Path, chosen: Any, contenders: list[str]) -> dict[str, list[float]]:
    """contender -> seconds a step, in each round."""
    plan = planned(recipe, folder, chosen.threads, device=chosen.device)
    source, settings = CASES[recipe]
    others: dict[str, Callable[[], Losses]] = {}
    for name in contenders:
        plain = plain_from(plan, tuned=name == "tuned")
        feed = RandomFeed(
            plan.data,  # type: ignore[arg-type]
            plan.settings, plan.label, channels_last=name == "tuned", device=chosen.device,
        )  # fmt: skip
        others[name] = lambda plain=plain, feed=feed: PLAIN_STEPS[recipe](plain, feed)
    turns = Turns(
        others,
        chosen.rounds,
        PERIODS.get(recipe, 10),
        chosen.seconds / chosen.rounds / (1 + len(others)),
        clock_of(chosen),
    )
    try:
        train(
            recipe, source, folder / "run", steps=NEVER, seed=SEED, threads=chosen.threads, on_step=turns,
            settings=ASIDE | settings, device=chosen.device,
        )  # fmt: skip
    except Enough:
        return turns.taken
    raise SystemExit(f"{recipe}: the training ended before its rounds")


def clock_of(chosen: Any) -> Callable[[], float]:
    """Seconds; on a GPU once it has done what it was given."""
    if chosen.cpu_time:
        return time.process_time
    if chosen.device == "cpu":
        return time.perf_counter

    def once_done() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return once_done


def aside(recipe: str, folder: Path, chosen: Any) -> dict[str, float]:
    """Seconds of a sample sheet, a checkpoint and a score, each of which comes every so many steps, and the share of
    the steps' time that they take."""
    plan = planned(recipe, folder, chosen.threads, device=chosen.device)
    s, state = plan.settings, fresh(plan)
    plain = Plain(s, state.generator, state.discriminator)
    PLAIN_STEPS[recipe](plain, GivenFeed(plan, state))  # fills the optimisers' moments, which a checkpoint keeps
    state.generator_optimiser, state.discriminator_optimiser = plain.generator_optimiser, plain.discriminator_optimiser
    state.step = s.metrics_every
    spec, record = spec_of(plan, state), generator_record(plan)
    observers = Observers(folder / "observed", plan, state, monitor_of(plan), lambda report: None)
    return {
        "sheet": median_seconds(lambda: write_sheet(folder / "sheet.png", sheet_of(plan, state.average, spec))),
        "checkpoint": median_seconds(lambda: save_state(folder / "checkpoint", state, record, spec)),
        "score": median_seconds(observers.score, calls=1),
    }


def median_seconds(call: Callable[[], object], calls: int = 3) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> int:
    options = parser(__doc__, rounds=7, seconds=24.0)
    options.add_argument("recipes", nargs="*", metavar="RECIPE", help="these alone (default: all)")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default %(default)s)")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of every loop (default cpu)")
    options.add_argument("--cpu-time", action="store_true", help="CPU time in place of wall time: works beside others")
    options.add_argument("--check-only", action="store_true", help="compare the trainings, and measure nothing")
    options.add_argument("--without-tuned", action="store_true", help="measure the plain loop alone beside ours")
    chosen = options.parse_args()
    if unknown := [name for name in chosen.recipes if name not in RECIPES]:
        options.error(f"no recipe is called {unknown[0]!r}: {', '.join(RECIPES)}")
    torch.set_num_threads(chosen.threads)
    names = ["plain"] if chosen.without_tuned else ["plain", "tuned"]
    if chosen.cpu_time and chosen.device != "cpu":
        options.error("--cpu-time says nothing of a GPU's steps")
    name = "training_steps" + ("" if chosen.device == "cpu" else "-gpu")
    report = Report(name, chosen.output)
    found: dict[str, Any] = {}
    for recipe in chosen.recipes or RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            found[recipe] = row = figures(recipe, Path(folder), chosen, names)
        print(f"{recipe}: {row}" if chosen.check_only else line(recipe, row), flush=True)
    if chosen.check_only:
        return 0
    print(table([cells(recipe, row, names) for recipe, row in found.items()], header(names), frozenset(range(1, 9))))
    report.put("unit", "seconds of CPU time" if chosen.cpu_time else "seconds")
    report.put("threads", chosen.threads)
    report.put("device", chosen.device)
    report.put("recipes", found)
    for recipe, row in found.items():
        report.limit(f"{recipe}: our time of a step over the plain loop's", row["over_plain"]["median"], LIMIT, "×")
    status = report.finish()
    page = (chosen.output or RESULTS / f"{name}.json").with_suffix(".md")
    write_atomically(page, markdown(found, names, chosen, report).encode())
    return status


def figures(recipe: str, folder: Path, chosen: Any, names: list[str]) -> dict[str, Any]:
    """One recipe's agreement, and unless only that was asked for its times and ratios; raises `SystemExit`."""
    agreed = agreement(recipe, folder, chosen.threads, device=chosen.device)
    row: dict[str, Any] = {"first_step_apart": agreed.first_step, "weights_apart": agreed.weights}
    if not agreed.holds():
        raise SystemExit(f"{recipe}: the plain loop does not train as ours does: {agreed}")
    if chosen.check_only:
        return row
    taken = measured(recipe, folder, chosen, names)
    s = planned(recipe, folder, chosen.threads).settings
    row |= {"seconds": {name: Spread.of(times).to_json() for name, times in taken.items()}}
    row |= {"batch": s.batch, "rounds": len(taken["ours"])}
    row |= {f"over_{name}": ratios(taken["ours"], taken[name]).to_json() for name in names}
    costs = aside(recipe, folder, chosen)
    row |= {f"{what}_seconds": seconds for what, seconds in costs.items()}
    every = {"sheet": s.sample_every, "checkpoint": s.checkpoint_every, "score": s.metrics_every}
    per_step = sum(seconds / every[what] for what, seconds in costs.items())
    row["aside_share"] = per_step / row["seconds"]["ours"]["median"]
    return row


def line(recipe: str, row: dict[str, Any]) -> str:
    plain = row["over_plain"]
    return f"{recipe}: {1 / row['seconds']['ours']['median']:.1f} steps/s, {1 / plain['median']:.2f}× the plain loop's"


def header(names: list[str]) -> list[str]:
    return ["recipe", "ours", *names, *(f"over {name}" for name in names), *EXTRAS, "these, amortised"]


def cells(recipe: str, row: dict[str, Any], names: list[str]) -> list[str]:
    rates = [f"{1 / row['seconds'][name]['median']:.1f}" for name in ("ours", *names)]
    # Of rates, so that above 1 is faster: the quartiles change places.
    over = [[1 / row[f"over_{name}"][key] for key in ("median", "high", "low")] for name in names]
    faster = [f"{median:.2f}× ({low:.2f} – {high:.2f})" for median, low, high in over]
    times = [f"{1e3 * row[f'{what}_seconds']:.0f} ms" for what in EXTRAS]
    return [recipe, *rates, *faster, *times, f"{row['aside_share']:.1%}"]


def markdown(found: dict[str, Any], names: list[str], chosen: Any, report: Report) -> str:
    head = header(names)
    rows = [cells(recipe, row, names) for recipe, row in found.items()]
    kind = "CPU time" if chosen.cpu_time else "wall time"
    where = f"{chosen.threads} threads" + ("" if chosen.device == "cpu" else " and a GPU")
    lines = [
        "# Training steps a second",
        "",
        f"Written by `benchmarks/training_steps.py`: our loop beside a plain one, {where}, {kind},",
        f"{chosen.rounds} interleaved rounds. Ratios are of rates, above 1 is faster, with quartiles. `plain` is what",
        "one writes straight away" + ("," if "tuned" in names else "."),
        *(["`tuned` the same with channels-last images and Adam's fused kernel."] if "tuned" in names else []),
        "Losses, gradient norms and the weights after two steps were compared first. A sample sheet, a checkpoint and",
        "a score come every 1,000 steps by default; the last column is what they add to our steps.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|" + "---:|" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *lines_from_environment(report.environment),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
