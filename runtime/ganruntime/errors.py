"""Every error that ganexport raises on purpose.

GanError
├── SpecError (ValueError)             a generator spec is malformed
├── InputError (ValueError)            an argument, latent or option does not fit
├── DataError                          training data cannot be used
├── TrainingError                      training cannot go on: it has diverged
├── CheckpointError                    a checkpoint cannot be read, or does not match
├── BundleError
│   ├── BundleFormatError              the manifest is not one, or is of a newer schema
│   └── BundleIntegrityError           a file is missing, edited, truncated, linked or outside the bundle
├── ExportError                        a graph cannot be made
│   └── ParityError                    a graph was made, and does not compute what the network computes
├── MissingDependencyError (ImportError)   a package is not installed; names the extra
├── BackendError                       a backend cannot do what was asked
│   ├── DeviceError                    the device that was asked for is not there
│   └── EngineError                    an engine cannot be built, or was built for other hardware or versions
├── OutputError (OSError)              what was made could not be written
├── Overloaded                         a batcher's queue is full; says when to come back
├── DeadlineExceeded (TimeoutError)    a request's time ran out before its images were drawn
└── BatcherClosed                      a batcher takes no more requests
"""

from __future__ import annotations


class GanError(Exception):
    """Base of the tree. Says what is wrong, and where known what came, what was expected, and the remedy.

    Args:
        problem: the subject and what is wrong with it, one sentence without a full stop.
        got: what came.
        expected: what would have been right.
        remedy: what to do, a command where there is one.
    """

    def __init__(
        self,
        problem: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.got = got
        self.expected = expected
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.remedy is not None:
            lines.append(f"  remedy:   {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive BaseException's own pickling, and errors cross process boundaries.
        return _rebuild, (type(self), self.problem, self.got, self.expected, self.remedy)


def _rebuild(cls: type[GanError], problem: str, got: object, expected: object, remedy: str | None) -> GanError:
    return cls(problem, got=got, expected=expected, remedy=remedy)


class SpecError(GanError, ValueError):
    """A generator spec is malformed."""


class InputError(GanError, ValueError):
    """An argument, latent or option does not fit."""


class DataError(GanError):
    """Training data cannot be used."""


class TrainingError(GanError):
    """Training cannot go on: it has diverged. The last good checkpoint is kept."""


class CheckpointError(GanError):
    """A checkpoint cannot be read, or does not match what it is read for."""


class BundleError(GanError):
    """A bundle cannot be used."""


class BundleFormatError(BundleError):
    """The manifest is not one, or is of a newer schema."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, edited, truncated, linked or outside the bundle."""


class ExportError(GanError):
    """A graph cannot be made."""


class ParityError(ExportError):
    """A graph was made, and does not compute what the network computes."""


class MissingDependencyError(GanError, ImportError):
    """A package is not installed. The remedy names the extra that brings it."""


class BackendError(GanError):
    """A backend cannot do what was asked."""


class DeviceError(BackendError):
    """The device that was asked for is not there, or the backend does not run on it."""


class EngineError(BackendError):
    """An engine cannot be built, or was built for other hardware or versions."""


class OutputError(GanError, OSError):
    """What was made could not be written."""


class Overloaded(GanError):
    """A batcher's queue is full: nothing was queued. HTTP calls it 429, with `Retry-After`.

    Attributes:
        retry_after_s: when there should be room, at the pace of late.
    """

    def __init__(
        self,
        problem: str,
        *,
        retry_after_s: float = 1.0,
        got: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(problem, got=got, expected=expected, remedy=remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_overloaded, (self.problem, self.retry_after_s, self.got, self.expected, self.remedy)


def _rebuild_overloaded(
    problem: str, retry_after_s: float, got: object, expected: object, remedy: str | None
) -> Overloaded:
    return Overloaded(problem, retry_after_s=retry_after_s, got=got, expected=expected, remedy=remedy)


class DeadlineExceeded(GanError, TimeoutError):
    """A request's time ran out before its images were drawn."""


class BatcherClosed(GanError):
    """A batcher takes no more requests, or was closed before this one was drawn."""
