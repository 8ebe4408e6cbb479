"""The page of a run: there from the first step, refreshing itself while the run goes on, and true of how it ended."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_runs import TINY_RECIPES, interrupted_after

from ganruntime.errors import OutputError, TrainingError
from gantrain import observers, run_page
from gantrain.curves import Curve, chart
from gantrain.diagnosis import Diagnosis
from gantrain.history import History, lines_of
from gantrain.loop import EARLY_SHEETS, train
from gantrain.progress import StepReport
from gantrain.recipes import recipe_from_name
from gantrain.run_folder import read_run
from gantrain.run_page import Standing, html_of
from gantrain.stop_signals import TrainingStopped

SETTINGS = TINY_RECIPES["toy"][1] | {"metrics_every": 4, "metrics_samples": 32}
VOID = ("meta", "img", "line", "circle", "path", "polyline")
REFRESH = '<meta http-equiv="refresh"'


class Structure(HTMLParser):
    """Which tags are open, and what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def checked(run: Path) -> str:
    """The page of a run, well formed, with nothing from elsewhere and every file that it names beside it."""
    text = (run / "index.html").read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(text)
    assert structure.open == []
    assert structure.references
    for reference in structure.references:
        assert not re.match(r"[a-z]+:|/", reference)
        assert (run / reference).is_file(), reference
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
        assert "nan" not in svg
    return text


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that has ended, and its page when its first step was made."""
    run, early = tmp_path_factory.mktemp("page") / "run", []

    def on_step(report: StepReport) -> None:
        if report.step == 1:
            early.append(checked(run))

    train("toy", "ring", run, steps=9, seed=3, settings=SETTINGS, threads=1, on_step=on_step)
    return run, early[0]


def test_a_page_is_there_from_the_start_and_refreshes_itself_until_the_end(ended: tuple[Path, str]) -> None:
    run, early = ended
    assert REFRESH in early
    assert ">running<" in early
    assert "samples/step-000000.png" in early
    text = checked(run)
    assert REFRESH not in text
    assert "<script" not in text
    assert ">ended<" in text
    assert "9</strong><span>of 9 steps" in text
    for title in ("Losses", "Accuracy of the discriminator", "Norms of the gradients", "coverage", "modes found"):
        assert title in text
    assert re.search(r"best coverage, at step \d", text)
    assert "samples/step-000009.png" in text
    assert "ganexport train toy --out" in text
    assert "--steps 18" in text


def test_a_page_says_how_the_run_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingStopped):
        train("toy", "ring", run, steps=9, settings=SETTINGS, threads=1, on_step=interrupted_after(5))
    text = checked(run)
    assert ">interrupted<" in text
    assert "stopped by SIGINT after step 5" in text
    assert REFRESH not in text
    train("toy", "ring", run, resume=True)
    assert ">ended<" in checked(run)
    # The curves go on where they were.
    assert [line["step"] for line in lines_of(run)] == [1, 2, 4, 6, 8, 9]

    wild = SETTINGS | {"generator_lr": 1e30, "discriminator_lr": 1e30, "metrics_every": 0}
    with pytest.raises(TrainingError):
        train("toy", "ring", tmp_path / "wild", steps=50, settings=wild, threads=1)
    text = checked(tmp_path / "wild")
    assert ">failed<" in text
    assert "The training has diverged" in text

    def full(*arguments: Any) -> None:
        raise OutputError("cannot write log.jsonl", got="No space left on device")

    monkeypatch.setattr(observers, "log", full)
    with pytest.raises(OutputError):
        train("toy", "ring", tmp_path / "full", steps=9, settings=SETTINGS, threads=1)
    assert "No space left on device" in checked(tmp_path / "full")


def test_a_page_that_cannot_be_written_does_not_hide_why_the_run_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("the cause")

    def full(*arguments: Any) -> None:
        raise OutputError("cannot write index.html")

    def on_step(report: StepReport) -> None:
        monkeypatch.setattr(observers, "write_page", full)
        raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        train("toy", "ring", tmp_path / "run", steps=9, settings=SETTINGS, threads=1, on_step=on_step)


def test_pages_take_little_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at the start and one at the end of a run of a moment, however many lines its log has."""
    written: list[int] = []

    def write(*arguments: Any) -> None:
        written.append(arguments[2].step)

    monkeypatch.setattr(observers, "write_page", write)
    monkeypatch.setattr(observers, "_PAGE_SECONDS", 1000.0)
    train("toy", "ring", tmp_path / "run", steps=9, settings=SETTINGS | {"log_every": 1}, threads=1)
    assert written == [0, 9]
    written.clear()
    monkeypatch.setattr(observers, "_PAGE_SECONDS", 0.0)
    monkeypatch.setattr(observers.time, "monotonic", lambda: 0.0)
    train("toy", "ring", tmp_path / "again", steps=3, settings=SETTINGS | {"log_every": 1}, threads=1)
    assert written == [0, 1, 2, 3, 3]


def test_names_are_escaped(ended: tuple[Path, str], tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    shutil.copytree(ended[0], run)
    record = read_run(run)
    odd = replace(record, data={"name": "<script>alert(1)</script>"})
    standing = Standing("failed", 3, 9, "<i>words</i>")
    text = html_of(run, odd, standing, History(), Diagnosis(recipe_from_name("toy").defaults), 0.0)
    assert "<script" not in text
    assert "<i>words" not in text
    assert "<b>run" not in text
    assert "&lt;i&gt;words" in text


def test_sheets_at_the_steps_that_everybody_looks_for(tmp_path: Path) -> None:
    assert set(EARLY_SHEETS) >= {100, 1000, 2000, 5000}
    chosen = run_page._chosen
    assert chosen(range(0, 60, 10)) == [0, 10, 20, 30, 40, 50]
    many = sorted({0, 100, 300, 1000, 2000, 5000, *range(1000, 200_001, 1000)})
    shown = chosen(many)
    assert len(shown) == 12
    assert set(shown) >= {0, 100, 300, 1000, 2000, 5000, 10_000, 200_000}
    odd = sorted({0, 100, 300, *range(700, 70_001, 700)})
    shown = chosen(odd)
    assert len(shown) == len(set(shown)) == 12
    assert {0, 100, 300, 70_000} < set(shown)
    assert max(np.diff(shown)) < 12_000


def points(svg: str) -> np.ndarray:
    found = re.findall(r'<polyline points="([^"]+)"', svg)
    return np.array([[float(v) for v in point.split(",")] for point in found[0].split()])


def test_a_chart_draws_what_it_is_given() -> None:
    steps = np.arange(1, 101, dtype=float)
    svg = chart([Curve("rising", steps, steps / 100)], 100, least=0.0, most=1.0)
    drawn = points(svg)
    assert len(drawn) == 100
    # Straight, from the lower left to the upper right.
    slopes = np.diff(drawn[:, 1]) / np.diff(drawn[:, 0])
    assert (slopes < 0).all()
    assert slopes.std() < 0.1 * abs(slopes.mean())
    assert drawn[-1, 1] == pytest.approx(10, abs=1)
    assert "rising <b>1</b>" in svg
    # On a logarithmic axis a power is straight, and what is not above 0 is left out.
    powers = Curve("powers", np.r_[0.0, steps], np.r_[0.0, 10.0 ** (steps / 25)])
    drawn = points(chart([powers], 100, logarithmic=True))
    assert len(drawn) == 100
    slopes = np.diff(drawn[:, 1]) / np.diff(drawn[:, 0])
    assert slopes.std() < 0.1 * abs(slopes.mean())


def test_a_long_chart_stays_small_and_shows_the_range() -> None:
    steps = np.arange(1, 50_001, dtype=float)
    noise = np.random.default_rng(1).normal(0, 1, len(steps))
    svg = chart([Curve("noise", steps, noise)], 50_000)
    assert len(points(svg)) == 240
    assert "<path" in svg
    assert len(svg) < 30_000
    drawn = points(svg)[:, 1]
    assert drawn.std() < 15  # means of 208, where a single value would be scattered over the height


def test_charts_of_nothing_and_of_constants() -> None:
    none = np.array([])
    assert chart([Curve("a", none, none)], 10) == ""
    assert chart([Curve("a", np.array([1.0]), np.array([-1.0]))], 10, logarithmic=True) == ""
    for value in (0.0, 1.0, -3.0, 1e-9, 1e9):
        for steps in (1, 7, 1_000_000):
            svg = chart([Curve("a", np.array([1.0]), np.array([value]))], steps, best_step=1)
            assert "nan" not in svg
            ElementTree.fromstring(svg[svg.index("<svg") :])
    assert chart([Curve("a", np.array([1.0, 2.0]), np.array([5.0, 5.0]))], 2, logarithmic=True)


def test_a_history_keeps_what_is_finite() -> None:
    history = History()
    history.add({"step": 1, "loss_d": 1.0, "gradient_g": None})
    history.add({"step": 2, "loss_d": None, "gradient_g": 2.0, "metrics": {"fid[a]": 3.0, "coverage[a]": None}})
    history.add({"step": 3, "loss_d": 4.0, "metrics": {"fid[a]": 2.0, "coverage[a]": 0.5}})
    assert [column.tolist() for column in history.column("loss_d")] == [[1.0, 3.0], [1.0, 4.0]]
    assert [column.tolist() for column in history.column("gradient_g")] == [[2.0], [2.0]]
    assert [column.tolist() for column in history.figure("coverage[a]")] == [[3.0], [0.5]]
    assert history.figures == ("fid[a]", "coverage[a]")
