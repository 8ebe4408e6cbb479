"""What is wrong with a training, from what its log has: named, in words, with settings to try.

    diverged             a loss, a gradient, a weight or a sample is NaN or infinite, which stops the run
    exploding            gradients have grown a hundredfold beyond what they were
    collapsed            all generated samples have become alike
    discriminator-won    D is certain of everything, or gives the generator no gradient any more
    discriminator-idle   D has never told real from generated
    modes-missing        kinds of samples that the data have are hardly drawn, or not any more
    past-its-best        the figure that decides has got worse and worse since the best step

The first rules look at the last lines that span `_STEPS` steps, `_LINES` lines at least, and at their medians: one odd
batch is no finding. The last two look at scores, and want the same of two or three in a row. A finding begins once, and
ends once it has not held for as many lines. All of it is a function of the lines, so that a resumed run finds what an
uninterrupted one finds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from gantrain.recipes.training_settings import ImageSettings, TrainingSettings

_LINES, _STEPS = 20, 200
_EXPLODED = 100.0  # times the gradient's largest median of the first windows
_ALIKE, _VARIED = 0.1, 0.3  # diversity: below the one they are alike, above the other they were not
_NEVER_VARIED_STEPS = 1_000
_CERTAIN = 0.99  # D's accuracy
_FLOOR, _HINGE_FLOOR = 0.03, 0.003  # share of the way from D's least loss to that of guessing
_WON_STEPS = 300  # for which it must have been so: young discriminators of hinge losses are certain for a while
_VANISHED = 1e-3  # share of the largest of G's gradients in the first lines
_FIRST_LINES = 5
_GUESSING = 0.53  # D's accuracy
_IDLE_STEPS = 500
_MISSING = 0.25  # share of the modes
_WELL = 0.5
_WORSE = 1.5

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """name: one of those above. step: at which it was noticed. title, what: in words. remedies: what to try."""

    name: str
    step: int
    title: str
    what: str
    remedies: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "what": f"{self.title}: {self.what}", "try": list(self.remedies)}


@dataclass(frozen=True)
class Change:
    """What a line of the log has changed: findings that begin, and names of those that have ended."""

    began: tuple[Finding, ...] = ()
    ended: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.began or self.ended)

    def to_json(self) -> dict[str, Any]:
        """As it stands under "diagnosis" in a line of log.jsonl."""
        return {"began": [finding.to_json() for finding in self.began], "ended": list(self.ended)}


class Diagnosis:
    """Sees the log line by line.

    Args:
        settings: of the run.
        modes: how many kinds of samples the data have, where scores count them: modes of a toy, classes of a judge.
        lower: whether less of the figure that decides is better.
        metric: its name without the feature space.
    """

    def __init__(
        self, settings: TrainingSettings, *, modes: int | None = None, metric: str = "fid", lower: bool = True
    ) -> None:
        self._settings, self._modes, self._metric, self._lower = settings, modes, metric, lower
        self._window: deque[Line] = deque()
        self._scores: list[Line] = []
        self._most: dict[str, float] = {}  # largest median so far, of a window
        self._first_gradients: list[float] = []
        self._won_since: int | None = None  # step since which D's victory has been in every window
        self._held: dict[str, int] = {}  # finding -> lines since it last held
        self._now: dict[str, Finding] = {}
        self._past: list[tuple[Finding, int]] = []

    @property
    def now(self) -> tuple[Finding, ...]:
        """The findings that hold."""
        return tuple(self._now.values())

    @property
    def past(self) -> tuple[tuple[Finding, int], ...]:
        """Those that held, each with the step at which it had ended."""
        return tuple(self._past)

    def see(self, line: Line) -> Change:
        """Takes the next line of the log, as `StepReport.to_log` gives it."""
        self._window.append(line)
        while len(self._window) > _LINES and self._window[1]["step"] <= line["step"] - _STEPS:
            self._window.popleft()
        if len(self._first_gradients) < _FIRST_LINES and line.get("gradient_g") is not None:
            self._first_gradients.append(line["gradient_g"])
        if line.get("metrics"):
            self._scores.append(line)
        found = [finding for rule in self._rules() if (finding := rule()) is not None]
        self._remember()
        return self._changed(line["step"], found)

    def diverged(self, step: int, problem: str) -> Finding:
        """The finding of a run that has stopped because something was not finite."""
        finding = Finding("diverged", step, "The training has diverged", problem, self._calmer())
        self._now[finding.name] = finding
        return finding

    # --- rules -------------------------------------------------------------------------------------------------------

    def _rules(self) -> tuple[Callable[[], Finding | None], ...]:
        scored = (self._modes_missing, self._past_its_best)
        if not self._full:
            return scored
        return (self._exploding, self._collapsed, self._won, self._idle, *scored)

    def _exploding(self) -> Finding | None:
        for name, who in (("gradient_g", "generator"), ("gradient_d", "discriminator")):
            now, before = self._median(name), self._most.get(f"early {name}")
            if now is not None and before and now > _EXPLODED * before:
                return self._finding(
                    "exploding",
                    f"The {who}'s gradients explode",
                    f"their norm is {now:.3g}, where it was at most {before:.3g} at first. NaN is not far.",
                    self._calmer(),
                )
        return None

    def _collapsed(self) -> Finding | None:
        now, most = self._median("diversity"), self._most.get("diversity", 0.0)
        if now is None or now >= _ALIKE:
            return None
        if most >= _VARIED:
            what = f"samples vary {now:.1%} as much as the data do, where they varied {most:.0%} before."
        elif self._step >= _NEVER_VARIED_STEPS:
            what = f"after {self._step} steps samples still vary only {now:.1%} as much as the data do."
        else:
            return None
        remedies = [f"a lower rate for the generator: --set generator_lr={self._settings.generator_lr / 4:.1e}"]
        if self._settings.pack == 1 and not self._settings.label:
            remedies.append("let D judge samples in packs, so that it sees that they are alike: --set pack=2")
        if self._settings.objective in ("non_saturating", "minimax"):
            remedies.append("an objective that compares real with generated: --set objective=relativistic")
        if not self._settings.r1 and not self._settings.gradient_penalty:
            remedies.append("a gradient penalty: --set r1=1, with objective=relativistic --set r2=1 as well")
        remedies += self._augmented()
        return self._finding("collapsed", "The generator has collapsed", what, tuple(remedies))

    def _won(self) -> Finding | None:
        accuracy, gradient = self._median("d_accuracy"), self._median("gradient_g")
        loss, ends = self._median("loss_d"), _loss_ends(self._settings)
        if accuracy is None or accuracy < _CERTAIN:
            self._won_since = None
            return None
        before = max(self._first_gradients, default=0.0)
        # Beyond the hinge D is certain by design, and G goes on learning.
        floor = _HINGE_FLOOR if self._settings.objective == "hinge" else _FLOOR
        if gradient is not None and before and gradient < _VANISHED * before:
            what = f"the norm of the generator's gradient has fallen from {before:.3g} to {gradient:.3g}"
        elif loss is not None and ends is not None and loss < ends[0] + floor * (ends[1] - ends[0]):
            what = (
                f"its loss is {loss:.3g}, where guessing has {ends[1]:.3g}, and what it is certain of it cannot teach"
            )
        else:
            self._won_since = None
            return None
        s = self._settings
        remedies = [f"a lower rate for the discriminator: --set discriminator_lr={s.discriminator_lr / 4:.1e}"]
        if s.objective == "minimax":
            remedies.append("a loss that does not vanish where D wins: --set objective=non_saturating")
        if not s.r1 and not s.gradient_penalty:
            remedies.append("a penalty that keeps D's slope in bounds: --set r1=1")
        remedies += self._augmented()
        if s.objective in ("non_saturating", "minimax") and s.real_label == 1.0:
            remedies.append("do not let D be certain: --set real_label=0.9")
        if s.discriminator_steps > 1 and s.objective != "wasserstein":
            remedies.append("fewer steps of D: --set discriminator_steps=1")
        what = f"it tells {accuracy:.1%} of the samples rightly, and {what}."
        self._won_since = self._step if self._won_since is None else self._won_since
        if self._step - self._won_since < _WON_STEPS and "discriminator-won" not in self._now:
            return None
        return self._finding("discriminator-won", "The discriminator has won", what, tuple(remedies))

    def _idle(self) -> Finding | None:
        now, most = self._median("d_accuracy"), self._most.get("d_accuracy", 0.0)
        if now is None or max(now, most) > _GUESSING or self._step < _IDLE_STEPS:
            return None
        s = self._settings
        what = f"in {self._step} steps it has never told more than {max(now, most):.0%} of the samples rightly."
        rate = 4 * s.discriminator_lr if s.discriminator_lr else s.generator_lr
        remedies = [f"a higher rate for the discriminator: --set discriminator_lr={rate:.1e}"]
        if s.clip:
            remedies.append(f"weights that may grow further: --set clip={4 * s.clip:g}")
        if s.r1:
            remedies.append(f"a lighter penalty: --set r1={s.r1 / 10:g}")
        remedies.append("more steps of D: --set discriminator_steps=2")
        return self._finding("discriminator-idle", "The discriminator has learned nothing", what, tuple(remedies))

    def _modes_missing(self) -> Finding | None:
        if not self._modes or len(self._scores) < 2:
            return None
        found = [self._found(line) for line in self._scores]
        if found[-1] is None or found[-2] is None:
            return None
        now, most = max(found[-1], found[-2]), max(value for value in found if value is not None)
        missing = self._modes - now
        # Of a generator that draws nothing well yet, none is lost more than another. Past half of the run it is late.
        lost = self._draws_well and most - now >= _MISSING * self._modes
        late = self._scores[-2]["step"] >= self._settings.steps / 2 and missing >= _MISSING * self._modes
        if not lost and not late:
            return None
        what = f"{missing:g} of {self._modes} kinds of samples are hardly drawn" + (
            f"; {self._modes - most:g} were the fewest before." if lost else "."
        )
        if not self._draws_well:
            what += " Nor is most of what is drawn any of them."
        remedies = self._augmented()
        if self._settings.pack == 1 and not self._settings.label:
            remedies.append("let D judge samples in packs: --set pack=2")
        if not (self._settings.r1 and self._settings.r2):
            remedies.append(
                "--set objective=relativistic --set r1=1 --set r2=1, the penalties weaker for vectors (0.02)"
            )
        remedies.append(f"a larger batch: --set batch={2 * self._settings.batch}")
        return self._finding("modes-missing", "Modes are missing", what, tuple(remedies))

    def _augmented(self) -> list[str]:
        """For images that D is shown as they are: what keeps it from knowing few of them by heart."""
        s = self._settings
        if not isinstance(s, ImageSettings) or s.shift or s.colour or s.cutout:
            return []
        return [
            "for few images, show D augmented ones, as often as it takes (ADA): "
            "--set shift=2 --set cutout=0.3 --set ada_target=0.6 --set ada_images=20000"
        ]

    def _past_its_best(self) -> Finding | None:
        values = [(line["step"], value) for line in self._scores if (value := self._deciding(line)) is not None]
        if len(values) < 4:
            return None
        step, best = (min if self._lower else max)(values, key=lambda found: found[1])
        since = values[-3:]
        if since[0][0] <= step:
            return None
        limit = best * _WORSE if self._lower else best / _WORSE
        if not all(value > limit if self._lower else value < limit for _, value in since):
            return None
        what = f"{self._metric} was {best:.4g} at step {step}, and {', '.join(f'{v:.4g}' for _, v in since)} lately."
        remedies = [
            "that generator is kept: export RUN/best",
            f"let the rates fall to nothing by then: --set decay_start={step // 2} --set decay_end={step}",
        ]
        if isinstance(self._settings, ImageSettings):
            remedies.append("for few images, show D augmented ones: --set shift=2 --set cutout=0.3")
        return self._finding("past-its-best", "The generator is past its best", what, tuple(remedies))

    # --- what rules look at ------------------------------------------------------------------------------------------

    @property
    def _step(self) -> int:
        step: int = self._window[-1]["step"]
        return step

    @property
    def _full(self) -> bool:
        return len(self._window) >= _LINES and self._step - self._window[0]["step"] >= _STEPS / 2

    def _median(self, name: str) -> float | None:
        values = [line[name] for line in self._window if line.get(name) is not None]
        return median(values) if len(values) >= _LINES // 2 else None

    def _remember(self) -> None:
        """What the windows so far had, for those to come."""
        if not self._full:
            return
        for name in ("diversity", "d_accuracy", "gradient_d", "gradient_g"):
            value = self._median(name)
            if value is None:
                continue
            self._most[name] = max(value, self._most.get(name, 0.0))
            if self._window[0]["step"] <= 2 * _STEPS:
                early = f"early {name}"
                self._most[early] = max(value, self._most.get(early, 0.0))

    def _found(self, line: Line) -> float | None:
        assert self._modes is not None
        figures = {key.partition("[")[0]: value for key, value in line["metrics"].items()}
        dropped = figures.get("dropped_classes")
        value = figures.get("modes_found")
        return value if dropped is None else self._modes - dropped

    @property
    def _draws_well(self) -> bool:
        """Whether the last score is of samples that can be told: most of them on a mode, or the judge quite sure."""
        figures = {key.partition("[")[0]: value for key, value in self._scores[-1]["metrics"].items()}
        quality = figures.get("high_quality", figures.get("quality"))
        return quality is not None and quality >= _WELL

    def _deciding(self, line: Line) -> float | None:
        values = [value for key, value in line["metrics"].items() if key.partition("[")[0] == self._metric]
        return values[0] if values and values[0] is not None and math.isfinite(values[0]) else None

    def _calmer(self) -> tuple[str, ...]:
        s = self._settings
        lower = f"--set generator_lr={s.generator_lr / 4:.1e} --set discriminator_lr={s.discriminator_lr / 4:.1e}"
        remedies = [f"start a new run with lower learning rates: {lower}"]
        if s.objective == "wasserstein" and not s.clip and not s.gradient_penalty:
            remedies.append("a critic needs bounds: --set gradient_penalty=10, or --set clip=0.01")
        if not s.r1 and not s.gradient_penalty and s.objective != "wasserstein":
            remedies.append("a gradient penalty: --set r1=1")
        if s.beta1 >= 0.9 and s.optimiser == "adam":
            remedies.append("less momentum: --set beta1=0.5")
        return tuple(remedies)

    def _finding(self, name: str, title: str, what: str, remedies: tuple[str, ...]) -> Finding:
        return Finding(name, self._step, title, what, remedies)

    def _changed(self, step: int, found: list[Finding]) -> Change:
        began = tuple(finding for finding in found if finding.name not in self._now)
        for finding in found:
            self._now.setdefault(finding.name, finding)
            self._held[finding.name] = 0
        ended = []
        for name in [name for name in self._now if name not in {finding.name for finding in found}]:
            self._held[name] = self._held.get(name, 0) + 1
            if self._held[name] >= len(self._window):
                self._past.append((self._now.pop(name), step))
                ended.append(name)
        return Change(began, tuple(ended))


def _loss_ends(s: TrainingSettings) -> tuple[float, float] | None:
    """D's loss where it is certain, and where it guesses; None where the objective has no such ends."""
    if s.objective in ("non_saturating", "minimax"):
        p = s.real_label
        certain = -p * math.log(p) - (1.0 - p) * math.log(1.0 - p) if p < 1.0 else 0.0
        return certain, 2.0 * math.log(2.0)
    # Least squares guesses with D = 1/2, the relativistic loss with equal logits, hinge with 0.
    return {"least_squares": (0.0, 0.25), "relativistic": (0.0, math.log(2.0)), "hinge": (0.0, 2.0)}.get(s.objective)


def guessing_score(s: TrainingSettings) -> float | None:
    """D's score, minus its loss, where it guesses; None where the objective has no such value."""
    ends = _loss_ends(s)
    return None if ends is None else -ends[1]
