"""ONNX Runtime itself: whether it is here, for which devices it was built, and what its GPU part needs to be found."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from ganruntime.backend_log import backends_are_quiet
from ganruntime.errors import MissingDependencyError
from ganruntime.sessions.devices import gpu_count

_FATAL = 4  # the severity above errors, which are raised as well

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def import_onnxruntime() -> Any:
    """The module. Raises `MissingDependencyError` naming the extra."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the backend onnxruntime is not installed",
            got=str(error),
            remedy='pip install "ganexport[cpu]", or "ganexport[gpu]" with an NVIDIA GPU',
        ) from error
    if backends_are_quiet():
        onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def best_device() -> tuple[str, str]:
    """(device, why): CUDA where this onnxruntime has it and a GPU answers, else the CPU."""
    if CUDA not in import_onnxruntime().get_available_providers():
        return "cpu", "this onnxruntime is built for the CPU"
    count = gpu_count()
    return ("cuda:0", f"{count} GPU(s) answer") if count else ("cpu", "no GPU answers")


def preload_cuda(ort: Any) -> str:
    """Loads CUDA and cuDNN out of the packages that the extra `gpu` brings, where this onnxruntime can (since 1.21).

    Without it the GPU part does not find them, and is passed over. Returns what it said: it prints what it misses, and
    the standard output belongs to our caller.
    """
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):
            ort.preload_dlls()
    return said.getvalue().strip()


def first_line(error: BaseException) -> str:
    """What an error of ONNX Runtime says, without its stack."""
    text = str(error).strip()
    return text.splitlines()[0][:400] if text else type(error).__name__
