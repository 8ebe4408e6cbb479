"""The stack that a thread's signal handlers run on, kept through libraries that change it.

OpenVINO's CPU plugin gives the thread that loads it a small alternate stack, and takes it away in the thread that
unloads it. Where these are two threads, the first one is left with a stack that is gone. Python's handlers run on the
alternate stack, so the next Ctrl-C or SIGTERM ends the process with SIGSEGV.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Afterwards this thread has the alternate signal stack that it had before, or none as before. Linux only."""
    if not sys.platform.startswith("linux"):
        yield
        return
    sigaltstack = ctypes.CDLL(None, use_errno=True).sigaltstack
    before = _Stack()
    known = sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            sigaltstack(ctypes.byref(before), None)
