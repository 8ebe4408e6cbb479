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
LIMIT_BYTES = {"stream": 8 << 20, "shards": 16 << 20, "cycles": 4 << 20}
IMAGE_BYTES = 3 * 32 * 32


def growth(work: str, count: int, *leak: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), work, str(count), *leak], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["done"] == count
    return found


@pytest.mark.parametrize(("work", "count"), [("stream", 60_000), ("shards", 20_000), ("cycles", 50)])
def test_memory_stays_flat(work: str, count: int) -> None:
    found = growth(work, count)
    assert found["growth_bytes"] < LIMIT_BYTES[work], found
    assert found["threads"] == 1
    assert found["files"] < 20


@pytest.mark.parametrize(("work", "count"), [("stream", 60_000), ("shards", 20_000), ("cycles", 50)])
def test_a_leak_would_be_seen(work: str, count: int) -> None:
    """The negative control: what is kept on purpose is over the limit."""
    found = growth(work, count, "leak")
    assert found["kept"] > 0
    assert found["growth_bytes"] > LIMIT_BYTES[work], found


@pytest.mark.slow
def test_a_million_images_leave_memory_flat() -> None:
    assert growth("stream", 1_000_000)["growth_bytes"] < LIMIT_BYTES["stream"]


@pytest.mark.slow
def test_a_million_images_in_shards_leave_memory_flat() -> None:
    assert growth("shards", 1_000_000)["growth_bytes"] < LIMIT_BYTES["shards"]


@pytest.mark.slow
def test_a_thousand_loads_leak_nothing_that_grows() -> None:
    """No more than fifty do: what grew with each load would be twenty times as much."""
    assert growth("cycles", 1000)["growth_bytes"] < LIMIT_BYTES["cycles"]
