"""`ganexport interpolate` and `ganexport grid`: films, strips and sheets of the images that they name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport
from numpy.typing import NDArray

from ganexport.bundling import Exported
from ganexport.films import gif_from_frames, write_film
from ganruntime import latents
from ganruntime.errors import InputError, OutputError
from ganruntime.generator import load
from ganruntime.images import sheet_from_images


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    film = PIL.Image.open(path)
    frames = []
    for number in range(film.n_frames):  # type: ignore[attr-defined]
        film.seek(number)
        frames.append(np.asarray(film.convert("L")))
    return frames


def test_a_strip_shows_the_path(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    words = ["interpolate", exported_once.path, "--seed", 7, "--between", 3, 8, 12, "--steps", 4]
    answer = ganexport(*words, "-o", tmp_path / "a.png", "--columns", 3)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"9 frames through 3, 8, 12 of seed 7 -> {tmp_path / 'a.png'}\n"
    with load(exported_once.path) as generator:
        ends = [generator.latents(1, seed=7, first=i)[0] for i in (3, 8, 12)]
        assert generator.spec.latent is not None
        images = generator(latents.path(generator.spec.latent, np.stack(ends), 4))
    np.testing.assert_array_equal(PIL.Image.open(tmp_path / "a.png"), sheet_from_images(images, 3))


def test_a_film_loops_through_its_images(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    words = ["interpolate", exported_once.path, "--seed", 7, "--between", 3, "--between", 8, "--steps", 5, "--loop"]
    assert ganexport(*words, "-o", path, "--scale", 2).code == 0
    frames = frames_of(path)
    assert len(frames) == 10
    assert frames[0].shape == (32, 32)
    with load(exported_once.path) as generator:
        for frame, index in ((frames[0], 3), (frames[5], 8)):
            (image,) = generator.generate(1, seed=7, first=index)
            assert np.abs(frame[::2, ::2].astype(int) - image[..., 0]).max() <= 1
    film = PIL.Image.open(path)
    assert (film.info["duration"], film.info["loop"]) == (40, 0)


def test_a_grid_has_its_images_in_the_corners(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    words = ["grid", exported_once.path, "--seed", 7, "--corners", 5, 6, 9, 2, "--rows", 3, "--columns", 4]
    answer = ganexport(*words, "-o", path)
    assert (answer.code, answer.err) == (0, "")
    sheet = np.asarray(PIL.Image.open(path))
    assert sheet.shape == (3 * 18 + 2, 4 * 18 + 2)
    with load(exported_once.path) as generator:
        for (top, left), index in zip([(2, 2), (2, 56), (38, 2), (38, 56)], [5, 6, 9, 2], strict=True):
            (image,) = generator.generate(1, seed=7, first=index)
            assert np.abs(sheet[top : top + 16, left : left + 16].astype(int) - image[..., 0]).max() <= 1


WRONG: list[tuple[list[Any], str]] = [
    (["interpolate", "--between", 3, "-o", "a.gif"], "nothing between one image"),
    (["interpolate", "--between", 3, 4, "-o", "a.avi"], "is not written as .avi"),
    (["interpolate", "--between", 3, 4, "-o", "a"], "is not written as a name without a suffix"),
    (["interpolate", "--between", 3, 4, "-o", "no/such/a.gif"], "cannot write no/such/a.gif"),
    (["interpolate", "--between", 3, 4, "-o", "a.gif", "--columns", 3], "only a strip has columns"),
    (["interpolate", "--between", 3, 4, "-o", "a.png", "--steps", 5000], "the strip is too wide"),
    (["interpolate", "--between", 3, 4, "-o", "a.gif", "--steps", 10_000_000], "too many frames"),
    (["interpolate", "--between", 3, 4, "-o", "a.gif", "--label", "cat"], "takes no label"),
    (["grid", "-o", "a.jpg"], "is not a name for a PNG"),
    (["grid", "-o", "no/such/a.png"], "cannot write no/such/a.png"),
    (["grid", "-o", "a.png", "--truncation", "0.5"], "has no input 'truncation'"),
]


@pytest.mark.parametrize(("words", "problem"), WRONG, ids=[f"{w[0]} {p}" for w, p in WRONG])
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    ganexport: Ganexport,
    exported_once: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[Any],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ganexport(words[0], exported_once.path, *words[1:])
    assert (answer.code, answer.out) == (1, "")
    assert problem in answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_without_ffmpeg_names_the_extra(
    ganexport: Ganexport, exported_once: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    answer = ganexport("interpolate", exported_once.path, "--between", 3, 4, "-o", tmp_path / "a.mp4")
    assert answer.code == 1
    assert 'pip install "ganexport[video]"' in answer.err
    assert list(tmp_path.iterdir()) == []


class FakeFfmpeg(ModuleType):
    """Takes what imageio-ffmpeg takes, and keeps the frames."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__("imageio_ffmpeg")
        self.frames: list[NDArray[np.uint8]] = []
        self.size: tuple[int, int] = (0, 0)
        self.fail = fail

    def write_frames(self, path: str, size: tuple[int, int], **options: Any) -> Any:
        self.size = size
        with open(path, "wb") as file:  # noqa: PTH123
            try:
                while True:
                    frame = yield
                    file.write(frame.tobytes())
                    if self.fail:
                        raise OSError("Could not load the codec")
                    self.frames.append(frame)
            except GeneratorExit:
                pass


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_gets_even_sides_and_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    fake = FakeFfmpeg()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", fake)
    frames = np.random.default_rng(0).integers(0, 256, (4, 7, 9, channels)).astype(np.uint8)
    write_film(tmp_path / "a.mp4", frames)
    assert fake.size == (10, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    for sent, frame in zip(fake.frames, frames, strict=True):
        assert sent.shape == (8, 10, 3)
        np.testing.assert_array_equal(sent[:7, :9], np.broadcast_to(frame, (7, 9, 3)))


def test_an_mp4_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", FakeFfmpeg(fail=True))
    with pytest.raises(OutputError, match="ffmpeg could not write"):
        write_film(tmp_path / "a.mp4", np.zeros((3, 8, 8, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no transparency"):
        write_film(tmp_path / "a.mp4", np.zeros((3, 8, 8, 4), np.uint8))


def test_a_real_mp4_plays(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed (extra: video)")
    ramp = np.linspace(0, 255, 12).astype(np.uint8)
    write_film(tmp_path / "a.mp4", np.broadcast_to(ramp[:, None, None, None], (12, 33, 47, 1)), fps=12.0)
    reader = ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    assert about["size"] == (48, 34)
    found = [np.frombuffer(data, np.uint8).mean() for data in reader]
    assert len(found) == 12
    assert np.abs(np.array(found) - ramp).max() < 8


def test_a_gif_keeps_grey_and_nearly_keeps_colours(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)).astype(np.uint8)
    (tmp_path / "g.gif").write_bytes(gif_from_frames(grey, 10.0))
    for frame, expected in zip(frames_of(tmp_path / "g.gif"), grey, strict=True):
        np.testing.assert_array_equal(frame, expected[..., 0])
    assert gif_from_frames(grey, 10.0) == gif_from_frames(grey, 10.0)
