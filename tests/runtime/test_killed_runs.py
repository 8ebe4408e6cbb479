"""Bulk runs that are killed with SIGKILL: started again, they end with the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "killed_run.py"
# The first, one in the middle and the last time that each moment comes; an image has more of them than a shard.
LATE = {
    "files": {"in-file": 149, "before-name": 149, "after-name": 149, "in-line": 149, "after-line": 149},
    "tar": {"in-file": 900, "before-name": 3, "after-name": 3, "in-line": 3, "after-line": 3},
}


def killed(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("format", ["files", "tar"])
def test_a_run_killed_at_an_awkward_moment_ends_with_the_same_bytes(tmp_path: Path, format: str) -> None:
    moments = ["begin:0", "begun:0", "resuming:0", "resuming:1"]
    for name, last in LATE[format].items():
        moments += [f"{name}:0", f"{name}:{last // 2}", f"{name}:{last}"]
    answer = killed(tmp_path, format, *moments)
    assert {moment: found["differ"] for moment, found in answer.items()} == {moment: [] for moment in moments}


@pytest.mark.parametrize("format", ["files", "tar"])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, format: str) -> None:
    (found,) = killed(tmp_path, format, "random:25:3").values()
    assert found["differ"] == []
    assert found["kills"] >= 5
    assert found["within"] >= 1


@pytest.mark.parametrize("format", ["files", "tar"])
def test_a_careless_writer_would_be_found(tmp_path: Path, format: str) -> None:
    """The negative control: with files written under their own names, the same kill is seen in the bytes."""
    moment = f"in-file:{LATE[format]['in-file'] // 2}"
    assert killed(tmp_path / "real", format, moment)[moment]["differ"] == []
    differ = killed(tmp_path / "careless", format, "careless", moment)[moment]["differ"]
    assert [name for name in differ if name.endswith((".png", ".tar"))] != []
