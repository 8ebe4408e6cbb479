"""`ganexport recipes --preview` and `--pictures`: what a terminal is shown, and the files."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport

from ganexport.terminal_picture import lines_from_picture
from gantrain import previews
from gantrain.previews import COLUMNS, ROWS, preview_of
from gantrain.recipes import RECIPES, recipe_from_name

CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m\N{UPPER HALF BLOCK}")

MARKS = {name: np.full((2, 3, 3), 10 * i, np.uint8) for i, name in enumerate(RECIPES)}


def png_of(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(lines: list[str]) -> np.ndarray:
    """uint8 [H, W, 3] of what a terminal shows."""
    rows = []
    for line in lines:
        assert line.endswith("\x1b[0m")
        cells = np.array([[int(v) for v in cell] for cell in CELL.findall(line)], np.uint8)
        assert CELL.sub("", line) == "\x1b[0m"
        rows += [cells[:, :3], cells[:, 3:]]
    return np.stack(rows)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 4), (16, 40)])
def test_two_pixels_a_character_and_each_of_its_colour(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    shown = pixels_of(lines_from_picture(png_of(pixels), columns=40))
    assert np.array_equal(shown[:height], pixels)
    assert len(shown) == height + height % 2
    assert not shown[height:].any()


def test_a_grey_picture_that_is_too_wide_is_averaged() -> None:
    pixels = np.repeat(np.repeat(np.array([[0, 200], [90, 30]], np.uint8), 10, axis=0), 20, axis=1)  # [20, 40]
    shown = pixels_of(lines_from_picture(png_of(pixels), columns=4))
    assert shown.tolist() == [[[0] * 3] * 2 + [[200] * 3] * 2, [[90] * 3] * 2 + [[30] * 3] * 2]


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_has_a_small_preview_that_shows_something(name: str) -> None:
    png = preview_of(name)
    assert png is not None
    assert len(png) < 24_000
    with PIL.Image.open(io.BytesIO(png)) as picture:
        if recipe_from_name(name).kind == "image":
            assert picture.width * ROWS == picture.height * COLUMNS
        assert np.asarray(picture.convert("L")).std() > 10


def test_preview_shows_each_under_its_line(ganexport: Ganexport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(previews, "preview_of", lambda name: None if name == "mlp" else png_of(MARKS[name]))
    answer = ganexport("recipes", "--preview")
    assert answer.code == 0
    lines = answer.out.splitlines()
    for name in RECIPES:
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{name} ")]
        expected = ["  (no preview)"] if name == "mlp" else lines_from_picture(png_of(MARKS[name]), 40)
        assert lines[at + 1 : at + 1 + len(expected)] == expected
    one = ganexport("recipes", "dcgan", "--preview").out
    assert lines_from_picture(png_of(MARKS["dcgan"]), 40)[0] in one
    assert "steps=3000" in one


def test_preview_where_no_colours_can_be_shown_is_refused(
    ganexport: Ganexport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for arguments in (["--preview"], ["--preview", "--json"]):
        answer = ganexport("recipes", *arguments)
        assert answer.code == 1
        assert answer.out == ""
        assert answer.err.startswith("error: --preview")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ganexport("recipes", "--preview").code == 1


def test_pictures_are_written_as_they_are_packaged(
    ganexport: Ganexport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = {name: png_of(MARKS[name]) for name in RECIPES if name != "mlp"}
    monkeypatch.setattr(previews, "preview_of", kept.get)
    answer = ganexport("recipes", "--pictures", tmp_path / "new" / "folder", "--json")
    assert answer.code == 0
    assert {r["name"] for r in json.loads(answer.out)["recipes"] if r["has_preview"]} == set(kept)
    assert "mlp has no preview" in answer.err
    assert {file.stem: file.read_bytes() for file in (tmp_path / "new" / "folder").iterdir()} == kept
    (tmp_path / "file").write_text("")
    answer = ganexport("recipes", "--pictures", tmp_path / "file")
    assert answer.code == 1
    assert answer.err.startswith("error:")


def test_no_recipe_no_preview() -> None:
    assert preview_of("no-such-recipe") is None
