"""Gives the tests a machine and a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from imaginary_machine import Machine
from tensorrt_bundles import write_bundle


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """An imaginary machine with the double of TensorRT 11; whatever was put on its GPU must be gone afterwards."""
    machine = Machine().install(monkeypatch)
    yield machine
    machine.check_is_clean()


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.gan").path
