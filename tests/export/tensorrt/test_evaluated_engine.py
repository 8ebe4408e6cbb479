"""`ganexport evaluate` of an engine: the figures of the graph that it was built from. TensorRT is its double."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from imaginary_machine import Machine

from ganexport.commands import main
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions


def scores(capsys: pytest.CaptureFixture[str], side: str, *arguments: object) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", side, *map(str, arguments), "--json"])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_an_engine_has_the_scores_of_its_graph(
    machine: Machine,
    bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GANEXPORT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for k in range(120):
        picture = rng.integers(0, 60, (8, 8), dtype=np.uint8)
        picture[k % 6 : k % 6 + 2, 2:7] += 150
        PIL.Image.fromarray(picture).save(tmp_path / "pictures" / f"{k:03d}.png")
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 16))).variant.name
    asked = ("--data", tmp_path / "pictures", "-n", 100)
    graph = scores(capsys, f"{bundle_path}:fp32", *asked)
    before = machine.deserialised
    built = scores(capsys, f"{bundle_path}:{engine}", *asked)
    assert machine.deserialised > before
    assert [f["name"] for f in built["figures"]] == [f["name"] for f in graph["figures"]]
    for mine, theirs in zip(built["figures"], graph["figures"], strict=True):
        assert mine["value"] == pytest.approx(theirs["value"], abs=1e-3, rel=1e-3)
