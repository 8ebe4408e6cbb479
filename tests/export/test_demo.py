"""The demo as a person meets it, short: a few steps, every stage, one report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganexport import openmp
from ganexport.commands import main
from ganexport.demo import pipeline
from ganexport.demo.folder import MARK
from ganexport.demo.options import Options
from ganexport.demo.pipeline import Console, DemoResult, run_demo
from ganexport.demo.report import html_from_result
from ganruntime.errors import BackendError
from ganruntime.generator import load
from gantrain.stop_signals import TrainingStopped

SHORT = Options(steps=3, quick=True)


@pytest.fixture(autouse=True)
def _environment_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "_found", {})
    monkeypatch.setenv(openmp.VARIABLE, openmp.SPINS)


def run(arguments: list[object]) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> DemoResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "usable_cores", lambda: 1)
        patch.setattr(Options, "bench_seconds", 0.02)
        return run_demo(SHORT, tmp_path_factory.mktemp("demos") / "short", Console(say=lines.append))


class Page(HTMLParser):
    """Tags that were opened, balanced; and every address that the page would fetch."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [value for key in ("src", "srcset", "href") if (value := found.get(key))]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_stage_was_gone_through_and_timed(result: DemoResult, lines: list[str]) -> None:
    names = [stage.name for stage in result.stages]
    assert names == [
        "train dcgan on digits", "export to ONNX", "verify", "generate 1,000 images", "judge", "benchmark",
    ]  # fmt: skip
    assert all(stage.seconds > 0 for stage in result.stages)
    assert [line for line in lines if line.startswith("[")] == [f"[{i + 1}/6] {name}" for i, name in enumerate(names)]
    assert (result.folder.run / "checkpoint").is_dir()


def test_the_images_are_those_that_the_runtime_draws(result: DemoResult) -> None:
    with np.load(result.folder.images) as arrays:
        assert np.array_equal(arrays["images"], result.images)
    assert result.images.shape == (1000, 32, 32, 1)
    with load(result.folder.bundle, "cpu") as generator:
        assert np.array_equal(generator.generate(64, seed=7), result.images[:64])


def test_the_timeline_is_of_the_training(result: DemoResult) -> None:
    assert list(result.timeline) == [0, 1, 2, 3]
    assert all(images.shape == (12, 32, 32, 1) for images in result.timeline.values())
    assert not np.array_equal(result.timeline[0], result.timeline[3])


def test_three_steps_do_not_pass_the_judge(result: DemoResult) -> None:
    assert not result.judgement.passed
    assert result.figures()["passed"] is False


def test_the_report_is_whole_and_needs_nothing_else(result: DemoResult) -> None:
    text = html_from_result(result)
    found = Page(text)
    assert found.open == []
    assert found.addresses
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    assert found.ids == ["done", "training", "beside", "judged", "copied", "between", "proof", "benchmark", "by-hand"]
    assert len(text) < 8 << 20


def test_the_report_says_what_was_found(result: DemoResult) -> None:
    text = html_from_result(result)
    for condition in result.judgement.conditions:
        assert condition.found in text
    verdict = result.verification.findings["fp32"].verdict
    assert f"{verdict.errors['max_abs']:.1e}" in text
    assert f"{result.bench.offline[64]['ganruntime'].images_per_second.median:,.0f}" in text
    assert "Not every condition holds" in text
    assert ("NOT A QUIET MACHINE" in text) != result.bench.neighbours.quiet
    for stage in result.stages:
        assert stage.command.replace("'", "&#x27;") in text


def test_the_commands_by_hand_are_commands_that_there_are(result: DemoResult) -> None:
    """Each is parsed by the real command line; none is run."""
    import shlex

    import click

    from ganexport.commands import ganexport

    for stage in result.stages:
        if stage.command:
            program, name, *arguments = shlex.split(stage.command)
            assert program == "ganexport"
            command = ganexport.get_command(click.Context(ganexport), name)
            assert command is not None
            command.make_context(name, arguments)


def test_the_same_demo_again_gives_the_same_images(result: DemoResult, tmp_path: Path) -> None:
    from gantrain.loop import train

    checkpoint = train("dcgan", result.source, tmp_path / "run", steps=3, seed=0, settings=SHORT.settings, threads=1)
    ours = result.folder.run / "checkpoint"
    assert (checkpoint / "generator.safetensors").read_bytes() == (ours / "generator.safetensors").read_bytes()


@pytest.fixture
def finished(result: DemoResult, monkeypatch: pytest.MonkeyPatch) -> DemoResult:
    """The command line with the pipeline already run."""

    def rerun(options: Options, path: Path, console: Console) -> DemoResult:
        return result

    monkeypatch.setattr(pipeline, "run_demo", rerun)
    return result


def test_a_demo_whose_images_fail_still_writes_its_report(
    finished: DemoResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "--steps", 3, "--quick"]) == 1
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[-1] == str(finished.folder.report.resolve())
    assert printed[0].startswith("DOES NOT HOLD all ten digits are found")
    assert finished.folder.report.read_text().startswith("<!doctype html>")
    mark = json.loads((finished.folder.path / MARK).read_text())
    assert mark["finished"] is True
    assert mark["result"]["conditions"]["all ten digits are found"]["holds"] is False


def test_ctrl_c_while_training_keeps_the_checkpoint_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal, in a process of its own, after the third step; then the training is finished in this one."""
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 1)
    program = (
        "import os, signal, sys\n"
        "from ganexport.commands import main\n"
        "import gantrain.progress as progress\n"
        "from ganexport.demo import pipeline\n"
        "pipeline.usable_cores = lambda: 1\n"
        "show = progress.ProgressLine.__call__\n"
        "def stop(self, report):\n"
        "    show(self, report)\n"
        "    if report.step == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "progress.ProgressLine.__call__ = stop\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["demo", "--steps", "6", "--quick", "--out", str(tmp_path / "demo")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "stopped after step 3; the checkpoint is kept" in done.stderr
    assert "give the same command again" in done.stderr
    assert json.loads((tmp_path / "demo" / MARK).read_text())["finished"] is False
    steps: list[int] = []

    class Enough(Exception):
        pass

    def no_export(*arguments: Any) -> int:
        raise Enough

    monkeypatch.setattr(pipeline, "_export", no_export)
    console = Console(on_step=lambda report: steps.append(report.step))
    with pytest.raises(Enough):
        run_demo(Options(steps=6, quick=True), tmp_path / "demo", console)
    assert steps == [4, 5, 6]


def test_ctrl_c_elsewhere_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> DemoResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_demo", interrupted)
    assert run(["demo", "--out", tmp_path / "x"]) == 130
    assert "to go on, give the same command again" in capsys.readouterr().err


def test_sigterm_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*arguments: Any) -> DemoResult:
        raise TrainingStopped(tmp_path, 9, 15)

    monkeypatch.setattr(pipeline, "run_demo", terminated)
    assert run(["demo", "--out", tmp_path / "x"]) == 143


def test_a_benchmark_that_fails_is_an_error_and_one_that_is_stopped_a_stop(
    result: DemoResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = pipeline.Stages(Console(), 6)
    for code, error in ((1, BackendError), (130, KeyboardInterrupt)):
        done = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(pipeline.subprocess, "run", lambda *a, done=done, **k: done)
        with pytest.raises(error):
            pipeline._bench(SHORT, result.folder, stages)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run(["demo", "--out", tmp_path]) == 1
    assert "no demo of ours" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "cats"], 2, "digits"),
        (["--data", "faces", "--recipe", "mlp"], 1, "there is no demo of mlp on faces"),
        (["--steps", "0"], 2, "steps"),
        (["--seed", "-1"], 2, "seed"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert run(["demo", "--out", tmp_path / "x", *arguments]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_missing_packages_are_named_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    gone = {"onnx", "sklearn"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else find(name, *a))
    assert run(["demo", "--out", tmp_path / "x"]) == 1
    error = capsys.readouterr().err
    assert "sklearn" in error
    assert 'pip install "ganexport[export,train]"' in error
    assert not (tmp_path / "x").exists()


def test_help_says_what_is_replaced_and_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ganexport demo --data faces" in text
    assert "is replaced" in text
    assert "is left alone" in text
