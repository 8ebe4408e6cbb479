"""The alternate signal stack of a thread: kept, whatever a library does to it meanwhile."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from ganruntime.sessions.signal_stack import _Stack, signal_stack_kept

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack of Linux")


def current() -> tuple[int | None, int]:
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.ss_sp, stack.ss_size


def test_a_stack_that_a_library_sets_is_taken_back() -> None:
    before = current()
    memory = ctypes.create_string_buffer(64 << 10)
    other = _Stack(ctypes.cast(memory, ctypes.c_void_p).value, 0, len(memory))
    with signal_stack_kept():
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None) == 0
        assert current() == (other.ss_sp, len(memory))
    assert current() == before


def test_signals_are_survived_after_openvino_was_unloaded_in_another_thread() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra: openvino)")
    code = """
import os, signal, threading
from ganruntime.sessions.openvino import new_core
seen = []
signal.signal(signal.SIGTERM, lambda *a: seen.append(a))
cores = [new_core()]
thread = threading.Thread(target=cores.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
print(len(seen))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
