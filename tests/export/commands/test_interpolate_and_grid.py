"""`ganexport interpolate` and `ganexport grid`: films, strips and sheets of the images that they name."""

from __future__ import annotations

import signal
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
    """imageio-ffmpeg whose program keeps the frames as they come, or fails after it has made its file."""

    def __init__(self, folder: Path, fail: bool = False) -> None:
        super().__init__("imageio_ffmpeg")
        self.program = folder / "ffmpeg"
        end = "print('one\\nNo space left on device', file=sys.stderr); sys.exit(1)" if fail else ""
        self.program.write_text(
            f"#!{sys.executable}\nimport sys\n"
            "with open(sys.argv[-1].removeprefix('file:'), 'wb') as file:\n"
            f"    file.write(sys.stdin.buffer.read())\n{end}\n"
        )
        self.program.chmod(0o755)

    def get_ffmpeg_exe(self) -> str:
        return str(self.program)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_gets_even_sides_and_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", FakeFfmpeg(tmp_path))
    (folder := tmp_path / "films").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (4, 7, 9, channels)).astype(np.uint8)
    write_film(folder / "a.mp4", frames)
    assert [p.name for p in folder.iterdir()] == ["a.mp4"]
    sent = np.frombuffer((folder / "a.mp4").read_bytes(), np.uint8).reshape(4, 8, 10, 3)
    np.testing.assert_array_equal(sent[:, :7, :9], np.broadcast_to(frames, (4, 7, 9, 3)))


def test_an_mp4_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", FakeFfmpeg(tmp_path, fail=True))
    (folder := tmp_path / "films").mkdir()
    (folder / "a.mp4").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"(?s)ffmpeg could not write.*No space left"):
        write_film(folder / "a.mp4", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="no transparency"):
        write_film(folder / "a.mp4", np.zeros((3, 8, 8, 4), np.uint8))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a.mp4": b"old"}


def test_a_real_ffmpeg_on_a_full_disk_is_an_error(full_disk: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed (extra: video)")
    noise = np.random.default_rng(0).integers(0, 256, (24, 512, 512, 3)).astype(np.uint8)
    with pytest.raises(OutputError, match="ffmpeg could not write"):
        write_film(full_disk / "a.mp4", noise)
    assert list(full_disk.iterdir()) == []


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


# Stopped, or out of room


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["interpolate", "grid", "replay"])
def test_a_stopped_command_leaves_the_old_file_and_nothing_beside_it(
    ganexport: Ganexport,
    exported_once: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    number: signal.Signals,
) -> None:
    """The signal comes at the worst moment: when the file is written, and before it has its name."""
    run = tmp_path / "run"
    assert ganexport("generate", exported_once.path, "-n", 2, "-o", f"{run}/").code == 0
    arguments = {
        "interpolate": [exported_once.path, "--between", 3, 4],
        "grid": [exported_once.path],
        "replay": [run, "--index", 1],
    }[command]
    (folder := tmp_path / "out").mkdir()
    (folder / "a.png").write_bytes(b"old")
    replace = Path.replace

    def struck(self: Path, target: Path) -> Path:
        signal.raise_signal(number)
        return replace(self, target)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Path, "replace", struck)
    answer = ganexport(command, *arguments, "-o", folder / "a.png")
    assert (answer.code, answer.err.strip()) == (130, "stopped")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a.png": b"old"}
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_a_film_on_a_full_disk_is_an_error_and_leaves_nothing(
    ganexport: Ganexport, exported_once: Exported, full_disk: Path, name: str
) -> None:
    (full_disk / "filler").write_bytes(bytes(2 << 20))
    answer = ganexport("interpolate", exported_once.path, "--between", 3, 4, "-o", full_disk / name)
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "free some space" in answer.err
    assert [p.name for p in full_disk.iterdir()] == ["filler"]
