"""What watches a training without touching it: log, metrics, diagnosis, page, and the best generator beside the last.

    with Observers(run, plan, state, monitor_of(plan), on_step) as observers:
        …
        metrics = observers.score()                 # None but in the steps that are scored
        report = StepReport(…, metrics=metrics)
        observers.report(report, to_log)
        …
        save_state(…)
        observers.saved()

Nothing here draws from torch's random state or changes a tensor of the training: the bits are those of a run without.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ganruntime.errors import InputError, OutputError, TrainingError
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec, Label
from gantrain.best import Best, best_of, with_figure
from gantrain.checkpoint import load_generator, save_generator
from gantrain.data.source import ImageSource
from gantrain.data.toys import GaussianMixture
from gantrain.diagnosis import Change, Diagnosis, guessing_score
from gantrain.divergence import diverged
from gantrain.event_files import EventFiles
from gantrain.history import COLUMNS, History, lines_of
from gantrain.metrics.during_training import Monitor
from gantrain.metrics.scoring import Chunk
from gantrain.plan import Plan
from gantrain.progress import StepReport
from gantrain.recipes.training_settings import ImageSettings
from gantrain.run_folder import log, log_of
from gantrain.run_page import Standing, write_page
from gantrain.samples import samples_of
from gantrain.start import generator_record, spec_of
from gantrain.stop_signals import TrainingStopped
from gantrain.training_state import TrainingState

_PAGE_SECONDS = 5.0


class Observers:
    """Watches the training of `state` into `run`, from the step that it stands at.

    Args:
        monitor: what `monitor_of` gave for the plan.
        on_step: gets every report.
    """

    def __init__(
        self,
        run: Path,
        plan: Plan,
        state: TrainingState,
        monitor: Monitor | None,
        on_step: Callable[[StepReport], None],
    ) -> None:
        self._run, self._plan, self._state = run, plan, state
        self._open = contextlib.ExitStack()
        self._saved_step = state.step
        self._monitor, self._on_step = monitor, on_step
        self._history, self._diagnosis = History(), _diagnosis_of(plan, monitor)
        for line in lines_of(run):  # of a run that goes on
            self._history.add(line)
            self._diagnosis.see(line)
        self._page_due = 0.0
        self._events: EventFiles | None = None
        if state.best is not None:
            self._mend_best(state.best)

    def __enter__(self) -> Observers:
        self._log = self._open.enter_context(log_of(self._run))
        if self._plan.settings.tensorboard:
            self._events = self._open.enter_context(contextlib.closing(EventFiles(self._run, self._state.step)))
        self._write_page("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write_page("ended")
        elif isinstance(error, TrainingStopped):
            self._write_page("interrupted", str(error))
        else:
            # A disk that is full is what has ended the run, and has been named: the page is not the news.
            with contextlib.suppress(OutputError):
                if isinstance(error, TrainingError):
                    self._log_divergence(error)
                self._write_page("failed", str(error) or type(error).__name__)
        self._open.close()

    def scores(self, step: int) -> bool:
        """Whether the generator is scored after this step: every `metrics_every` steps, and at the end."""
        s = self._plan.settings
        return self._monitor is not None and (step % s.metrics_every == 0 or step == s.steps)

    def score(self) -> dict[str, float] | None:
        """The figures of the averaged generator, {`fid[SPACE]`: value}, in a step that is scored; None in others.

        Where they are the best so far, the state says so from now on, and wants to be saved.

        Raises:
            TrainingError: a sample is not finite.
        """
        if self._monitor is None or not self.scores(self._state.step):
            return None
        figures, value = self._scored(self._monitor, self._state.average, spec_of(self._plan, self._state))
        best = self._state.best
        if self._monitor.is_better(value, None if best is None else best.value):
            self._state.best = Best(self._state.step, self._monitor.key, value)
        return figures

    def report(self, report: StepReport, to_log: bool) -> None:
        """Diagnoses and logs the report where it is to be logged, and hands it on. Raises `OutputError`."""
        if to_log:
            report = replace(report, change=self._diagnosis.see(report.to_log()))
        self._on_step(report)
        if to_log:
            line = report.to_log()
            log(self._log, line)
            self._history.add(line)
            if self._events is not None:
                self._events.add(line)
            if time.monotonic() >= self._page_due:
                self._write_page("running")

    def saved(self) -> None:
        """Told after each checkpoint: keeps its generator as the best where it is. Raises `OutputError`."""
        self._saved_step = self._state.step
        if self._state.best is not None and self._state.best.step == self._state.step:
            self._keep(self._state.best, self._state.average, spec_of(self._plan, self._state))

    def _log_divergence(self, error: TrainingError) -> None:
        """A last line, without figures: that the run has diverged, and what to try."""
        finding = self._diagnosis.diverged(self._state.step, error.problem.removeprefix("training has diverged: "))
        change = Change(began=(finding,)).to_json()
        timing = {"seconds": round(self._state.seconds, 3), "images_per_second": None}
        line = {"step": self._state.step, "images": None, **dict.fromkeys(COLUMNS), "diagnosis": change}
        log(self._log, {**line, "timing": timing})

    def _write_page(self, state: str, words: str = "") -> None:
        started = time.monotonic()
        s, best = self._plan.settings, self._state.best
        standing = Standing(
            state,
            self._state.step,
            s.steps,
            words,
            best=None if best is None else (best.step, best.key, best.value),
            guess=guessing_score(s),
        )
        write_page(self._run, self._plan.record, standing, self._history, self._diagnosis)
        ended = time.monotonic()
        # At most a hundredth of the time goes into pages, however long the log.
        self._page_due = ended + max(_PAGE_SECONDS, 100.0 * (ended - started))

    def _keep(self, best: Best, generator: nn.Module, spec: GeneratorSpec) -> None:
        save_generator(best_of(self._run), generator, generator_record(self._plan), with_figure(spec, best))

    def _mend_best(self, best: Best) -> None:
        """Brings `best/` to what the checkpoint says: after a kill between the two, and where features have changed."""
        folder = best_of(self._run)
        if best.step == self._state.step:
            self.saved()
        elif not folder.exists():
            self._state.best = None  # the user has removed it: what comes next is the best that there is
            return
        if self._monitor is None or best.key == self._monitor.key:
            return
        # Another CPU or another torch: another judge, and figures of two judges do not compare.
        generator, spec = load_generator(folder)
        _, value = self._scored(self._monitor, generator.to(self._plan.device), spec)
        self._state.best = Best(best.step, self._monitor.key, value) if math.isfinite(value) else None
        if self._state.best is not None:
            self._keep(self._state.best, generator, spec)

    def _scored(self, monitor: Monitor, generator: nn.Module, spec: GeneratorSpec) -> tuple[dict[str, float], float]:
        plan = self._plan
        asked = [t.name for t in spec.inputs if isinstance(t.role, Label)]

        def draw(first: int, count: int) -> Chunk:
            samples, inputs = samples_of(generator, spec, plan.record.seed, first, count, plan.device)
            if not np.isfinite(samples).all():
                what = f"the generator draws what is not finite after step {self._state.step}"
                raise diverged(self._run, what, self._saved_step)
            labels: dict[str, NDArray[np.int64]] = {}
            if plan.label is not None and plan.label in monitor.scorer.space.classes:
                labels = {plan.label: inputs[asked[0]].reshape(count, -1)[:, 0].astype(np.int64)}
            if isinstance(plan.data, ImageSource):
                return uint8_from_output(samples, spec.outputs[0]), labels
            return samples.reshape(count, -1), labels

        scores = monitor.score(draw)
        return scores.by_key(), monitor.value(scores)


def _diagnosis_of(plan: Plan, monitor: Monitor | None) -> Diagnosis:
    if monitor is None:
        return Diagnosis(plan.settings)
    classes = list(monitor.scorer.space.classes.values())
    modes = len(classes[0]) if len(classes) == 1 else None  # of several attributes a score has but a mean
    if isinstance(plan.whole, GaussianMixture):
        modes = len(plan.whole.centres)
    return Diagnosis(plan.settings, modes=modes, metric=monitor.metric, lower=monitor.lower)


def monitor_of(plan: Plan) -> Monitor | None:
    """What scores the generators of a run; None where it is never scored.

    Raises:
        InputError: metrics are wanted, and the data are too few for them.
    """
    s = plan.settings
    if not 0 < s.metrics_every <= s.steps:
        return None  # a run that ends before its first score would be scored once, and that costs a judge
    held_out = s.held_out if isinstance(s, ImageSettings) else 0.0
    told = plan.label is not None and len(plan.data.classes[plan.label]) > 1
    try:
        return Monitor.of(plan.whole, held_out=held_out, samples=s.metrics_samples, conditional=told)
    except InputError as error:
        raise InputError(
            f"metrics during training: {error.problem}",
            got=error.got,
            expected=error.expected,
            remedy="--set metrics_every=0 trains without",
        ) from error
