"""A public fake, for tests of code that embeds the runtime: real batching, real noise, and no network."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ganruntime.bundle.manifest import Variant
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.spec import GeneratorSpec, Image


class FakeSession(Session):
    """Draws each row in one flat colour, a function of that row's inputs alone.

    A row's value is the mean of its floating inputs folded into the output's range, so that equal latents give equal
    images, different latents different ones, and a row that is mixed up with another is found.

    Attributes:
        batches: the batch size of every run so far.
        fail_on: runs (counted from 0) that raise `BackendError`.
    """

    backend: ClassVar[str] = "fake"

    def __init__(
        self, spec: GeneratorSpec, buckets: tuple[int, ...] = (1, 4, 16, 64), fail_on: frozenset[int] = frozenset()
    ) -> None:
        super().__init__(spec, Variant("fake", "fp32", "onnx", "model.onnx"), "cpu", buckets)
        self.batches: list[int] = []
        self.fail_on = fail_on
        self._closed = False

    def run(self, inputs: Arrays, out: Arrays) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        batch = len(next(iter(inputs.values())))
        if batch not in self.buckets:
            raise BackendError("the batch is not a bucket", got=batch, expected=self.buckets)
        self.batches.append(batch)
        if len(self.batches) - 1 in self.fail_on:
            raise BackendError("the fake was told to fail", got=f"run {len(self.batches) - 1}")
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
