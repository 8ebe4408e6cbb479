"""TensorRT through ONNX Runtime: a graph of the bundle, built at its first load into one engine for every batch size.

For those who want TensorRT's speed and have no engine in the bundle (`ganexport to-trt` builds one, verifies it and
keeps it there). Every bucket has an `InferenceSession` of its own with one explicit profile, whose smallest, best and
largest shapes are that bucket's: nothing is rebuilt when a request comes (microsoft/onnxruntime#13851), and no kernel
is chosen for a range. Each of them holds the weights once more.

Engines are kept in the user's cache, in a folder named by the GPU, the driver, both libraries' versions and the graph:
another graph or machine finds another folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Variant
from ganruntime.errors import BackendError, DeviceError, MissingDependencyError, OutputError
from ganruntime.sessions.cuda import driver_version
from ganruntime.sessions.devices import gpu_name
from ganruntime.sessions.onnxruntime import CAPTURE_REFUSED, OnnxRuntimeSession
from ganruntime.sessions.onnxruntime_cuda import DeviceRunner
from ganruntime.sessions.onnxruntime_library import CUDA, TENSORRT, preload_cuda
from ganruntime.spec import GeneratorSpec

_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so")
_TF32 = "NVIDIA_TF32_OVERRIDE"


class OnnxRuntimeTensorRTSession(OnnxRuntimeSession):
    """ONNX Runtime with its TensorRT provider; what TensorRT does not take runs on CUDA kernels of the same GPU."""

    backend: ClassVar[str] = "onnxruntime-tensorrt"

    def __init__(
        self,
        spec: GeneratorSpec,
        variant: Variant,
        graph: bytes,
        *,
        device: str = "cuda:0",
        buckets: tuple[int, ...] = DEFAULT_BUCKETS,
        threads: int | None = None,
        where: str = "",
        cache: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Builds an engine for every bucket, or finds it in the cache.

        Args:
            cache: where engines are kept; by default `ganexport/onnxruntime-tensorrt` in the user's cache.
            environment: the process's, out of which TensorRT reads whether fp32 may be TF32.

        Raises:
            MissingDependencyError: onnxruntime or TensorRT's library is not installed.
            DeviceError: the device is not there, or part of the graph would not run on it.
            BackendError: the graph is of a kind that cannot be run in this way as it was meant.
            OutputError: the cache cannot be written, or is not the user's own.
        """
        self._runners: dict[int, DeviceRunner] = {}
        self._cache = cache
        _require_sound(spec, variant, environment)
        super().__init__(spec, variant, graph, device=device, buckets=buckets, threads=threads, where=where)

    def _require_provider(self, ort: Any, kind: str) -> None:
        if kind != "cuda":
            raise DeviceError("TensorRT runs on NVIDIA GPUs", got=kind, expected="cuda or cuda:N")
        if TENSORRT not in ort.get_available_providers():
            raise DeviceError(
                "this onnxruntime has no TensorRT",
                got=", ".join(ort.get_available_providers()),
                expected=TENSORRT,
                remedy='pip uninstall onnxruntime; pip install "ganexport[gpu]" tensorrt',
            )

    def _open_on_gpu(self, ort: Any, graph: bytes) -> None:
        preload_cuda(ort)
        self._tensorrt = tensorrt_version()
        names = [gpu_name(self._index), driver_version(), f"tensorrt-{self._tensorrt}", f"onnxruntime-{self._version}"]
        key = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", name) for name in names)
        folder = private_folder(self._cache or user_cache(), key, hashlib.sha256(graph).hexdigest()[:32])
        self.cuda_graphs = "used"
        for bucket in self.buckets:
            session = None
            if self.cuda_graphs == "used":
                try:
                    session = self._opened(ort, graph, self._providers(bucket, folder, graphs=True))
                except DeviceError as error:
                    if CAPTURE_REFUSED not in str(error.got):
                        raise
                    self.cuda_graphs = f"ONNX Runtime refuses: {error.got}"
            session = session or self._opened(ort, graph, self._providers(bucket, folder, graphs=False))
            self._session = session
            self._runners[bucket] = DeviceRunner(session, self._index, graphs=self.cuda_graphs == "used")

    def _providers(self, bucket: int, folder: Path, *, graphs: bool) -> list[tuple[str, Mapping[str, str]]]:
        shapes = ",".join(f"{t.name}:{'x'.join(map(str, (bucket, *t.shape)))}" for t in self.spec.inputs)
        options = {
            "device_id": str(self._index),
            "trt_profile_min_shapes": shapes,
            "trt_profile_opt_shapes": shapes,
            "trt_profile_max_shapes": shapes,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_engine_cache_prefix": f"batch{bucket}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
            # Precision lives in the graph: int8 where it has Q/DQ, and nothing else below what it says.
            "trt_int8_enable": "1" if self.variant.precision == "int8" else "0",
            "trt_fp16_enable": "0",
            "trt_cuda_graph_enable": "1" if graphs else "0",
        }
        return [(TENSORRT, options), (CUDA, self._cuda_options(graphs=False))]

    def _runner_for(self, batch: int) -> DeviceRunner:
        if batch not in self._runners:
            raise BackendError("the batch is not a bucket", got=batch, expected=self.buckets)
        return self._runners[batch]

    def _free_on_gpu(self) -> None:
        runners, self._runners = self._runners, {}
        for runner in runners.values():
            runner.close()
        super()._free_on_gpu()

    def versions(self) -> dict[str, str]:
        return super().versions() | {"tensorrt": self._tensorrt}


def _require_sound(spec: GeneratorSpec, variant: Variant, environment: Mapping[str, str]) -> None:
    """Refuses what this provider would run in another way than the graph says."""
    remedy = 'backend="onnxruntime" runs it on CUDA; ganexport to-trt builds an engine that keeps to the graph\'s types'
    if any(None in t.shape for t in spec.inputs):
        raise BackendError(
            "a generator whose height and width vary needs a profile for each size", got=spec.name, remedy=remedy
        )
    if variant.precision in ("fp16", "bf16"):
        raise BackendError(
            f"ONNX Runtime gives TensorRT a network without fixed types: the fp32 islands of {variant.name} would go",
            got=variant.precision,
            expected="fp32, tf32 or int8",
            remedy=remedy,
        )
    off = environment.get(_TF32) == "0"
    if variant.precision == "fp32" and not off:
        raise BackendError(
            "TensorRT computes fp32 in TF32 unless it is told not to, and ONNX Runtime has no option for it",
            got=f"{_TF32}={environment.get(_TF32, 'not set')}",
            expected=f"{_TF32}=0 in the environment, before the process starts",
            remedy=f"export {_TF32}=0",
        )
    if variant.precision == "tf32" and off:
        raise BackendError("TF32 is switched off for this process", got=f"{_TF32}=0", remedy=f"unset {_TF32}")


def tensorrt_version() -> str:
    """The version of the TensorRT library that ONNX Runtime will load. Raises `MissingDependencyError`."""
    try:
        import tensorrt
    except ImportError:
        pass
    else:  # importing it has loaded its libraries, which ONNX Runtime then finds by name
        return str(tensorrt.__version__)
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return str(library.getInferLibVersion())
    raise MissingDependencyError(
        "TensorRT's library is not installed",
        expected=" or ".join(_LIBRARIES),
        remedy="pip install tensorrt, in the version that this onnxruntime was built for",
    )


def user_cache() -> Path:
    """The folder of this program in the user's cache (XDG Base Directory Specification)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "ganexport" / "onnxruntime-tensorrt"


def private_folder(root: Path, *names: str) -> Path:
    """Makes root/name/… for this user alone: an engine is executable code, and is loaded from there unseen.

    Raises:
        OutputError: it cannot be made, or somebody else may write to it.
    """
    folder = root
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("", *names):
            folder = folder / name
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise OutputError(
                    f"{folder} is not this user's own",
                    got=f"mode {stat.S_IMODE(status.st_mode):o}, owner {status.st_uid}",
                    expected=f"a folder that only user {os.geteuid()} may write to: engines are executable code",
                    remedy=f"chmod go-w {folder}, or set XDG_CACHE_HOME",
                )
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot make {folder}", got=error.strerror, remedy="set XDG_CACHE_HOME") from error
    return folder
