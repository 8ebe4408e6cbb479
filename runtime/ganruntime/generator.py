"""`load` and `Generator`: from a bundle to images."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime import noise
from ganruntime.buckets import Piece, pieces_of
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.choice import BACKENDS, candidates, choose, opened_session
from ganruntime.drawn_rows import DrawnRows
from ganruntime.errors import GanError, InputError
from ganruntime.graph_outputs import GraphOutputs
from ganruntime.heads import bundle_with_output
from ganruntime.piece_runner import PieceRunner
from ganruntime.requests import (
    Request,
    request_from_latents,
    request_from_rows,
    request_from_seed,
    require_count,
    rows_of_pieces,
)
from ganruntime.rows import Rows, given_rows
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sizes import Size, size_of
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from ganruntime.batcher import Batcher

__all__ = ["BACKENDS", "Generator", "candidates", "load"]


def load(
    bundle: Bundle | Path | str,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    *,
    buckets: Sequence[int] | None = None,
    threads: int | None = None,
    streams: int | None = None,
    output: str = "auto",
    tuning: str = "throughput",
) -> Generator:
    """Opens a bundle, loads one of its variants, and warms every batch bucket.

    Args:
        bundle: the folder NAME.gan.
        device: `cpu`, `cuda`, `cuda:N`; `auto` takes a GPU where this backend has one, else the CPU, and
            `Generator.describe()` says which and why. A device that was named is the device that runs, or an error.
        backend: `onnxruntime`, `openvino` or `tensorrt`; `auto` is the first of them that is installed, runs on the
            device and was verified there (`ganruntime.choice`), and `Generator.describe()` says which and why.
        precision: `fp32`, …, or a variant's name; `auto` is the first variant of the backend that was verified.
        buckets: batch sizes to run, instead of 1, 4, 16 and 64 (an engine has its own). One bucket alone makes
            outputs independent of how requests are split.
        threads: compute threads on the CPU; by default as many as affinity and quota allow.
        streams: OpenVINO only: parts of a batch that run at once, each on its share of the threads. 1, the default,
            gives the shortest latency; as many as there are threads often gives the highest throughput.
        output: `float`, a variant whose images leave the graph as values; `uint8`, one whose images leave it as pixels,
            which are the same images; `auto` prefers values (`ganruntime.heads` says why).
        tuning: where backend or precision is `auto`, and `ganexport tune` has measured on this machine, what it found
            is taken: the fastest for `throughput` or for `latency`. Below fp32 it takes nothing, unless a floor was
            given to it. `off` takes no notice of it. `Generator.describe()` says what was taken, or why not.

    Raises:
        BundleError, SpecError: the bundle is missing, malformed or was changed.
        InputError: an argument is not one of the above.
        MissingDependencyError: the backend is not installed; names the extra.
        BackendError: the backend or the device cannot run this bundle.
    """
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    seen = bundle_with_output(opened, output)
    choice = choose(seen, device, backend, precision, threads=threads, streams=streams, tuning=tuning)
    session = opened_session(opened, choice, buckets=buckets)
    generator = Generator(session, why=choice.device_why, backend_why=choice.backend_why, tuning=choice.tuning)
    generator.warm_up()
    return generator


class Generator:
    """Draws images. Image i of seed s is a pure function of (s, i), whatever the batch. Calls may come from any thread.

    Made by `load`, or from a session of your own (`ganruntime.sessions.fake` in tests).
    """

    def __init__(
        self,
        session: Session,
        *,
        why: str = "given",
        backend_why: str = "given",
        tuning: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._why: dict[str, Any] = {"device_chosen_because": why, "backend_chosen_because": backend_why}
        if tuning is not None:
            self._why["tuning"] = dict(tuning)
        self._runner = PieceRunner(session)
        self._drawn = DrawnRows(session.spec)
        self._outputs = GraphOutputs(session, self._runner)
        self._batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()

    @property
    def spec(self) -> GeneratorSpec:
        return self._session.spec

    @property
    def session(self) -> Session:
        return self._session

    def latents(self, n: int, *, seed: int = 0, first: int = 0) -> NDArray[np.float32]:
        """The latents of images `first` … `first + n - 1` of the seed: float32 [n, *shape]."""
        if self.spec.latent is None:
            raise InputError(f"{self.spec.name} takes no latent", got=", ".join(t.name for t in self.spec.inputs))
        return noise.latents(self.spec.latent, seed, first, n)

    def generate(
        self,
        n: int,
        *,
        seed: int = 0,
        first: int = 0,
        truncation: ArrayLike | None = None,
        label: str | int | Sequence[str | int] | None = None,
        **inputs: ArrayLike,
    ) -> NDArray[Any]:
        """Images `first` … `first + n - 1` of the seed.

        Args:
            n: how many; 0 gives an empty array.
            seed, first: in [0, 2⁶⁴).
            truncation: ψ for generators with an input of that name; one number, or one per image.
            label: a class name or index, or one per image, for generators with a label input; drawn from the seed by
                default.
            inputs: any other input by name, [*shape] for all images or [n, *shape]; an image whose height and width
                vary in any size that the spec allows, the same for all n.

        Returns:
            uint8 [n, H, W, C]; for a generator that draws no image, its first output, [n, *shape].

        Raises:
            InputError: an argument does not fit the spec; names the input, what came and what was expected.
            BackendError: the backend failed.
        """
        return self.drawn(request_from_seed(self.spec, n, seed, first, truncation, label, inputs))

    def stream(
        self, n: int, *, seed: int = 0, first: int = 0, chunk_images: int | None = None, **arguments: Any
    ) -> Iterator[NDArray[Any]]:
        """The same images as `generate`, in chunks, in order, in bounded memory.

        Args:
            chunk_images: images per chunk; by default the largest bucket. The last chunk may be smaller. Where the
                session overlaps batches (TensorRT), a few chunks are drawn together, and kept until they are asked for.
            arguments: as for `generate`; per-image arguments are cut along with the chunks.

        Yields:
            uint8 [chunk, H, W, C].
        """
        require_count(n, "n")
        noise.require_range(seed, first, n)
        if chunk_images is not None:
            require_count(chunk_images, "chunk_images", least=1)
        size = chunk_images or self._session.buckets[-1]
        given = given_rows(self.spec, n, arguments.pop("truncation", None), arguments.pop("label", None), arguments)

        def request(start: int) -> Request:
            cut: dict[str, Any] = {name: array[start : start + size] for name, array in given.items()}
            return request_from_seed(self.spec, min(size, n - start), seed, first + start, None, None, cut)

        requests = map(request, range(0, n, size))
        # As many chunks as overlap are drawn before the first of them is handed out: whoever takes it may draw as well,
        # and would wait for a session that is taken.
        together = max(1, self._session.pieces_at_once // -(-size // self._session.buckets[-1]))
        error = None
        while error is None:
            images: deque[NDArray[Any]] = deque()
            try:
                self.draw_each(islice(requests, together), images.append)
            except GanError as caught:
                error = caught  # in its place: after the chunks that were drawn before
            if not images:
                break
            while images:
                yield images.popleft()
        if error is not None:
            raise error

    def __call__(
        self,
        latents: ArrayLike,
        *,
        truncation: ArrayLike | None = None,
        label: str | int | Sequence[str | int] | None = None,
        **inputs: ArrayLike,
    ) -> NDArray[Any]:
        """Images of latents of your own: float32 [n, *shape] (or one latent, [*shape]) to uint8 [n, H, W, C].

        A generator with label or noise inputs needs them given here: there is no seed to draw them from.
        """
        return self.drawn(request_from_latents(self.spec, latents, truncation, label, inputs))

    def draw(self, rows: Rows) -> NDArray[Any]:
        """Images of inputs that are all there: {name: [n, *shape]} for every input, as `ganruntime.noise.inputs` gives.

        `generate` draws its noise itself; this is for callers that draw it ahead of time.
        """
        return self.drawn(request_from_rows(self.spec, rows))

    def draw_each(self, requests: Iterable[Request], put: Callable[[NDArray[Any]], None]) -> None:
        """Draws requests of at least an image, one after the other: the next while the last is still under way, where
        the session can (`Session.lanes`). The images are those of `drawn`.

        Args:
            requests: each is taken when there is a lane for it.
            put: is handed the images of each, in order, when they are there. The session may be taken then: it must not
                wait for anybody who draws.
        """
        if self._session.lanes == 1:
            for request in requests:
                put(self.drawn(request))
            return
        self._runner.require_own_process()
        coming: deque[tuple[NDArray[Any], bool]] = deque()

        def pieces_of_each(alike: Iterable[tuple[Size | None, Request]]) -> Iterator[tuple[Piece, Rows]]:
            for size, request in alike:
                result = self._drawn.empty(request.n, size)
                pieces = pieces_of(request.n, self._session.buckets)
                for piece, rows in rows_of_pieces(self.spec, request.rows, pieces):
                    coming.append((result, piece is pieces[-1]))
                    yield piece, rows

        def put_piece(piece: Piece, outputs: Arrays) -> None:
            result, is_last = coming.popleft()
            self._drawn.put(piece, outputs, result)
            if is_last:
                put(result)

        sized = ((size_of(self.spec, request.given), request) for request in requests)
        for size, alike in groupby(sized, key=itemgetter(0)):
            self._runner.run(pieces_of_each(alike), size, put_piece)

    def drawn(self, request: Request) -> NDArray[Any]:
        """The images of a request that was checked when it was made (`ganruntime.requests`)."""
        size = size_of(self.spec, request.given)
        result = self._drawn.empty(request.n, size)
        self._runner.require_own_process()
        pieces = rows_of_pieces(self.spec, request.rows, pieces_of(request.n, self._session.buckets))
        self._runner.run(pieces, size, lambda piece, outputs: self._drawn.put(piece, outputs, result))
        return result

    def outputs(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Every output as the graph gives it, in the output's own range: `Generator.spec` says dtype, layout and range.

        Images are values, unless the variant that is loaded gives pixels (`load(output="uint8")`): then uint8
        [n, H, W, C].

        Args:
            inputs: {name: [n, *shape]} for every input.

        Returns:
            {name: [n, *shape]} for every output.
        """
        return self._outputs.of(inputs)

    def batcher(self, *, max_delay_ms: float = 2.0, max_queue_images: int = 1024) -> Batcher:
        """A batcher over this generator, for services: many small requests from any thread, run in full batches.

        Args:
            max_delay_ms: how long a request may wait for company while the device is free.
            max_queue_images: images that may wait; more are refused with `Overloaded`.
        """
        from ganruntime.batcher import Batcher

        self._runner.require_own_process()
        batcher = Batcher(self, max_delay_ms=max_delay_ms, max_queue_images=max_queue_images)
        self._batchers.add(batcher)
        return batcher

    def warm_up(self) -> None:
        """Runs every bucket once, so that no request pays for a first run; where height and width vary, at the sizes
        that the session names (`Session.warm_sizes`)."""
        self._runner.warm_up()

    def describe(self) -> dict[str, Any]:
        """What runs where, and why the device and the backend were chosen, as plain data.

        `tuning` says whether the bundle's record of what is fastest on this machine was used, when it was made and what
        it measured, or why it was not.
        """
        return {"generator": self.spec.name} | self._session.describe() | self._why

    def close(self) -> None:
        """Drains the batchers over this generator, and frees what the backend holds. Calling it twice is harmless."""
        if not self._runner.is_in_own_process:
            return
        for batcher in list(self._batchers):
            batcher.close()
        self._runner.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
