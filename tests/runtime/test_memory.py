"""Memory stays flat: streams, bulk runs, bundles loaded and closed again and again; each with a negative control."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "memory_growth.py"
# What may come and go between two looks at the same work: pages that the allocator keeps, one shard's tables.
LIMIT_BYTES = {"stream": 8 << 20, "shards": 16 << 20, "cycles": 4 << 20, "openvino_cycles": 4 << 20}


def growth(work: str, count: int, leaking: int = 0) -> dict[str, dict[str, Any]]:
    if work.startswith("openvino"):
        pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), work, str(count), str(leaking)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert found["flat"]["done"] == count
    return found


@pytest.mark.parametrize(
    ("work", "count", "leaking"),
    [("stream", 60_000, 30_000), ("shards", 20_000, 10_000), ("cycles", 50, 50), ("openvino_cycles", 12, 10)],
)
def test_memory_stays_flat_and_a_leak_would_be_seen(work: str, count: int, leaking: int) -> None:
    """With the negative control: what is kept on purpose is over the limit."""
    found = growth(work, count, leaking)
    flat, leak = found["flat"], found["leaking"]
    assert flat["growth_bytes"] < LIMIT_BYTES[work], found
    assert flat["files"] < 20
    # Importing openvino starts one more.
    assert flat["threads"] <= (2 if work == "openvino_cycles" else 1)
    assert leak["kept"] > 0
    assert leak["growth_bytes"] > LIMIT_BYTES[work], found


@pytest.mark.slow
@pytest.mark.parametrize("work", ["stream", "shards"])
def test_a_million_images_leave_memory_flat(work: str) -> None:
    assert growth(work, 1_000_000)["flat"]["growth_bytes"] < LIMIT_BYTES[work]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("work", ["cycles", "openvino_cycles"])
def test_a_thousand_loads_leak_nothing_that_grows(work: str) -> None:
    """No more than a few do: what grew with each load would be as many times as much."""
    found = growth(work, 1000)["flat"]
    assert found["growth_bytes"] < LIMIT_BYTES[work], found
