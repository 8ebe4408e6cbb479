"""`load` and `Generator`: from a bundle to images."""

from __future__ import annotations

import os
import threading
import weakref
from collections import abc, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime import noise
from ganruntime.buckets import Piece, pieces_of
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.choice import BACKENDS, candidates, choose, opened_session
from ganruntime.errors import BackendError, InputError
from ganruntime.heads import bundle_with_output
from ganruntime.images import uint8_from_output
from ganruntime.requests import Request, request_from_latents, request_from_seed, require_count, rows_of_pieces
from ganruntime.rows import Rows, given_rows, padded_rows, require_all
from ganruntime.sessions.base import Arrays, Session, empty_outputs, fixed_shape
from ganruntime.sizes import Size, size_of, spec_at
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from ganruntime.batcher import Batcher

__all__ = ["BACKENDS", "Generator", "candidates", "load"]

_SIZES_KEPT = 4  # of the last sizes, outputs are kept to be filled again; a service that sees every size holds no more


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
        self._lock = threading.Lock()
        self._outputs: dict[tuple[int, Size | None], Rows] = {}
        self._pid = os.getpid()
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
            chunk_images: images per chunk; by default the largest bucket. The last chunk may be smaller.
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
        for start in range(0, n, size):
            count = min(size, n - start)
            cut: dict[str, Any] = {name: array[start : start + count] for name, array in given.items()}
            yield self.generate(count, seed=seed, first=first + start, **cut)

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
        rows = given_rows(self.spec, len(next(iter(rows.values()), ())), None, None, rows)
        require_all(self.spec, rows)
        result = self._empty_result(len(rows[self.spec.inputs[0].name]), size_of(self.spec, rows))
        self._fill(result, lambda start, count: {k: v[start : start + count] for k, v in rows.items()})
        return result

    def drawn(self, request: Request) -> NDArray[Any]:
        """The images of a request that was checked when it was made (`ganruntime.requests`)."""
        result = self._empty_result(request.n, size_of(self.spec, request.given))
        self._fill(result, request.rows)
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
        counts = {name: np.shape(array)[0] if np.ndim(array) else 0 for name, array in inputs.items()}
        n = next(iter(counts.values()), 0)
        rows = given_rows(self.spec, n, None, None, inputs)
        require_all(self.spec, rows)
        results: dict[str, NDArray[Any]] = empty_outputs(spec_at(self.spec, size_of(self.spec, rows)), n)
        self._require_own_process()
        pieces = pieces_of(n, self._session.buckets)
        cut = ((p, {k: v[p.start : p.start + p.rows] for k, v in rows.items()}) for p in pieces)
        with self._lock, closing(self._ran(cut)) as ran:
            for piece, out in ran:
                for name, array in out.items():
                    results[name][piece.start : piece.start + piece.rows] = array[: piece.rows]
        return results

    def batcher(self, *, max_delay_ms: float = 2.0, max_queue_images: int = 1024) -> Batcher:
        """A batcher over this generator, for services: many small requests from any thread, run in full batches.

        Args:
            max_delay_ms: how long a request may wait for company while the device is free.
            max_queue_images: images that may wait; more are refused with `Overloaded`.
        """
        from ganruntime.batcher import Batcher

        self._require_own_process()
        batcher = Batcher(self, max_delay_ms=max_delay_ms, max_queue_images=max_queue_images)
        self._batchers.add(batcher)
        return batcher

    def warm_up(self) -> None:
        """Runs every bucket once, so that no request pays for a first run; where height and width vary, at the sizes
        that the session names (`Session.warm_sizes`)."""
        for size in self._session.warm_sizes:
            spec = spec_at(self.spec, size)
            for bucket in self._session.buckets:
                rows = noise.inputs(spec, 0, 0, bucket)
                for tensor in spec.inputs:
                    if tensor.name not in rows:
                        rows[tensor.name] = np.zeros((bucket, *(d or 64 for d in tensor.shape)), tensor.dtype)
                with self._lock:
                    self._session.run(*self._arrays(rows, bucket))

    def describe(self) -> dict[str, Any]:
        """What runs where, and why the device and the backend were chosen, as plain data.

        `tuning` says whether the bundle's record of what is fastest on this machine was used, when it was made and what
        it measured, or why it was not.
        """
        return {"generator": self.spec.name} | self._session.describe() | self._why

    def close(self) -> None:
        """Drains the batchers over this generator, and frees what the backend holds. Calling it twice is harmless."""
        if os.getpid() != self._pid:
            return
        for batcher in list(self._batchers):
            batcher.close()
        with self._lock:
            self._session.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _empty_result(self, n: int, size: Size | None) -> NDArray[Any]:
        spec = spec_at(self.spec, size)
        image = spec.image
        shape, dtype = fixed_shape(image or spec.outputs[0]), spec.outputs[0].dtype
        if image is not None:
            planes_first = image.role.layout == "CHW"  # type: ignore[attr-defined]
            shape, dtype = shape[1:] + shape[:1] if planes_first else shape, "uint8"
        try:
            return np.empty((n, *shape), dtype)
        except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address has bits
            raise InputError(
                f"{n:,} outputs do not fit the memory", got=str(error), remedy="Generator.stream gives them in chunks"
            ) from error

    def _require_own_process(self) -> None:
        # A forked process has the memory of a backend's thread pool and none of its threads: it would hang.
        if os.getpid() != self._pid:
            raise BackendError(
                "the generator was loaded in another process",
                got=f"process {os.getpid()}",
                expected=f"process {self._pid}",
                remedy="load the bundle in each process, after the fork",
            )

    def _fill(self, result: NDArray[Any], rows_of: Callable[[int, int], Rows]) -> None:
        self._require_own_process()
        image = self.spec.image
        tensor = image or self.spec.outputs[0]
        pieces = rows_of_pieces(self.spec, rows_of, pieces_of(len(result), self._session.buckets))
        # The noise of the first piece is drawn before the lock is taken, that of the next ones while the session runs.
        while (first := next(pieces, None)) is not None:
            group = chain((first,), islice(pieces, self._session.pieces_at_once - 1))
            with self._lock, closing(self._ran(group)) as ran:
                for piece, out in ran:
                    target, output = result[piece.start : piece.start + piece.rows], out[tensor.name][: piece.rows]
                    if image is not None:
                        uint8_from_output(output, image, out=target)
                    else:
                        np.copyto(target, output)

    def _ran(self, pieces: Iterable[tuple[Piece, Rows]]) -> abc.Generator[tuple[Piece, Arrays], None, None]:
        """Runs pieces, and yields each with its outputs, which hold until the next is asked for. Under the lock."""
        if self._session.pieces_at_once == 1:  # nothing overlaps: the way without a queue
            for piece, rows in pieces:
                inputs, filled = self._arrays(rows, piece.bucket)
                self._session.run(inputs, filled)
                yield piece, filled
            return
        given: deque[Piece] = deque()

        def arrays() -> Iterator[tuple[Rows, Rows]]:
            for piece, rows in pieces:
                given.append(piece)
                yield self._arrays(rows, piece.bucket)

        with closing(self._session.run_many(arrays())) as outputs:
            for out in outputs:
                yield given.popleft(), out

    def _arrays(self, rows: Rows, bucket: int) -> tuple[Rows, Rows]:
        """(rows padded to the bucket, arrays for what comes of them, which every piece of that bucket shares)."""
        size = size_of(self.spec, rows)
        out = self._outputs.get((bucket, size))
        if out is None:
            sizes = list(dict.fromkeys(kept for _, kept in self._outputs))
            if len(sizes) >= _SIZES_KEPT and size not in sizes:
                self._outputs = {key: value for key, value in self._outputs.items() if key[1] != sizes[0]}
            out = self._outputs[bucket, size] = empty_outputs(spec_at(self.spec, size), bucket)
        return {t.name: padded_rows(rows[t.name], bucket, t.dtype) for t in self.spec.inputs}, out
