"""`ganexport generate --input`: pictures and other inputs that no seed gives, to images and back by replay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport, Words
from picture_bundles import picture, saved, write_painter

from ganruntime.errors import BackendError
from ganruntime.rows import Rows
from ganruntime.workspaces import Workspace


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("painter") / "painter.gan"
    write_painter(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(3):
        saved(picture(i, 8, 6 + 2 * (i % 2)), tmp_path / "photos" / f"p{i}.png")
    return tmp_path / "photos"


OTHERS = ("--input", "points=[[0, 0.5], [-1, 0]]", "--input", "words=[3, 4]", "--input", "strength=0.25")


def test_a_folder_gives_an_image_per_picture_and_replay_gives_each_again(
    ganexport: Ganexport, painter: Path, photos: Path, tmp_path: Path
) -> None:
    answer = ganexport("generate", painter, "--input", f"photo={photos}", *OTHERS, "-o", tmp_path / "out")
    assert answer.code == 0, answer.err
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == [f"seed0-{i:08d}.png" for i in range(3)]
    assert [PIL.Image.open(tmp_path / "out" / name).size for name in names] == [(6, 8), (8, 8), (6, 8)]
    for name in names:
        answer = ganexport("replay", tmp_path / "out" / name)
        assert answer.code == 0, answer.out + answer.err
    photos.rename(tmp_path / "elsewhere")
    answer = ganexport("replay", tmp_path / "out" / names[1])
    assert answer.code != 0
    assert "--input photo=FILE" in answer.err
    answer = ganexport("replay", tmp_path / "out" / names[1], "--input", f"photo={tmp_path / 'elsewhere'}")
    assert answer.code == 0, answer.err


def test_one_picture_is_for_all_images_and_a_label_and_a_seed_still_tell(
    ganexport: Ganexport, painter: Path, photos: Path, tmp_path: Path
) -> None:
    def drawn(*options: object) -> np.ndarray:
        path = tmp_path / "x.npy"
        arguments = ("--input", f"photo={photos / 'p0.png'}", *OTHERS, "-n", 4, "-o", path)
        answer = ganexport("generate", painter, *arguments, *options)
        assert answer.code == 0, answer.err
        return np.asarray(np.load(path))

    first = drawn("--label", "day")
    assert first.shape == (4, 8, 6, 3)
    assert not np.array_equal(first[0], first[1])  # the latents differ
    assert not np.array_equal(first, drawn("--label", "night"))
    np.testing.assert_array_equal(first, drawn("--input", "class=0"))
    assert not np.array_equal(first, drawn("--label", "day", "--seed", 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "painter needs inputs that no seed gives"),
        (["--input", "photo={photos}"], "--input points=FILE --input words=FILE"),
        (["--input", "photo={photos}", *OTHERS, "-n", "5"], "-n 3"),
        (["--input", "photo={photos}", *OTHERS, "--label", "0", "--input", "class=1"], "input 'class' was given twice"),
        (["--input", "photo={photos}", *OTHERS, "--input", "photo=x"], "input 'photo' was given twice"),
        (["--input", "photo={photos}", *OTHERS, "--label", "dusk"], "'dusk' is not a class"),
        (["--input", "photo={photos}", *OTHERS, "--truncation", "0.5"], "has no input 'truncation'"),
        (["--input", "photo={photos}/p9.png", *OTHERS], "p9.png does not exist"),
        (["--input", "foto={photos}", *OTHERS], "has no input 'foto'"),
        (["--input", "photo", *OTHERS], "NAME=FILE or NAME=VALUE"),
        (["--input", "photo={photos}", *OTHERS[:-1], "strength=3"], "outside its range"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_file_is_made(
    ganexport: Ganexport, painter: Path, photos: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    filled = [option.format(photos=photos) for option in options]
    answer = ganexport("generate", painter, "-o", tmp_path / "out", *filled)
    assert answer.code not in (0, None)
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()


def test_several_sizes_do_not_fit_one_array(ganexport: Ganexport, painter: Path, photos: Path, tmp_path: Path) -> None:
    answer = ganexport("generate", painter, "--input", f"photo={photos}", *OTHERS, "-o", tmp_path / "x.npz")
    assert answer.code != 0
    assert "p1.png: height 8, width 8" in answer.err
    assert not (tmp_path / "x.npz").exists()


def test_the_command_that_goes_on_names_the_inputs_again(
    ganexport: Ganexport, go_on: Words, painter: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("generate", painter, "--input", f"photo={photos}", *OTHERS, "-o", tmp_path / "out")
    run, left = Workspace.run, 6

    def failing(self: Workspace, rows: Rows) -> Rows:
        nonlocal left
        left -= 1
        if left < 0:
            raise BackendError("the device is gone")
        return run(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "run", failing)  # four warm-ups, two images, and the third one fails
        answer = ganexport(*arguments)
    assert answer.code != 0
    answer = ganexport(*go_on(answer.err))
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["request"]["count"] == 3
    assert ganexport(*arguments).out.startswith("3 of 3 images were there already")
