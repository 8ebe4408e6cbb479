"""The one thread that a library is called from, where it keeps what it has per thread.

ONNX Runtime keeps captured CUDA graphs per thread (microsoft/onnxruntime#18509): called from another thread, it would
capture each of them anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class OwnerThread:
    """Runs functions one after another in a thread of its own, which ends with `close`."""

    def __init__(self, name: str) -> None:
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._ident = self._pool.submit(threading.get_ident).result()

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns or raises; of a closed thread `RuntimeError`."""
        if self._pool is None:
            raise RuntimeError("the thread has ended")
        if threading.get_ident() == self._ident:
            return function()
        return self._pool.submit(function).result()

    def close(self) -> None:
        """Waits for what is under way. Calling it twice is harmless."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.shutdown(wait=threading.get_ident() != self._ident)
