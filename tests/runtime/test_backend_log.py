"""What ONNX Runtime may write: a library leaves that to its host."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from cuda_doubles import OrtDouble

from ganruntime import backend_log
from ganruntime.backend_log import keep_backends_quiet
from ganruntime.sessions.onnxruntime_library import import_onnxruntime


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> Iterator[OrtDouble]:
    monkeypatch.setattr(backend_log, "_quiet", False)
    double = OrtDouble()
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    yield double
    backend_log._quiet = False


def test_a_library_leaves_the_log_of_its_host_alone(ort: OrtDouble) -> None:
    import_onnxruntime()
    assert ort.severity == 2


def test_quiet_is_all_but_fatal(ort: OrtDouble) -> None:
    keep_backends_quiet()
    import_onnxruntime()
    assert ort.severity == 4
