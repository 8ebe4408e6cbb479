"""`load` and `Generator`: from a bundle to images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime import noise
from ganruntime.buckets import DEFAULT_BUCKETS, checked_buckets, pieces_of
from ganruntime.bundle import Bundle, Variant, read_bundle
from ganruntime.errors import BackendError, InputError
from ganruntime.images import uint8_from_output
from ganruntime.rows import Rows, given_rows, padded_rows, require_all
from ganruntime.sessions.base import Session, empty_outputs, fixed_shape
from ganruntime.spec import GeneratorSpec, Scalar

BACKENDS = ("auto", "onnxruntime", "tensorrt")


def load(
    bundle: Bundle | Path | str,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    *,
    buckets: Sequence[int] | None = None,
    threads: int | None = None,
) -> Generator:
    """Opens a bundle, loads one of its variants, and warms every batch bucket.

    Args:
        bundle: the folder NAME.gan.
        device: `cpu`, `cuda`, `cuda:N`; `auto` takes a GPU where this backend has one, else the CPU, and
            `Generator.describe()` says which and why. A device that was named is the device that runs, or an error.
        backend: `onnxruntime` or `tensorrt`; `auto` is `onnxruntime`.
        precision: `fp32`, …, or a variant's name; `auto` is the first variant of the backend that was verified.
        buckets: batch sizes to run, instead of 1, 4, 16 and 64 (an engine has its own). One bucket alone makes
            outputs independent of how requests are split.
        threads: compute threads on the CPU; by default as many as affinity and quota allow.

    Raises:
        BundleError, SpecError: the bundle is missing, malformed or was changed.
        InputError: an argument is not one of the above.
        MissingDependencyError: the backend is not installed; names the extra.
        BackendError: the backend or the device cannot run this bundle.
    """
    if backend not in BACKENDS:
        raise InputError(f"{backend!r} is not a backend", expected=", ".join(BACKENDS))
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    sizes = checked_buckets(buckets) if buckets is not None else None
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise InputError("threads is not a count", got=repr(threads), expected="an integer >= 1")
    if backend == "tensorrt":
        from ganruntime.sessions.tensorrt import TensorRTSession, first_that_fits

        engines = candidates(opened, "tensorrt", precision)
        gpu = "cuda:0" if device == "auto" else device
        session: Session = TensorRTSession(opened, first_that_fits(engines, gpu), gpu, sizes)
        why = "asked for" if device != "auto" else "engines run on the GPU"
    else:
        from ganruntime.sessions.onnxruntime import OnnxRuntimeSession, best_device

        variant = candidates(opened, "onnx", precision)[0]
        chosen, why = best_device() if device == "auto" else (device, "asked for")
        session = OnnxRuntimeSession(
            opened.spec,
            variant,
            opened.graph(variant),
            device=chosen,
            buckets=sizes or DEFAULT_BUCKETS,
            threads=threads,
            where=str(opened.path / variant.file),
        )
    generator = Generator(session, why=why)
    generator.warm_up()
    return generator


def candidates(bundle: Bundle, format: str, precision: str) -> list[Variant]:
    """The variants that may be loaded, best first: the one of that name, else those of that precision, verified first.

    An unverified or failed one is never among them unless it is asked for by name or precision.

    Raises:
        BackendError: `auto`, and none is verified.
        InputError: none has that name or precision.
    """
    variants = [v for v in bundle.manifest.variants if v.format == format]
    listed = ", ".join(f"{v.name} ({v.status})" for v in variants) or "none"
    if precision == "auto":
        verified = [v for v in variants if v.status == "verified"]
        if not verified:
            remedy = f"ganexport verify {bundle.path}" if format == "onnx" else f"ganexport to-trt {bundle.path}"
            raise BackendError(f"{bundle.path} has no verified {format} variant", got=listed, remedy=remedy)
        return verified
    named = [v for v in variants if v.name == precision]
    named = named or sorted((v for v in variants if v.precision == precision), key=lambda v: v.status != "verified")
    if not named:
        remedy = f"ganexport inspect {bundle.path}"
        raise InputError(f"{bundle.path} has no {format} variant {precision!r}", got=listed, remedy=remedy)
    return named


class Generator:
    """Draws images. Image i of seed s is a pure function of (s, i), whatever the batch. Calls may come from any thread.

    Made by `load`, or from a session of your own (`ganruntime.sessions.fake` in tests).
    """

    def __init__(self, session: Session, *, why: str = "given") -> None:
        self._session = session
        self._why = why
        self._lock = threading.Lock()
        self._outputs: dict[int, Rows] = {}

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
            inputs: any other input by name, [*shape] for all images or [n, *shape].

        Returns:
            uint8 [n, H, W, C]; for a generator that draws no image, its first output, [n, *shape].

        Raises:
            InputError: an argument does not fit the spec; names the input, what came and what was expected.
            BackendError: the backend failed.
        """
        _require_count(n, "n")
        noise.require_range(seed, first, n)
        given = given_rows(self.spec, n, truncation, label, inputs)
        result = self._empty_result(n)

        def rows_of(start: int, count: int) -> Rows:
            drawn = noise.inputs(self.spec, seed, first + start, count)
            return drawn | {name: array[start : start + count] for name, array in given.items()}

        require_all(self.spec, rows_of(0, 0))
        self._fill(result, rows_of)
        return result

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
        _require_count(n, "n")
        noise.require_range(seed, first, n)
        if chunk_images is not None:
            _require_count(chunk_images, "chunk_images", least=1)
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
        tensor = self.spec.latent
        if tensor is None:
            raise InputError(f"{self.spec.name} takes no latent", got=", ".join(t.name for t in self.spec.inputs))
        try:
            z = np.asarray(latents)
        except (ValueError, TypeError) as error:
            raise InputError(f"input {tensor.name!r} is not an array", got=str(error)[:200]) from error
        if z.shape == fixed_shape(tensor):
            z = z[None]
        n = len(z) if z.ndim else 0
        given = given_rows(self.spec, n, truncation, label, {**inputs, tensor.name: z})
        # Only what has a default: drawing noise here, to keep none of it, would cost as much as a small batch.
        defaults: Rows = {
            t.name: np.full((n, *fixed_shape(t)), t.role.default, t.dtype)
            for t in self.spec.inputs
            if isinstance(t.role, Scalar)
        }
        rows = defaults | given
        require_all(self.spec, rows)
        result = self._empty_result(n)
        self._fill(result, lambda start, count: {k: v[start : start + count] for k, v in rows.items()})
        return result

    def outputs(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Every output as the graph gives it, in the output's own range.

        Args:
            inputs: {name: [n, *shape]} for every input.

        Returns:
            {name: [n, *shape]} for every output.
        """
        counts = {name: np.shape(array)[0] if np.ndim(array) else 0 for name, array in inputs.items()}
        n = next(iter(counts.values()), 0)
        rows = given_rows(self.spec, n, None, None, inputs)
        require_all(self.spec, rows)
        results: dict[str, NDArray[Any]] = empty_outputs(self.spec, n)
        with self._lock:
            for piece in pieces_of(n, self._session.buckets):
                out = self._run({k: v[piece.start : piece.start + piece.rows] for k, v in rows.items()}, piece.bucket)
                for name, array in out.items():
                    results[name][piece.start : piece.start + piece.rows] = array[: piece.rows]
        return results

    def warm_up(self) -> None:
        """Runs every bucket once, so that no request pays for a first run."""
        for bucket in self._session.buckets:
            rows = noise.inputs(self.spec, 0, 0, bucket)
            for tensor in self.spec.inputs:
                if tensor.name not in rows:
                    rows[tensor.name] = np.zeros((bucket, *(d or 64 for d in tensor.shape)), tensor.dtype)
            with self._lock:
                self._run(rows, bucket)

    def describe(self) -> dict[str, Any]:
        """What runs where, and why the device was chosen, as plain data."""
        return {"generator": self.spec.name} | self._session.describe() | {"device_chosen_because": self._why}

    def close(self) -> None:
        with self._lock:
            self._session.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _empty_result(self, n: int) -> NDArray[Any]:
        image = self.spec.image
        shape, dtype = fixed_shape(image or self.spec.outputs[0]), self.spec.outputs[0].dtype
        if image is not None:
            planes_first = image.role.layout == "CHW"  # type: ignore[attr-defined]
            shape, dtype = shape[1:] + shape[:1] if planes_first else shape, "uint8"
        try:
            return np.empty((n, *shape), dtype)
        except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address has bits
            raise InputError(
                f"{n:,} outputs do not fit the memory", got=str(error), remedy="Generator.stream gives them in chunks"
            ) from error

    def _fill(self, result: NDArray[Any], rows_of: Callable[[int, int], Rows]) -> None:
        image = self.spec.image
        tensor = image or self.spec.outputs[0]
        for piece in pieces_of(len(result), self._session.buckets):
            rows = rows_of(piece.start, piece.rows)
            target = result[piece.start : piece.start + piece.rows]
            with self._lock:
                output = self._run(rows, piece.bucket)[tensor.name][: piece.rows]
                if image is not None:
                    uint8_from_output(output, image, out=target)
                else:
                    np.copyto(target, output)

    def _run(self, rows: Rows, bucket: int) -> Rows:
        """Runs rows padded to the bucket. What comes back is overwritten by the next run of that bucket."""
        out = self._outputs.get(bucket)
        if out is None:
            out = self._outputs[bucket] = empty_outputs(self.spec, bucket)
        self._session.run({t.name: padded_rows(rows[t.name], bucket, t.dtype) for t in self.spec.inputs}, out)
        return out


def _require_count(n: int, name: str, least: int = 0) -> None:
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < least:
        raise InputError(f"{name} is not a count", got=repr(n), expected=f"an integer >= {least}")
