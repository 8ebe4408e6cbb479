"""What a backend is: a fixed set of batch sizes, and a way to run one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle.manifest import Variant
from ganruntime.errors import BackendError, InputError
from ganruntime.sizes import Size, default_size
from ganruntime.spec import GeneratorSpec, TensorSpec, pixel_spec

Arrays = Mapping[str, NDArray[np.generic]]


class Session(ABC):
    """A loaded variant. Not thread-safe: one thread runs at a time; a batcher or a pool owns it.

    Attributes:
        contract: the generator's own spec, the bundle's.
        spec: what this variant takes and gives: the contract, but for images that a variant gives as pixels, uint8
            [H, W, C] in [0, 255].
        variant: what is loaded.
        device: where it runs, such as `cpu` or `cuda:0`.
        buckets: the batch sizes that `run` takes, ascending.
    """

    backend: ClassVar[str] = ""
    lanes: int = 1  # how many pieces `run_many` has under way at once
    pieces_at_once: int = 1  # how many it is given at a time, before others that wait for the session have their turn

    def __init__(self, spec: GeneratorSpec, variant: Variant, device: str, buckets: tuple[int, ...]) -> None:
        for tensor in (*spec.inputs, *spec.outputs):
            if tensor.dtype == "bfloat16":  # NumPy has no such dtype; a bf16 graph takes and gives float32
                raise BackendError(f"{tensor.name!r} is bfloat16, which the runtime cannot hold", expected="float32")
        self.contract = spec
        self.spec = pixel_spec(spec) if variant.output == "uint8" else spec
        self.variant = variant
        self.device = device
        self.buckets = buckets

    @abstractmethod
    def run(self, inputs: Arrays, out: Arrays) -> None:
        """Runs one batch.

        Args:
            inputs: {name: [b, *shape]} for every input of the spec, C-contiguous, in its dtype, b in `buckets`; where
                height and width vary, in one size that fits.
            out: {name: [b, *shape]} for every output of the spec, C-contiguous, in its dtype, at the size that follows
                (`ganruntime.sizes.spec_at`); filled.

        Raises:
            BackendError: the backend failed; the cause is chained.
        """

    def prepared(self, inputs: Arrays, out: Arrays) -> Callable[[], None]:
        """A call that runs these arrays as `run` does, with what they hold when it is made.

        For callers that fill the same arrays again and again: what a backend has to find out about them, it finds out
        once. The arrays live as long as the call.
        """
        return lambda: self.run(inputs, out)

    def run_many(self, pieces: Iterable[tuple[Arrays, Arrays]]) -> Generator[Arrays, None, None]:
        """Runs batches, each (inputs, out) as for `run`, and yields each one's `out` when it is filled, in order.

        What is yielded holds until the next is asked for, so that pieces may share their arrays. A backend that can
        runs a piece while it prepares the next ones; closing the iterator early waits for what is under way.
        """
        for inputs, out in pieces:
            self.run(inputs, out)
            yield out

    @property
    def warm_sizes(self) -> tuple[Size | None, ...]:
        """Where height and width vary, the sizes that a warm-up runs; (None,) elsewhere."""
        return (default_size(self.spec),)

    def takes(self, size: Size | None) -> bool:
        """Whether images of this size, which fits the spec, can be run here: an engine is built for a range of them."""
        return True

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of what runs here, for verdicts and benchmarks."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the backend holds. Calling it twice is harmless; running afterwards is a `BackendError`."""

    def describe(self) -> dict[str, Any]:
        """What runs where, as plain data."""
        return {
            "backend": self.backend,
            "device": self.device,
            "variant": self.variant.name,
            "precision": self.variant.precision,
            "buckets": list(self.buckets),
            "versions": self.versions(),
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def empty_outputs(spec: GeneratorSpec, batch: int) -> dict[str, NDArray[np.generic]]:
    """{output name: [batch, *shape]} to fill. Raises `InputError` where memory does not hold them."""
    try:
        return {t.name: np.empty((batch, *fixed_shape(t)), t.dtype) for t in spec.outputs}
    except (MemoryError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the outputs of a batch of {batch} do not fit the memory", got=str(error), remedy="choose smaller buckets"
        ) from error


def fixed_shape(tensor: TensorSpec) -> tuple[int, ...]:
    """The shape without the batch. Raises `InputError` where a dimension varies."""
    shape = tuple(d for d in tensor.shape if d is not None)
    if len(shape) != len(tensor.shape):
        raise InputError(f"{tensor.name!r} has dimensions that vary", got=list(tensor.shape), expected="a fixed shape")
    return shape
