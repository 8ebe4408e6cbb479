"""What stands in for the observers in every process but the first, which alone logs, scores and shows."""

from __future__ import annotations

from types import TracebackType

from gantrain.progress import StepReport


class Unobserved:
    """Takes what `gantrain.observers.Observers` takes, and does nothing with it."""

    def __enter__(self) -> Unobserved:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def scores(self, step: int) -> bool:
        return False

    def score(self) -> None:
        return None

    def report(self, report: StepReport, to_log: bool) -> None:
        pass

    def saved(self) -> None:
        pass
