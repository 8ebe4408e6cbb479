"""Whole files and folders, or none."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganruntime import files
from ganruntime.errors import InputError, OutputError
from ganruntime.files import folder_written_atomically, sha256_of, write_atomically


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    for size in (0, 1, 1 << 20, (1 << 20) + 1):
        (tmp_path / "file").write_bytes(b"x" * size)
        assert sha256_of(tmp_path / "file") == hashlib.sha256(b"x" * size).hexdigest()


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for data in (b"old", b"", b"new" * 100_000):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    write_atomically(str(tmp_path / "file"), b"by name")
    assert names_in(tmp_path) == ["file"]


def test_what_a_hard_link_keeps_is_not_changed(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    os.link(tmp_path / "file", tmp_path / "kept")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_what_a_link_points_to_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "link").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "not read-only"),
        (errno.EACCES, "may write"),
        (errno.EIO, "check the disk"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str, call: str
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*((files.os, "fsync") if call == "fsync" else (Path, "replace")), fail)  # type: ignore[arg-type]
    with pytest.raises(OutputError) as error:
        write_atomically(tmp_path / "file", b"new")
    assert str(tmp_path / "file") in str(error.value)
    assert os.strerror(code) in str(error.value)
    assert remedy in str(error.value)
    assert isinstance(error.value.__cause__, OSError)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/file", "mkdir -p"),
        ("plain/file", "parent is a folder"),
        ("n" * 300, "shorter name"),
        ("folder", "folder"),
    ],
)
def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=words) as error:
        write_atomically(tmp_path / name, b"data")
    assert name in str(error.value)
    assert names_in(tmp_path) == ["folder", "plain"]


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = dead_process()
    abandoned = [f".file.partial-{dead}-00000000", f".file.partial-{dead}-abcdef01"]
    kept = [
        f".file.partial-{os.getpid()}-00000000",  # another thread of this process
        ".file.partial-1-00000000",  # a process that lives, and may belong to another user
        f".other.partial-{dead}-00000000",
        f".file.partial-{dead}-0000000",
        f"file.partial-{dead}-00000000",
        f".file.partial-{dead}-00000000.txt",
    ]
    (tmp_path / abandoned[0]).write_bytes(b"half")
    (tmp_path / abandoned[1]).mkdir()
    (tmp_path / abandoned[1] / "inside").write_bytes(b"half")
    for name in kept:
        (tmp_path / name).write_bytes(b"kept")
    write_atomically(tmp_path / "file", b"new")
    assert names_in(tmp_path) == sorted([*kept, "file"])


def test_an_abandoned_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(b"data")
    (tmp_path / f".out.partial-{dead_process()}-00000000").symlink_to(tmp_path / "precious")
    with folder_written_atomically(tmp_path / "out"):
        pass
    assert names_in(tmp_path) == ["out", "precious"]
    assert (tmp_path / "precious/file").read_bytes() == b"data"


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for turn in range(3):
        with folder_written_atomically(path) as folder:
            (folder / "deep/er").mkdir(parents=True)
            (folder / f"deep/er/{turn}").write_bytes(b"data")
            assert folder.parent == tmp_path
            assert path.exists() == (turn > 0)
        assert [p.name for p in path.rglob("*") if p.is_file()] == [str(turn)]
        assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("exchange", [True, False], ids=["one system call", "two renames"])
def test_both_ways_of_replacing_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    path = tmp_path / "out"
    for text in ("old", "new"):
        with folder_written_atomically(path) as folder:
            (folder / "file").write_text(text)
    assert (path / "file").read_text() == "new"
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), InputError("wrong")])
def test_an_error_inside_leaves_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out"
    with folder_written_atomically(path) as folder:
        (folder / "file").write_text("old")

    def replace() -> None:
        with folder_written_atomically(path) as folder:
            (folder / "file").write_text("half")
            raise error

    with pytest.raises(type(error)):
        replace()
    assert (path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["out"]


def test_a_full_disk_inside_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="free some space"), folder_written_atomically(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == []


def test_output_errors_from_inside_are_passed_on_as_they_are(tmp_path: Path) -> None:
    inner = OutputError("cannot write elsewhere")
    with pytest.raises(OutputError) as error, folder_written_atomically(tmp_path / "out"):
        raise inner
    assert error.value is inner


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to a folder", "broken link"])
def test_what_is_no_folder_is_not_replaced(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "folder").mkdir()
    targets = {"link to a file": "file", "link to a folder": "folder", "broken link": "nowhere"}
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("data")
    else:
        path.symlink_to(targets[kind])
    with pytest.raises(InputError, match="not a folder") as error, folder_written_atomically(path):
        raise AssertionError("reached")
    assert str(path) in str(error.value)
    assert names_in(tmp_path) == ["file", "folder", "out"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_path_without_a_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="name"), folder_written_atomically(name):
        raise AssertionError("reached")
    with pytest.raises(InputError, match="name"):
        write_atomically(name, b"data")
    assert names_in(tmp_path) == ["here"]


def test_a_folder_that_fills_meanwhile_is_not_lost(tmp_path: Path) -> None:
    """Something else makes the target while we write: it is exchanged as a whole, never mixed with ours."""
    path = tmp_path / "out"
    with folder_written_atomically(path) as folder:
        (folder / "ours").write_text("")
        path.mkdir()
        (path / "theirs").write_text("")
    assert names_in(path) == ["ours"]
