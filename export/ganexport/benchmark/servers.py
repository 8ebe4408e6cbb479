"""Servers for the server scenario: the batcher, and the plain way, one call a request with a lock. Both give pixels."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.benchmark.runtime_contenders import Runtime, latents_and_others
from ganexport.parity import Floors
from ganruntime.generator import Generator
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec

Images = NDArray[Any]
MAX_QUEUE_IMAGES = 16_384  # a trial ends long before that many wait
_HANDLERS = 8


class Server(ABC):
    """What takes requests of one image each.

    Attributes:
        name, label: of the contender that it serves.
        includes: what a latency of it is the latency of.
    """

    name: str
    label: str
    includes: str
    floors: Floors | None

    @abstractmethod
    def submit(self, inputs: Arrays) -> Future[Images]:
        """{input: [1, *shape]} to a future of uint8 [1, H, W, C]. Raises `Overloaded`."""

    def images_per_batch(self) -> float:
        """On average since the last call."""
        return 1.0

    @abstractmethod
    def close(self) -> None:
        """Returns when nothing runs any more."""


class BatcherServer(Server):
    """`Generator.batcher`."""

    def __init__(self, contender: Runtime, max_delay_ms: float) -> None:
        spec = contender.generator.spec
        assert spec.latent is not None
        self.name, self.label, self.floors = contender.name, f"{contender.label}, batcher", contender.floors
        self.includes = (
            "from the scheduled time to the uint8 image [1, H, W, C] in host memory: "
            f"Generator.batcher(max_delay_ms={max_delay_ms:g}).submit(latent), until the future is done"
        )
        self._latent = spec.latent.name
        self._batcher = contender.generator.batcher(max_delay_ms=max_delay_ms, max_queue_images=MAX_QUEUE_IMAGES)
        self._before = self._batcher.stats()

    def submit(self, inputs: Arrays) -> Future[Images]:
        latents, others = latents_and_others(inputs, self._latent)
        return self._batcher.submit(latents, **others)

    def images_per_batch(self) -> float:
        before, self._before = self._before, self._batcher.stats()
        batches = self._before.batches - before.batches
        return (self._before.images - before.images) / batches if batches else 0.0

    def close(self) -> None:
        self._batcher.close(drain=False)


class LockedServer(Server):
    """One call of the backend a request, from a pool of threads that take turns with a lock: what a service does that
    embeds a session without a batcher."""

    def __init__(self, contender: Contender, spec: GeneratorSpec) -> None:
        self.name, self.label, self.floors = contender.name, f"{contender.label}, lock", contender.floors
        self.includes = (
            f"from the scheduled time to the uint8 image [1, H, W, C] in host memory: a pool of {_HANDLERS} threads, a "
            "lock, one call of batch 1, and the image's conversion to pixels outside of the lock"
        )
        assert spec.image is not None
        self._contender, self._image = contender, spec.image
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_HANDLERS, thread_name_prefix=f"server of {contender.name}")

    def submit(self, inputs: Arrays) -> Future[Images]:
        return self._pool.submit(self._handle, inputs)

    def _handle(self, inputs: Arrays) -> Images:
        with self._lock:
            output = self._contender.run(inputs)[self._image.name]
        return output if self._contender.gives_pixels else uint8_from_output(output, self._image)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def servers_for(contenders: Sequence[Contender], spec: GeneratorSpec, max_delay_ms: float) -> list[Server]:
    """Each generator of ours behind a batcher, each plain backend behind a lock. PyTorch is left out."""
    servers: list[Server] = []
    seen: set[Generator] = set()
    for contender in contenders:
        if isinstance(contender, Runtime):
            if contender.generator not in seen:  # one contender to floats and one to pixels have the same batcher
                servers.append(BatcherServer(contender, max_delay_ms))
            seen.add(contender.generator)
        elif contender.family == "plain":
            servers.append(LockedServer(contender, spec))
    return servers
