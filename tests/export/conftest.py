"""What the export tests share. An export takes seconds, so there is one of each kind, and tests that write copy it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from odd_networks import lively_with_spec
from small_disk import small_disk

from ganexport.bundling import Exported, bundle_from_source
from ganexport.source import Source, generator_from_checkpoint
from gantrain.checkpoint import save_generator

DCGAN = {"z_size": 16, "size": 16, "channels": 1, "width": 8}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a DCGAN at 16 px with lively BatchNorm statistics. Not to be written to."""
    module, spec, record = lively_with_spec("dcgan_generator", **DCGAN)
    path = tmp_path_factory.mktemp("checkpoints") / "lively"
    save_generator(path, module, record, spec)
    return path


@pytest.fixture(scope="session")
def source_once(checkpoint_once: Path) -> Source:
    return generator_from_checkpoint(checkpoint_once)


@pytest.fixture(scope="session")
def exported_once(source_once: Source, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Its bundle of one variant, proven over all 1,024 latents. Not to be written to."""
    return bundle_from_source(source_once, tmp_path_factory.mktemp("bundles") / "lively.gan", uint8=False)


@pytest.fixture(scope="session")
def exported_with_pixels_once(source_once: Source, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same with a variant that gives pixels, proven over 128 latents. Not to be written to."""
    return bundle_from_source(source_once, tmp_path_factory.mktemp("bundles") / "pixels.gan", latents=128)


@pytest.fixture
def lively_bundle(exported_once: Exported, tmp_path: Path) -> Path:
    """A copy of the bundle, to write to."""
    return Path(shutil.copytree(exported_once.path, tmp_path / "lively.gan"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two MiB, to be filled. Mounting needs root."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        yield disk
