"""What a batcher has promised: a request, the future of its images, and those that are drawn already."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.batcher_queue import Part
from ganruntime.requests import Request

Images = NDArray[Any]


@dataclass(eq=False)
class Job:
    """A request on its way: its inputs, its future, and its images as far as they are drawn."""

    request: Request
    future: Future[Images] = field(default_factory=Future)
    images: Images | None = None
    # Whether the future was told that it runs, or that its cancellation was seen. To be said once.
    is_settled: bool = False

    def fill(self, part: Part, images: Images, is_alone: bool) -> Images:
        """Keeps the images of a part, and gives what is there by then; `is_alone` where they are the whole batch."""
        if part.rows == part.ticket.rows:
            # A copy of its own: a view would keep the whole batch in memory for as long as the caller keeps one image.
            self.images = images if is_alone else images.copy()
            return self.images
        if self.images is None:
            self.images = np.empty((part.ticket.rows, *images.shape[1:]), images.dtype)
        self.images[part.start : part.start + part.rows] = images
        return self.images


def request_of_parts(parts: Sequence[Part]) -> Request:
    """One request of the rows of all parts, in their order."""
    requests: list[tuple[Request, Part]] = [(part.ticket.payload.request, part) for part in parts]
    if len(parts) == 1 and parts[0].rows == parts[0].ticket.rows:
        return requests[0][0]
    rows = [request.rows(part.start, part.rows) for request, part in requests]
    joined = rows[0] if len(rows) == 1 else {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    return Request(requests[0][0].spec, sum(p.rows for p in parts), joined)
