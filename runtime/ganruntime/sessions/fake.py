"""A public fake, for tests of code that embeds the runtime: real batching, real noise, and no network.

from ganruntime.sessions.fake import fake_generator

generator = fake_generator(fail_on={2})                       # its third batch raises BackendError
images = generator.generate(16, seed=7)                       # uint8 [16, 8, 8, 3], the same in every run
"""

from __future__ import annotations

import time
from collections import abc, deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganruntime.bundle.manifest import Variant
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

if TYPE_CHECKING:
    from ganruntime.generator import Generator


class FakeSession(Session):
    """Draws each row in one flat colour, a function of that row's inputs alone.

    A row's value is the mean of its floating inputs folded into the output's range, so that equal latents give equal
    images, different latents different ones, and a row that is mixed up with another is found.

    Attributes:
        batches: the batch size of every run so far, those that failed too.
        fail_on: runs (counted from 0) that raise `BackendError`.
        fail_when: told a run's inputs, {name: [b, *shape]}; where it says true the run raises `BackendError`, and where
            it raises, that is what the run raises. For rows that poison their batch.
        seconds, seconds_per_row: how long a run takes, asleep, as a device would be busy.
        lanes: batches that `run_many` has under way at once, as a GPU's session has.
    """

    backend: ClassVar[str] = "fake"

    def __init__(
        self,
        spec: GeneratorSpec,
        buckets: tuple[int, ...] = (1, 4, 16, 64),
        fail_on: Collection[int] = frozenset(),
        *,
        fail_when: Callable[[Arrays], object] | None = None,
        seconds: float = 0.0,
        seconds_per_row: float = 0.0,
        lanes: int = 1,
    ) -> None:
        super().__init__(spec, Variant("fake", "fp32", "onnx", "model.onnx"), "cpu", buckets)
        self.batches: list[int] = []
        self.fail_on = fail_on
        self.fail_when = fail_when
        self.seconds = seconds
        self.seconds_per_row = seconds_per_row
        self.lanes, self.pieces_at_once = lanes, 1 if lanes == 1 else 4 * lanes
        self._closed = False

    def run_many(self, pieces: Iterable[tuple[Arrays, Arrays]]) -> abc.Generator[Arrays, None, None]:
        """As `Session.run_many`: inputs are read when a piece is put on its lane, outputs filled when it is taken."""
        under_way: deque[tuple[Arrays, Arrays]] = deque()
        for inputs, out in pieces:
            if len(under_way) == self.lanes:
                yield self._taken(*under_way.popleft())
            under_way.append(({name: array.copy() for name, array in inputs.items()}, out))
        while under_way:
            yield self._taken(*under_way.popleft())

    def _taken(self, inputs: Arrays, out: Arrays) -> Arrays:
        self.run(inputs, out)
        return out

    def run(self, inputs: Arrays, out: Arrays) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        batch = len(next(iter(inputs.values())))
        if batch not in self.buckets:
            raise BackendError("the batch is not a bucket", got=batch, expected=self.buckets)
        self.batches.append(batch)
        if self.seconds or self.seconds_per_row:
            time.sleep(self.seconds + batch * self.seconds_per_row)
        if len(self.batches) - 1 in self.fail_on:
            raise BackendError("the fake was told to fail", got=f"run {len(self.batches) - 1}")
        if self.fail_when is not None and self.fail_when(inputs):
            raise BackendError("the fake was told to fail", got="inputs that it was told to fail on")
        rows = np.zeros(batch)
        for array in inputs.values():
            rows += array.reshape(batch, -1).astype(np.float64).mean(axis=1)
        for tensor in self.spec.outputs:
            low, high = tensor.role.range if isinstance(tensor.role, Image) else (0.0, 1.0)
            values = low + (high - low) * (rows * 7.0 % 1.0)
            array = out[tensor.name]
            np.copyto(array, values.reshape(batch, *[1] * (array.ndim - 1)), casting="unsafe")

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}

    def close(self) -> None:
        self._closed = True


def fake_generator(spec: GeneratorSpec | None = None, **arguments: Any) -> Generator:
    """A generator over a `FakeSession`: everything that a loaded one has, the batcher included.

    Args:
        spec: what it takes and gives, such as `read_bundle(path).spec`; by default a latent of 8 to RGB of 8 × 8.
        arguments: those of `FakeSession`.
    """
    from ganruntime.generator import Generator

    default = GeneratorSpec(
        "fake",
        (TensorSpec("z", "float32", (8,), Latent()),),
        (TensorSpec("image", "float32", (3, 8, 8), Image()),),
    )
    return Generator(FakeSession(spec or default, **arguments))
