"""`ganexport arithmetic`, from a checkpoint and from its bundle, before a judge that needs no training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport
from halves_judge import HalvesJudge

import ganexport.judged_side
from ganexport.bundling import Exported
from ganruntime.generator import load

TERMS = (
    *("--take", "left=light,right=dark", "--minus", "left=dark,right=dark", "--plus", "left=dark,right=light"),
    *("--exemplars", 4, "--trials", 20, "--sample", 400),
)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, exported_once: Exported) -> HalvesJudge:
    with load(exported_once.path) as generator:
        images = generator.generate(200, seed=4)
    levels = (float(np.median(half.mean((1, 2, 3)))) for half in (images[:, :, :8], images[:, :, 8:]))
    judge = HalvesJudge((next(levels), next(levels)), softness=0.5)
    monkeypatch.setattr(ganexport.judged_side, "judge_for", lambda side, data: judge)
    return judge


def test_a_checkpoint_and_its_bundle_give_the_same_figures(
    ganexport: Ganexport, judge: HalvesJudge, checkpoint_once: Path, exported_once: Exported, tmp_path: Path
) -> None:
    told = {}
    for path in (checkpoint_once, exported_once.path):
        answer = ganexport("arithmetic", path, "--data", "faces", *TERMS, "--json", "-o", tmp_path / f"{path.name}.png")
        assert (answer.code, answer.err) == (0, "")
        told[path.name] = json.loads(answer.out)
    one, two = told.values()
    assert one == two
    assert one["wanted"] == {"left": "light", "right": "light"}
    assert one["held_out_accuracy"] == {"left": 1.0, "right": 0.975}
    assert min(one["found"].values()) >= 4
    sheet = np.asarray(PIL.Image.open(tmp_path / f"{exported_once.path.name}.png"))
    side = 16 * 6 + 4
    assert sheet.shape == (8 * side + 4, 4 * side + 4)


def test_the_words_say_the_judge_the_terms_and_what_came_of_them(
    ganexport: Ganexport, judge: HalvesJudge, exported_once: Exported
) -> None:
    answer = ganexport("arithmetic", exported_once.path, "--data", "faces", *TERMS)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "judge     halves: right on held-out images for 100.0% of left, 97.5% of right"
    assert [line[0] for line in lines[1:5]] == [" ", "-", "+", "="]
    assert "of 20 results as wanted: left=light in" in lines[4]
    assert lines[5].startswith("chance")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-o", "x.gif"), "-o NAME.png"),
        (("--label", "3"), "no such class"),
        (("--take", "left=grey"), "no such class"),
        (("--take", "left=light"), "different attributes"),
        (("--exemplars", "399"), "too few of the 400 images"),
    ],
)
def test_a_wrong_word_is_an_error(
    ganexport: Ganexport, judge: HalvesJudge, exported_once: Exported, words: tuple[str, ...], named: str
) -> None:
    answer = ganexport("arithmetic", exported_once.path, "--data", "faces", *TERMS, *words)
    assert answer.code == 1
    assert named in answer.err


def test_data_that_is_not_there_is_an_error(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    answer = ganexport("arithmetic", exported_once.path, "--data", tmp_path / "none", *TERMS)
    assert answer.code == 1
    assert "Traceback" not in answer.err
