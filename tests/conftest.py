"""What all tests share: tests that need hardware or a library say so when they are skipped."""

from __future__ import annotations

import importlib.util
import os
import signal

import pytest

# Beside other workers (pytest-xdist) each has its share of the cores, and so have the processes that its tests start:
# threads that wait for each other on cores that are taken cost more than they bring. Before anything imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from ganruntime.sessions.devices import gpu_count

# A shell that starts the tests in the background has them ignore SIGINT, and every child inherits that; the tests of
# Ctrl-C need what a person at a terminal has.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing_gpu() -> str | None:
    return "no NVIDIA GPU answers here" if gpu_count() == 0 else None


def _missing_onnxruntime_gpu() -> str | None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA (extra: gpu)"
    return None


def _missing_tensorrt() -> str | None:
    if importlib.util.find_spec("tensorrt") is None:
        return "TensorRT is not installed (extra: trt)"
    return _missing_gpu()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = _missing_gpu()
    for marker, reason in (
        ("gpu", gpu),
        ("onnxruntime_gpu", gpu or _missing_onnxruntime_gpu()),
        ("tensorrt", _missing_tensorrt()),
    ):
        if reason is not None:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))
