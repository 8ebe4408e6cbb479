"""`ganexport generate` on a folder that was begun before: it goes on as the record says, or says what differs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Ganexport, Pictures, Process
from small_bundles import small_model, small_spec, verdict, write_small_bundle

from ganruntime.bundle import Pick, Tuning, Variant, bundle_changed
from ganruntime.choice import backends_of
from ganruntime.machine import this_machine
from ganruntime.tuning import versions_here

N = 2000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """fp32, and another graph that claims to be its int8, which draws other images."""
    path = write_small_bundle(tmp_path / "small.gan")
    with bundle_changed(path) as draft:
        draft.add("model.int8.onnx", small_model(small_spec(), seed=1).SerializeToString())
        passed = replace(verdict(), errors={"psnr_db": 50.0})
        draft.put_variant(Variant("int8", "int8", "onnx", "model.int8.onnx", (passed,)))
    return path


def tune(path: Path) -> None:
    """As `ganexport tune --floor psnr=40` would, had it found the int8 on one thread to be the fastest here."""
    with bundle_changed(path) as draft:
        pick = Pick("onnxruntime", "int8", draft.files["model.int8.onnx"].sha256, 1, None, 4, 1.0, None, 9)
        when = "2026-11-26T04:30:00+00:00"
        picks = {"throughput": pick, "latency": pick}
        draft.put_tuning(Tuning(this_machine("cpu"), versions_here(backends_of("cpu")), when, 40.0, picks))


def killed_after(process: Process, arguments: list[object], folder: Path, least: int) -> None:
    running = process(*arguments, "-o", folder)
    deadline = time.monotonic() + 120
    while not folder.exists() or len(list(folder.iterdir())) < least:
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.kill()
    running.communicate(timeout=60)


@pytest.mark.parametrize("options", [["--format", "tar", "--shard-images", 100], []], ids=["tar", "files"])
def test_a_killed_run_goes_on_as_it_was_begun_after_a_tuning(
    ganexport: Ganexport,
    ganexport_process: Process,
    pictures: Pictures,
    bundle: Path,
    tmp_path: Path,
    options: list[object],
) -> None:
    whole, killed, tuned = tmp_path / "whole", tmp_path / "killed", tmp_path / "tuned"
    arguments = ["generate", bundle, "-n", N, "--device", "cpu", *options]
    assert ganexport(*arguments, "-o", whole).code == 0
    killed_after(ganexport_process, arguments, killed, 4 if options else 100)
    assert len(list(killed.iterdir())) < len(list(whole.iterdir()))
    tune(bundle)
    # The tuning is taken where nothing was begun, and draws other images: the negative control.
    assert ganexport(*arguments, "-o", tuned).code == 0
    assert pictures(tuned) != pictures(whole)
    answer = ganexport(*arguments, "-o", killed)
    assert answer.code == 0, answer.err
    assert "goes on as it was begun: fp32 on onnxruntime, cpu, " in answer.err
    assert "picked now would be: int8 on onnxruntime, cpu, 1 thread\n" in answer.err
    assert "images were there already, whole" in answer.out
    assert pictures(killed) == pictures(whole)


def test_what_is_named_is_held_against_the_record(ganexport: Ganexport, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    arguments = ["generate", bundle, "-n", 4, "--device", "cpu", "-o", folder]
    assert ganexport(*arguments, "--threads", 1).code == 0
    for options, got in (
        (["--threads", 2], "threads: 1 there, 2 asked for"),
        (["--precision", "int8"], "variant: fp32 there, int8 asked for"),
    ):
        answer = ganexport(*arguments, *options)
        assert answer.code == 1
        assert got in answer.err
    for options in ([], ["--threads", 1], ["--precision", "fp32"], ["--backend", "onnxruntime"]):
        assert ganexport(*arguments, *options).code == 0


def test_what_this_machine_does_not_run_is_said_of_the_run(ganexport: Ganexport, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    arguments = ["generate", bundle, "-n", 4, "--device", "cpu", "-o", folder]
    assert ganexport(*arguments, "--backend", "onnxruntime").code == 0
    record = json.loads((folder / "run.json").read_text())
    record["request"] |= {"backend": "openvino", "threads": 60_000, "streams": 1}
    (folder / "run.json").write_text(json.dumps(record))
    answer = ganexport(*arguments)
    assert answer.code == 1
    assert "does not go on here as it was begun, fp32 on openvino, cpu, 60000 threads, 1 stream: " in answer.err
    assert "on a machine like the one that it was begun on" in answer.err


def test_another_bundle_s_run_is_refused_with_what_differs(ganexport: Ganexport, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    assert ganexport("generate", bundle, "-n", 4, "--device", "cpu", "-o", folder).code == 0
    other = write_small_bundle(tmp_path / "other.gan", seed=3)
    answer = ganexport("generate", other, "-n", 4, "--device", "cpu", "-o", folder)
    assert answer.code == 1
    assert "graph_sha256: " in answer.err


def test_a_run_begun_before_threads_were_kept_goes_on_with_any(
    ganexport: Ganexport, pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    folder, old = tmp_path / "images", tmp_path / "old"
    options = ["--format", "tar", "--shard-images", 2]
    arguments = ["generate", bundle, "-n", 4, "--device", "cpu", *options]
    assert ganexport(*arguments, "--threads", 1, "-o", folder).code == 0
    shutil.copytree(folder, old)
    record = json.loads((old / "run.json").read_text())
    assert (record["schema_version"], record["request"].pop("threads")) == (2, 1)
    record["schema_version"] = 1
    (old / "run.json").write_text(json.dumps(record))
    for name in ("shard-000000.tar", "shard-000001.tar", "files.jsonl"):
        (old / name).unlink()
    answer = ganexport(*arguments, "--threads", 2, "-o", old)
    assert (answer.code, answer.err) == (0, "")
    assert json.loads((old / "run.json").read_text()) == record
    # Its shards are those of an old run to the end: a record of version 1 beside each image, which tells no threads.
    new, same = (pictures(f)["shard-000000.tar"] for f in (folder, old))
    assert b'"schema_version": 2, "seed": 0, "streams": null, "threads": 1' in new
    assert b'"schema_version": 1, "seed": 0, "variant"' in same
    assert ganexport("replay", old / "shard-000000.tar", "--index", 1).code == 0
