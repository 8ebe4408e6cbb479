"""Puts this folder's helpers on the path, and gives the tests small real bundles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_bundles import write_small_bundle


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A verified bundle: z [8] -> image [1, 8, 8]."""
    return write_small_bundle(tmp_path / "small.gan")


@pytest.fixture
def conditional_path(tmp_path: Path) -> Path:
    """A verified bundle: z [8], label [] of three classes, truncation [] -> image [3, 8, 8]."""
    return write_small_bundle(tmp_path / "conditional.gan", conditional=True)
