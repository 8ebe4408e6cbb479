"""What the export tests share. An export takes seconds, so there is one of each kind, and tests that write copy it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from odd_networks import lively_with_spec

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
    """Its bundle, proven over all 1,024 latents. Not to be written to."""
    return bundle_from_source(source_once, tmp_path_factory.mktemp("bundles") / "lively.gan")


@pytest.fixture
def lively_bundle(exported_once: Exported, tmp_path: Path) -> Path:
    """A copy of the bundle, to write to."""
    return Path(shutil.copytree(exported_once.path, tmp_path / "lively.gan"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two MiB, to be filled. Mounting needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mounted is None or mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip() if mounted else 'no mount command'}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
