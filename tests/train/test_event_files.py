"""Files for TensorBoard: the figures of the log, across a resumption; and an error that names the extra without it."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny_runs import TINY_RECIPES, contents, interrupted_after

from ganruntime.errors import MissingDependencyError
from gantrain.event_files import TAGS, EventFiles, tag_of_figure
from gantrain.loop import train
from gantrain.stop_signals import TrainingStopped

SETTINGS = TINY_RECIPES["toy"][1] | {"metrics_every": 4, "metrics_samples": 32, "tensorboard": True}


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(run: Path) -> Iterator[tuple[int, Any]]:
    """(file's number, event) of a run, in order; each record's checksums are checked."""
    for k, path in enumerate(sorted((run / "tensorboard").iterdir())):
        data = path.read_bytes()
        while data:
            (length,), (crc,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
            assert crc == masked(data[:8])
            body = data[12 : 12 + length]
            assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(body),)
            yield k, Event.FromString(body)
            data = data[16 + length :]


def scalars(run: Path) -> dict[tuple[int, str], float]:
    """(step, tag) -> value, as TensorBoard has them: what a later file purges is gone."""
    found: dict[tuple[int, str], float] = {}
    for _, event in events(run):
        if event.HasField("session_log") and event.session_log.status == SessionLog.SessionStatus.Value("START"):
            found = {key: value for key, value in found.items() if key[0] < event.step}
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found[event.step, value.tag] = value.simple_value
    return found


def logged(run: Path) -> dict[tuple[int, str], float]:
    found = {}
    for text in (run / "log.jsonl").read_text().splitlines():
        line = json.loads(text)
        values = {TAGS[name]: value for name, value in line.items() if name in TAGS}
        values["timing/images_per_second"] = line["timing"]["images_per_second"]
        values |= {tag_of_figure(key): value for key, value in line.get("metrics", {}).items()}
        found |= {(line["step"], tag): value for tag, value in values.items() if value is not None}
    return found


def test_the_figures_are_those_of_the_log_also_after_a_resumption(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingStopped):
        train("toy", "ring", run, steps=10, settings=SETTINGS, threads=1, on_step=interrupted_after(6))
    assert scalars(run) == pytest.approx(logged(run), rel=1e-6)
    # A checkpoint of step 6, and a file that a killed run had written ahead of it.
    ahead = EventFiles(run, 6)
    ahead.add({"step": 8, "loss_d": 77.0, "timing": {}})
    ahead.close()
    train("toy", "ring", run, resume=True)
    assert {step for step, _ in scalars(run)} == {1, 2, 4, 6, 8, 10}
    assert scalars(run) == pytest.approx(logged(run), rel=1e-6)
    assert any(tag == "metrics/coverage/values" for _, tag in scalars(run))
    assert set(TAGS.values()) <= {tag for _, tag in scalars(run)}

    # The training is the one without: all but run.json, which says what was asked for.
    train("toy", "ring", tmp_path / "plain", steps=10, settings=SETTINGS | {"tensorboard": False}, threads=1)
    left, right = contents(run), contents(tmp_path / "plain")
    assert not (tmp_path / "plain" / "tensorboard").exists()
    differing = {name for name in left if not name.startswith("tensorboard/") and left[name] != right.get(name)}
    assert differing == {"run.json"}


def test_findings_are_text(tmp_path: Path) -> None:
    finding = {"name": "collapsed", "what": "The generator has collapsed: all alike.", "try": ["--set pack=2"]}
    files = EventFiles(tmp_path, 0)
    files.add({"step": 5, "diagnosis": {"began": [finding], "ended": []}})
    files.close()
    texts = [value for _, event in events(tmp_path) for value in event.summary.value]
    assert [text.tag for text in texts] == ["diagnosis/collapsed/text_summary"]
    assert b"- --set pack=2" in texts[0].tensor.string_val[0]


def test_without_the_library_the_error_names_the_extra_and_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingDependencyError, match="tensorboardX, which is not installed") as raised:
        train("toy", "ring", tmp_path / "run", steps=2, settings=SETTINGS, threads=1)
    assert 'pip install "ganexport[tensorboard]"' in str(raised.value)
    assert not (tmp_path / "run").exists()
    train("toy", "ring", tmp_path / "run", steps=2, settings=SETTINGS | {"tensorboard": False}, threads=1)
    with pytest.raises(MissingDependencyError):
        train("toy", "ring", tmp_path / "run", steps=4, settings={"tensorboard": True}, resume=True)
