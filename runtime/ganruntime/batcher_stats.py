"""The counters of a batcher: how full its batches are, why each was released, and where the time goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ganruntime.batcher_queue import REASONS


@dataclass(frozen=True)
class BatcherStats:
    """What a batcher has done so far, in one consistent view.

    Attributes:
        submitted: requests that were queued; each ends in one of the next four.
        completed, failed, cancelled, expired: requests by their end.
        refused: requests that were not queued (`Overloaded`).
        retried: requests that were run again alone, after a batch of several had failed.
        batches: how many ran; `images` rows of them were asked for, and `padding` rows filled buckets up.
        released: batches by reason: `full`, `drain`, `delay`, `idle`.
        mean_wait_ms, max_wait_ms: from submit to the start of the first batch with rows of the request.
        compute_ms: time inside batches, in total.
        queue_requests, queue_images: what waits at this moment.
    """

    submitted: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    retried: int
    batches: int
    images: int
    padding: int
    released: dict[str, int]
    mean_wait_ms: float
    max_wait_ms: float
    compute_ms: float
    queue_requests: int
    queue_images: int

    @property
    def images_per_batch(self) -> float:
        return self.images / self.batches if self.batches else 0.0

    @property
    def fill(self) -> float:
        """The share of computed rows that somebody asked for, in [0, 1]; 1 where nothing ran."""
        computed = self.images + self.padding
        return self.images / computed if computed else 1.0

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data, for a health or metrics page."""
        return asdict(self) | {"images_per_batch": self.images_per_batch, "fill": self.fill}


@dataclass
class Counters:
    """The same while it changes; guarded by the batcher's lock."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0
    retried: int = 0
    batches: int = 0
    images: int = 0
    padding: int = 0
    released: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    waits: int = 0
    wait_s: float = 0.0
    max_wait_s: float = 0.0
    compute_s: float = 0.0

    def waited(self, seconds: float) -> None:
        self.waits += 1
        self.wait_s += seconds
        self.max_wait_s = max(self.max_wait_s, seconds)

    def snapshot(self, queue_requests: int, queue_images: int) -> BatcherStats:
        return BatcherStats(
            submitted=self.submitted,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            expired=self.expired,
            refused=self.refused,
            retried=self.retried,
            batches=self.batches,
            images=self.images,
            padding=self.padding,
            released=dict(self.released),
            mean_wait_ms=1e3 * self.wait_s / self.waits if self.waits else 0.0,
            max_wait_ms=1e3 * self.max_wait_s,
            compute_ms=1e3 * self.compute_s,
            queue_requests=queue_requests,
            queue_images=queue_images,
        )
