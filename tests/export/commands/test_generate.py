"""`ganexport generate`: what is drawn, and what a stop, a kill or a full disk leaves."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport, Pictures, Process, Words
from numpy.typing import NDArray

from ganexport.bundling import Exported
from ganruntime import writers
from ganruntime.chunks import Drawn
from ganruntime.errors import BackendError
from ganruntime.generator import Generator, load
from ganruntime.image_writer import ImageWriter
from ganruntime.images import sheet_from_images
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession


@pytest.fixture(scope="module")
def generator(exported_once: Exported) -> Iterator[Generator]:
    with load(exported_once.path, "cpu") as generator:
        yield generator


def pixels(path: Path) -> NDArray[np.uint8]:
    image = PIL.Image.open(path)
    image.load()
    return np.asarray(image).reshape(image.size[1], image.size[0], -1)


def wait_for_images(folder: Path, least: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be stopped"
        if folder.exists() and sum(1 for p in folder.iterdir() if p.suffix in (".png", ".tar")) >= least:
            return
        time.sleep(0.002)
    raise AssertionError("no images came")


def assert_whole(folder: Path) -> int:
    """Every picture opens; returns how many there are. They are the first ones, without a gap."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix == ".png")
    for name in names:
        assert pixels(folder / name).shape == (16, 16, 1)
    assert names == [f"seed7-{i:08d}.png" for i in range(len(names))]
    return len(names)


def images_in(folder: Path) -> list[str]:
    """Everything but the two files of the run, hidden names too."""
    return sorted(p.name for p in folder.iterdir() if p.name not in ("run.json", "files.jsonl"))


def test_a_folder_holds_what_generate_gives(
    ganexport: Ganexport, exported_once: Exported, generator: Generator, tmp_path: Path
) -> None:
    answer = ganexport("generate", exported_once.path, "-n", 70, "--seed", 3, "--first", 5, "-o", tmp_path / "images")
    assert (answer.code, answer.err) == (0, "")
    drawn = generator.generate(70, seed=3, first=5)
    for i, image in enumerate(drawn, 5):
        np.testing.assert_array_equal(pixels(tmp_path / "images" / f"seed3-{i:08d}.png"), image)
    assert len(images_in(tmp_path / "images")) == 70
    first, second = answer.out.splitlines()
    assert first.startswith("70 images in ")
    assert first.endswith(f" s -> {tmp_path / 'images'}")
    assert "images/s" in second
    assert "fp32 on onnxruntime cpu" in second


def test_an_array_holds_what_generate_gives(
    ganexport: Ganexport, exported_once: Exported, generator: Generator, tmp_path: Path
) -> None:
    assert ganexport("generate", exported_once.path, "-n", 70, "--seed", 3, "-o", tmp_path / "a.npz").code == 0
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], generator.generate(70, seed=3))
        assert (int(arrays["seed"]), int(arrays["first"])) == (3, 0)


@pytest.mark.parametrize("columns", [None, 5])
def test_a_sheet_shows_what_generate_gives(
    ganexport: Ganexport, exported_once: Exported, generator: Generator, tmp_path: Path, columns: int | None
) -> None:
    more = ["--columns", columns] if columns else []
    assert ganexport("generate", exported_once.path, "-n", 12, "-o", tmp_path / "s.png", *more).code == 0
    np.testing.assert_array_equal(
        PIL.Image.open(tmp_path / "s.png"), sheet_from_images(generator.generate(12, seed=0), columns)
    )


def test_the_largest_seed_and_the_last_index_are_drawn(
    ganexport: Ganexport, exported_once: Exported, generator: Generator, tmp_path: Path
) -> None:
    last = 2**64 - 1
    answer = ganexport(
        "generate", exported_once.path, "-n", 1, "--seed", last, "--first", last, "-o", tmp_path / "images"
    )
    assert answer.code == 0
    np.testing.assert_array_equal(
        pixels(tmp_path / "images" / f"seed{last}-{last}.png"), generator.generate(1, seed=last, first=last)[0]
    )
    answer = ganexport("generate", exported_once.path, "-n", 2, "--first", last, "-o", tmp_path / "more")
    assert (answer.code, answer.out) == (1, "")
    assert "the last index is too large" in answer.err


WRONG: list[tuple[list[Any], str]] = [
    (["-o", "sheet.jpg"], "images are not written as .jpg"),
    (["-o", "sheet.pgn"], "images are not written as .pgn"),
    (["-o", "images.tar"], "images are not written as .tar"),
    (["-o", "images.npz", "--format", "tar"], "is not a path for --format tar"),
    (["-o", "images", "--format", "npz"], "images is a folder"),
    (["-o", "images", "--quality", 90], "PNG has no quality"),
    (["-o", "a.npz", "--image-format", "jpeg"], "--image-format and --quality are for folders"),
    (["-o", "images", "--shard-images", 10], "only shards have --shard-images"),
    (["-o", "no/such/images.npy"], "cannot write no/such/images.npy"),
    (["-o", "sheet.png", "-n", 10_001], "too many images for one sheet"),
    (["-o", "no/such/sheet.png"], "cannot write no/such/sheet.png"),
    (["-o", "no/such/images.npz"], "cannot write no/such/images.npz"),
    (["-o", "images", "--columns", 4], "only a sheet has columns"),
    (["-o", "images", "--label", "cat"], "takes no label"),
    (["-o", "images", "--label", "²"], "takes no label"),
    (["-o", "images", "--truncation", "0.5"], "has no input 'truncation'"),
    (["-o", "images", "--precision", "int8"], "has no onnx variant 'int8'"),
    (["-o", "images", "--backend", "caffe"], "'caffe' is not a backend"),
    (["-o", "images", "--device", "gpu"], "'gpu' is not a device"),
    (["-o", "images", "--first", 2**64 - 1], "the last index is too large"),
]


@pytest.mark.parametrize(("arguments", "problem"), WRONG, ids=[p for _, p in WRONG])
def test_what_does_not_fit_is_refused_before_anything_is_written(
    ganexport: Ganexport,
    exported_once: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[Any],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ganexport("generate", exported_once.path, *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: ")
    assert problem in answer.err
    assert "  expected: " in answer.err or "  remedy: " in answer.err
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_itself_is_no_folder_for_images(
    ganexport: Ganexport, lively_bundle: Path, pictures: Pictures
) -> None:
    before = pictures(lively_bundle)
    answer = ganexport("generate", lively_bundle, "-o", lively_bundle)
    assert answer.code == 1
    assert f"{lively_bundle} is a bundle" in answer.err
    assert pictures(lively_bundle) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_whole_images_and_its_own_words_complete_it(
    ganexport: Ganexport,
    ganexport_process: Process,
    go_on: Words,
    pictures: Pictures,
    exported_once: Exported,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    n, stopped, whole = 3000, tmp_path / "the stopped", tmp_path / "whole"
    options = ["-n", n, "--seed", 7, "--device", "cpu", "--threads", 1]
    assert ganexport("generate", exported_once.path, *options, "-o", whole).code == 0
    process = ganexport_process("generate", exported_once.path, *options, "-o", stopped)
    wait_for_images(stopped, 150, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    there = assert_whole(stopped)
    # A stop between an image's name and its count leaves one more than is told.
    assert any(f"stopped: {told:,} of {n:,} images are in {stopped}, whole" in err for told in (there, there - 1))
    assert 150 <= there < n
    assert len(images_in(stopped)) == there  # nothing hidden is left either
    words = go_on(err)
    assert "--threads" in words
    answer = ganexport(*words)
    assert answer.code == 0, answer.err
    assert pictures(stopped) == pictures(whole)


@pytest.mark.parametrize("options", [["--format", "tar", "--shard-images", 150], []], ids=["tar", "files"])
def test_a_killed_run_started_again_ends_with_the_same_bytes(
    ganexport: Ganexport,
    ganexport_process: Process,
    pictures: Pictures,
    exported_once: Exported,
    tmp_path: Path,
    options: list[Any],
) -> None:
    n, killed, whole = 3000, tmp_path / "killed", tmp_path / "whole"
    arguments = ["generate", exported_once.path, "-n", n, "--seed", 7, "--device", "cpu", "--threads", 1, *options]
    assert ganexport(*arguments, "-o", whole).code == 0
    process = ganexport_process(*arguments, "-o", killed)
    wait_for_images(killed, 2 if options else 150, process)
    process.kill()
    process.communicate(timeout=60)
    there = images_in(killed)
    assert 0 < len([name for name in there if not name.startswith(".")]) < len(images_in(whole))
    assert len([name for name in there if name.startswith(".")]) <= 1  # at most what was being written
    answer = ganexport(*arguments, "-o", killed)
    assert (answer.code, answer.err) == (0, "")
    assert "images were there already, whole" in answer.out
    assert pictures(killed) == pictures(whole)
    answer = ganexport(*arguments, "-o", killed)
    assert answer.out == "3,000 of 3,000 images were there already, whole\n"
    assert pictures(killed) == pictures(whole)


def test_another_run_over_a_folder_is_refused(ganexport: Ganexport, exported_once: Exported, tmp_path: Path) -> None:
    assert ganexport("generate", exported_once.path, "-n", 4, "--seed", 7, "-o", tmp_path / "images").code == 0
    answer = ganexport("generate", exported_once.path, "-n", 4, "--seed", 8, "-o", tmp_path / "images")
    assert (answer.code, answer.out) == (1, "")
    assert "holds another run" in answer.err
    assert "seed: 7 there, 8 asked for" in answer.err


class StopsAfter:
    """Lets a writer take some chunks, and then something happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[ImageWriter], chunks: int, then: Any) -> None:
        real, self.left = kind.add, chunks

        def add(writer: ImageWriter, drawn: Drawn) -> None:
            if self.left == 0:
                then()
            self.left -= 1
            real(writer, drawn)

        monkeypatch.setattr(kind, "add", add)


def terminate_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # the handler runs meanwhile
    raise AssertionError("SIGTERM was not heard")


@pytest.mark.parametrize("chunks", [0, 2])
def test_a_stopped_array_is_whole_and_goes_on_in_a_second_file(
    ganexport: Ganexport,
    go_on: Words,
    exported_once: Exported,
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunks: int,
) -> None:
    path = tmp_path / "a.npz"
    with monkeypatch.context() as patch:
        StopsAfter(patch, writers.NpzFile, chunks, terminate_this_process)
        answer = ganexport("generate", exported_once.path, "-n", 300, "--seed", 7, "--first", 10, "-o", path)
    assert (answer.code, answer.out) == (130, "")
    done = 64 * chunks
    assert f"stopped: {done} of 300 images are in {path}, whole" in answer.err
    words = go_on(answer.err)
    assert ganexport(*words).code == 0
    second = Path(words[words.index("-o") + 1])
    assert second == (tmp_path / f"a-from-{10 + done}.npz" if done else path)
    parts = [np.load(p)["images"] for p in ([path, second] if done else [path])]
    np.testing.assert_array_equal(np.concatenate(parts), generator.generate(300, seed=7, first=10))


def test_a_stopped_sheet_shows_what_was_drawn(
    ganexport: Ganexport,
    go_on: Words,
    exported_once: Exported,
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "sheet.png"
    with monkeypatch.context() as patch:
        StopsAfter(patch, writers.SheetFile, 1, terminate_this_process)
        answer = ganexport("generate", exported_once.path, "-n", 100, "--columns", 10, "-o", path)
    assert answer.code == 130
    np.testing.assert_array_equal(PIL.Image.open(path), sheet_from_images(generator.generate(64), 10))
    words = go_on(answer.err)
    assert ganexport(*words).code == 0
    np.testing.assert_array_equal(
        PIL.Image.open(tmp_path / "sheet-from-64.png"), sheet_from_images(generator.generate(36, first=64), 10)
    )


def test_a_stop_when_everything_is_drawn_says_so_and_asks_for_nothing(
    ganexport: Ganexport, exported_once: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Generator.close

    def close(generator: Generator) -> None:
        real(generator)
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "close", close)
    answer = ganexport("generate", exported_once.path, "-n", 5, "-o", tmp_path / "images")
    assert answer.code == 130
    assert "stopped: 5 of 5 images are in" in answer.err
    assert "go on with" not in answer.err


def test_sigterm_means_afterwards_what_it_meant_before(
    ganexport: Ganexport, exported_once: Exported, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ganexport("generate", exported_once.path, "-n", 1, "-o", tmp_path / "a.npz")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_backend_that_fails_keeps_what_was_drawn_and_says_how_to_go_on(
    ganexport: Ganexport,
    go_on: Words,
    pictures: Pictures,
    exported_once: Exported,
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, runs = OnnxRuntimeSession.prepared, []

    def prepared(session: OnnxRuntimeSession, inputs: Any, out: Any) -> Callable[[], None]:
        call = real(session, inputs, out)

        def run() -> None:
            runs.append(len(inputs["z"]))
            if len(runs) > len(session.buckets) + 2:  # after the warm-up
                raise BackendError("ONNX Runtime failed on cuda:0", got="out of memory")
            call()

        return run

    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeSession, "prepared", prepared)
        answer = ganexport("generate", exported_once.path, "-n", 200, "--seed", 7, "-o", tmp_path / "images")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: ONNX Runtime failed on cuda:0\n  got:      out of memory\n")
    assert "128 of 200 images are in" in answer.err
    assert ganexport(*go_on(answer.err)).code == 0
    for i, image in enumerate(generator.generate(200, seed=7)):
        np.testing.assert_array_equal(pixels(tmp_path / "images" / f"seed7-{i:08d}.png"), image)


def test_a_full_disk_leaves_whole_images_and_its_own_words_complete_it(
    ganexport: Ganexport, go_on: Words, pictures: Pictures, exported_once: Exported, tmp_path: Path, full_disk: Path
) -> None:
    folder, whole = full_disk / "images", tmp_path / "whole"
    with (full_disk / "filling").open("wb", buffering=0) as file:
        while shutil.disk_usage(full_disk).free > 300 * 4096:
            file.write(b"\0" * 4096)
    answer = ganexport("generate", exported_once.path, "-n", 450, "--seed", 7, "-o", folder)
    assert (answer.code, answer.out) == (1, "")
    assert f"error: cannot write {folder}/seed7-" in answer.err
    assert "got:      No space left on device" in answer.err
    assert "free some space" in answer.err
    there = assert_whole(folder)
    assert f"{there} of 450 images are in {folder}, whole" in answer.err
    assert 100 < there < 450
    assert len(images_in(folder)) == there
    (full_disk / "filling").unlink()
    answer = ganexport(*go_on(answer.err))
    assert answer.code == 0, answer.err
    assert ganexport("generate", exported_once.path, "-n", 450, "--seed", 7, "-o", whole).code == 0
    assert pictures(folder) == pictures(whole)


def test_a_file_over_the_limit_of_the_process_leaves_the_old_one(
    ganexport_process: Process, go_on: Words, exported_once: Exported, tmp_path: Path
) -> None:
    """Needs no root: the limit on a file's size fails a write as a full disk does."""
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    process = ganexport_process(
        "generate",
        exported_once.path,
        *("-n", 1000, "--seed", 7, "-o", path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"error: cannot write {path}\n  got:      File too large\n")
    assert "Traceback" not in err
    assert "0 of 1,000 images are in" in err
    assert go_on(err)[-6:] == ["--first", "0", "-o", str(path), "--seed", "7"]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
