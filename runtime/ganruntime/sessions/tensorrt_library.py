"""TensorRT itself: whether it is here and which version, its logger, and its names for dtypes.

Used by the session and by the builder. `tensorrt` is imported when something is called and not before.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from ganruntime.errors import EngineError, MissingDependencyError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST, NEWEST_BELOW = (10, 12), (12,)
_VERSION = re.compile(r"(\d+(?:\.\d+)+)")
_INSTALL = 'pip install "ganexport[trt]", with NVIDIA\'s own package index (--extra-index-url) for the libraries'

# dtype of the spec -> member of trt.DataType. bfloat16 has no NumPy form, so no session can hand it in or out.
DTYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
}


def version_numbers(version: str) -> tuple[int, ...]:
    """(10, 16, 1, 11) of `10.16.1.11`; what follows the numbers (`.post1`, `+local`) is left out.

    Raises:
        EngineError: the text does not begin with a version.
    """
    match = _VERSION.match(version)
    if match is None:
        raise EngineError("TensorRT: its version is not one", got=repr(version), expected="10.16.1.11, say")
    return tuple(int(n) for n in match[1].split("."))


def is_stand_in(version: str) -> bool:
    """Whether a version has a local label (`11.4.0.106+double`): NVIDIA's have none, so what a test double
    built or ran is never taken for what TensorRT built or ran."""
    return "+" in version


def require_tensorrt() -> str:
    """The version of the installed TensorRT, which is one that this release knows.

    Raises:
        MissingDependencyError: TensorRT is not installed, its libraries are missing, or its version is outside
            10.12 <= version < 12.
    """
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"TensorRT is not installed: no module {error.name}",
            expected="TensorRT 10.12 or later, below 12. Its libraries are on NVIDIA's package index only",
            remedy=_INSTALL,
        ) from error
    except (ImportError, OSError) as error:
        # The bindings' wheel is small and on the public index; the libraries (libnvinfer) are another wheel.
        raise MissingDependencyError(
            "TensorRT's Python bindings are installed, and its libraries do not load",
            got=str(error),
            expected="libnvinfer, libnvinfer_plugin and libnvonnxparser, which are on NVIDIA's package index only",
            remedy=_INSTALL,
        ) from error
    version = getattr(trt, "__version__", None)
    if not isinstance(version, str):
        raise MissingDependencyError(
            "TensorRT is not installed: another module is named tensorrt",
            got=getattr(trt, "__file__", None) or "a folder of that name on Python's path",
            expected="NVIDIA's",
            remedy=f"{_INSTALL}, and run from another folder",
        )
    if not OLDEST <= version_numbers(version) < NEWEST_BELOW:
        raise MissingDependencyError(
            "the installed TensorRT is not a version that this release drives",
            got=version,
            expected="10.12 or later, below 12",
            remedy=f"{_INSTALL} --upgrade",
        )
    return version


def runtime_for(version_compatible: bool) -> trt.Runtime:
    """A TensorRT runtime.

    Args:
        version_compatible: whether it is to load such an engine, which brings code of its own. Code that runs is what
            every plan is: this is for plans whose bytes were checked, as all of ours are.

    Raises:
        EngineError: TensorRT does not start.
    """
    import tensorrt as trt

    with captured_messages() as messages:
        try:
            runtime = trt.Runtime(shared_logger())
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise EngineError(
                "TensorRT does not start", got="; ".join(messages.errors) or str(error), remedy="run `nvidia-smi`"
            ) from error
    runtime.engine_host_code_allowed = version_compatible
    return runtime


def dtype_from_tensorrt(dtype: trt.DataType) -> str:
    """The spec's name of a dtype (`float32` for `DataType.FLOAT`); TensorRT's own name where the spec has none."""
    return next((ours for ours, theirs in DTYPES.items() if theirs == dtype.name), dtype.name)


# (whether it is an error, else a warning; its text)
OnMessage = Callable[[bool, str], None]


class Messages:
    """What TensorRT said while captured: its errors, and its warnings."""

    def __init__(self, on_message: OnMessage | None = None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._on_message = on_message

    def add(self, is_error: bool, text: str) -> None:
        (self.errors if is_error else self.warnings).append(text)
        if self._on_message is not None:
            self._on_message(is_error, text)


class _Captures:
    """Hands each message to everyone who is capturing. TensorRT logs from its own threads, so under a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[Messages] = []

    def add(self, is_error: bool, text: str) -> None:
        with self._lock:
            for messages in self._active:
                messages.add(is_error, text)

    @contextlib.contextmanager
    def open(self, on_message: OnMessage | None) -> Iterator[Messages]:
        messages = Messages(on_message)
        with self._lock:
            self._active.append(messages)
        try:
            yield messages
        finally:
            with self._lock:
                self._active.remove(messages)


_captures = _Captures()
_logger: tuple[ModuleType, trt.ILogger] | None = None


def shared_logger() -> trt.ILogger:
    """The one logger of this process.

    TensorRT keeps the first logger that it is given for all its later messages, so there is one, and it never dies.
    """
    import tensorrt as trt

    global _logger
    if _logger is not None and _logger[0] is trt:
        return _logger[1]

    class SharedLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            # Called from C++, which an exception would end.
            with contextlib.suppress(Exception):
                if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                    _captures.add(True, msg)
                elif severity == trt.ILogger.Severity.WARNING:
                    _captures.add(False, msg)

    logger = SharedLogger()
    _logger = (trt, logger)
    return logger


def captured_messages(on_message: OnMessage | None = None) -> contextlib.AbstractContextManager[Messages]:
    """`with captured_messages() as messages:` collects what TensorRT says meanwhile, of all threads.

    `on_message` is called with each one as it comes, one at a time, from whichever thread says it.
    """
    return _captures.open(on_message)
