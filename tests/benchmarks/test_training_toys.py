"""The benchmark of the toys: its arithmetic, what it keeps, what it refuses to take for its own, and its table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import training_toys
from training_toys import CONTENDERS, PUBLISHED, SETS, drawn, judged_run, main, markdown, mean_and_error, summary

from ganruntime.errors import InputError
from gantrain.checkpoint import load_generator
from gantrain.data.toys import ring
from gantrain.progress import StepReport
from gantrain.recipes import recipe_from_name
from gantrain.recipes.settings import settings_with

SMALL: dict[str, Any] = {"steps": 4, "batch": 16, "generator_widths": (8,), "discriminator_widths": (8,)}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept; few samples."""
    monkeypatch.setattr(training_toys, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(training_toys, "SAMPLES", 50)
    monkeypatch.setattr(training_toys, "MANY", 200)
    return tmp_path / "runs"


def figures(**changes: Any) -> dict[str, Any]:
    made = {"found": 8, "modes": 8, "high_quality": 0.9, "found_of_many": 8, "high_quality_of_many": 0.91}
    return made | {"distance": 0.1, "spread": 0.9, "timing": {"cpu_seconds": 30.0}} | changes


def test_the_mean_has_a_standard_error_of_its_own_and_one_value_has_none() -> None:
    mean, error = mean_and_error([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2 / 3))
    assert mean_and_error([4.0])[0] == 4.0
    assert math.isnan(mean_and_error([4.0])[1])


def test_a_summary_counts_the_runs_with_every_mode_and_their_time() -> None:
    made = summary([figures(), figures(found=6, high_quality=0.7), figures(found=7, high_quality=0.8)])
    assert made["every_mode"] == 1
    assert made["found"][0] == pytest.approx(7.0)
    assert made["high_quality"] == pytest.approx((0.8, 0.1 / math.sqrt(3)))
    assert made["cpu_seconds"] == 90.0


def test_the_table_has_a_row_for_every_contender_what_was_published_and_perfect_samples() -> None:
    table = {data: {"toy": summary([figures(), figures(high_quality=0.8)])} for data in SETS}
    text = markdown(table, ["about it"])
    assert "about it" in text
    assert text.count("| toy | 8.0 ± 0.0 | 85.0 ± 5.0 | 2 | 91.00 ± 0.00 | 0.90 ± 0.00 | 0.100 ± 0.000 | 30 |") == 2
    for published in PUBLISHED.values():
        for name, (found, quality) in published.items():
            assert f"| {name}, as published | {found:.1f} | {100 * quality:.1f} |" in text
    assert f"| perfect samples | 25 | {100 * (1 - math.exp(-4.5)):.1f} |" in text


def test_a_run_is_trained_once_and_judged_by_its_own_samples(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = judged_run("ring", "toy", 3, SMALL, quick=True)
    folder = runs / "quick" / "ring-toy-3"
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (50, 2)
    assert np.array_equal(samples, drawn(folder / "run", 50))
    away = np.sqrt(np.square(samples[:, None] - ring().centres).sum(2)).min(1)
    assert made["high_quality"] == pytest.approx(float((away <= 0.03).mean()))
    assert made["settings"] == settings_with(recipe_from_name("toy").defaults, SMALL).to_json()
    assert load_generator(folder / "run")[1].inputs[0].shape == (recipe_from_name("toy").defaults.z_size,)

    def trained_again(*arguments: object, **named: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(training_toys, "train", trained_again)
    assert judged_run("ring", "toy", 3, SMALL, quick=True) == made


def test_runs_of_other_settings_or_samples_are_refused_by_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_run("ring", "toy", 0, SMALL, quick=True)
    with pytest.raises(InputError, match=r"ring-toy-0 was made with other settings\n.*rm -r "):
        judged_run("ring", "toy", 0, SMALL | {"batch": 32}, quick=True)
    monkeypatch.setattr(training_toys, "MANY", 300)
    with pytest.raises(InputError, match="other settings"):
        judged_run("ring", "toy", 0, SMALL, quick=True)


def test_an_interrupted_run_goes_on_to_the_same_figures(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SMALL | {"checkpoint_every": 2}
    whole = judged_run("grid", "toy", 1, settings, quick=False)
    train = training_toys.train

    def broken_off(*arguments: Any, **named: Any) -> Path:
        def stop(report: StepReport) -> None:
            if report.step == 3:
                raise KeyboardInterrupt

        return train(*arguments, **named, on_step=stop)

    with monkeypatch.context() as context:
        context.setattr(training_toys, "train", broken_off)
        with pytest.raises(KeyboardInterrupt):
            judged_run("grid", "toy", 1, settings, quick=True)
    assert not (runs / "quick" / "grid-toy-1" / "figures.json").exists()
    resumed = judged_run("grid", "toy", 1, settings, quick=True)
    assert (whole.pop("timing")["resumed"], resumed.pop("timing")["resumed"]) == (False, True)
    assert resumed == whole


def test_a_short_run_of_everything_writes_no_results(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = runs / "results"
    monkeypatch.setattr(training_toys, "RESULTS", results)
    monkeypatch.setattr(training_toys, "QUICK_STEPS", 2)
    monkeypatch.setattr(sys, "argv", ["training_toys.py", "--quick", "--seeds", "1"])
    assert main() == 0
    said = capsys.readouterr().out
    for data in SETS:
        for contender in CONTENDERS:
            assert f"{data} {contender} seed 0: " in said
            kept = json.loads((runs / "quick" / f"{data}-{contender}-0" / "figures.json").read_text())
            assert kept["settings"]["steps"] == 2
            assert kept["settings"]["pack"] == {"pack2": 2, "pack4": 4}.get(contender, 1)
    assert "nothing is written" in said
    assert not results.exists()


def test_a_whole_run_writes_the_table_the_figures_and_the_picture(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = runs / "results"
    monkeypatch.setattr(training_toys, "RESULTS", results)
    monkeypatch.setattr("report.RESULTS", results)
    results.mkdir(parents=True)
    usual = training_toys.settings_of
    monkeypatch.setattr(training_toys, "settings_of", lambda *of: usual(*of) | {"steps": 2})
    monkeypatch.setattr(sys, "argv", ["training_toys.py", "--seeds", "2", "--only", "toy", "vanilla"])
    assert main() == 1  # two steps do not reach the aim
    written = json.loads((results / "training_toys.json").read_text())
    assert written["not_run"] == ["pack2", "pack4"]
    assert len(written["runs"]) == 2 * 2 * 2
    assert {limit["holds"] for limit in written["limits"]} == {False}
    assert "pack2, pack4" in (results / "training_toys.md").read_text()
    assert (results / "training_toys.png").read_bytes().startswith(b"\x89PNG")
