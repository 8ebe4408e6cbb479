"""Gives the tests small real bundles."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundles import write_small_bundle


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A verified bundle: z [8] -> image [1, 8, 8]."""
    return write_small_bundle(tmp_path / "small.gan")


@pytest.fixture
def conditional_path(tmp_path: Path) -> Path:
    """A verified bundle: z [8], label [] of three classes, truncation [] -> image [3, 8, 8]."""
    return write_small_bundle(tmp_path / "conditional.gan", conditional=True)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Verified bundles: paths[conditional]. Not to be written to."""
    folder = tmp_path_factory.mktemp("generators")
    return {c: write_small_bundle(folder / f"{c}.gan", conditional=c) for c in (False, True)}
