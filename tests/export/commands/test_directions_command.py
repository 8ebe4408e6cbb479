"""`ganexport directions`, before a judge that needs no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport
from halves_judge import HalvesJudge

import ganexport.judged_side
from ganexport.bundling import Exported
from ganruntime.generator import load

QUICK = ("--data", "faces", "--sample", 300, "--trials", 40)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, exported_once: Exported) -> None:
    with load(exported_once.path) as generator:
        images = generator.generate(200, seed=4)
    left, right = (float(np.median(half.mean((1, 2, 3)))) for half in (images[:, :, :8], images[:, :, 8:]))
    monkeypatch.setattr(ganexport.judged_side, "judge_for", lambda side, data: HalvesJudge((left, right), 0.5))


def test_directions_move_images_of_the_bundle(
    ganexport: Ganexport, judge: None, exported_once: Exported, tmp_path: Path
) -> None:
    out, picture = tmp_path / "d.npz", tmp_path / "d.png"
    answer = ganexport("directions", exported_once.path, *QUICK, "-o", out, "--picture", picture)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "judge halves: right on held-out images for 100.0% of left, 97.5% of right"
    names = ["left=dark", "left=light", "right=dark", "right=light"]
    assert [line.split()[0] for line in lines[3:7]] == names
    assert lines[7] == f"{out} {picture}"
    with np.load(out) as arrays:
        assert set(arrays) == {*names, *(f"{name} strength" for name in names)}
        vector, strength = arrays["left=light"], float(arrays["left=light strength"])
    assert PIL.Image.open(picture).size[0] == 8 * (4 * 16 + 2) + 2
    with load(exported_once.path) as generator:
        z = generator.latents(100, seed=9)
        lighter = generator(z + strength * vector)[:, :, :8].mean((1, 2, 3)) - generator(z)[:, :, :8].mean((1, 2, 3))
    assert (lighter > 0).mean() > 0.8


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-o", "d.npy"), "-o NAME.npz"),
        (("-o", "d.npz", "--picture", "d.jpg"), "--picture NAME.png"),
        (("-o", "d.npz", "--attribute", "nose"), "no such attribute"),
        (("-o", "d.npz", "--sample", "30"), "no direction was found"),
    ],
)
def test_a_wrong_word_is_an_error_and_writes_nothing(
    ganexport: Ganexport,
    judge: None,
    exported_once: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ganexport("directions", exported_once.path, *QUICK, *words)
    assert answer.code == 1
    assert named in answer.err
    assert list(tmp_path.iterdir()) == []
