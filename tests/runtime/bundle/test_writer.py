"""Writing bundles: whole or not at all, through kills, full disks and other writers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_bundles import small_spec, verdict, write_small_bundle
from small_disk import small_disk

from ganruntime.bundle import GoldenRecord, Variant, bundle_changed, bundle_written, read_bundle
from ganruntime.errors import BundleError, BundleFormatError, BundleIntegrityError, InputError, OutputError

HERE = Path(__file__).parent


def bytes_of(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@contextlib.contextmanager
def left_as_it_was(path: Path) -> Iterator[None]:
    """Afterwards the bundle has the same bytes, and nothing lies beside it that was not there before."""
    before, beside = bytes_of(path), sorted(path.parent.iterdir())
    yield
    assert bytes_of(path) == before
    assert sorted(path.parent.iterdir()) == beside
    read_bundle(path).golden()


def add_engine(path: Path, name: str, data: bytes = b"engine") -> None:
    with bundle_changed(path) as draft:
        draft.add(f"engines/{name}.plan", data)


# What is written


def test_the_same_bundle_written_twice_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = (write_small_bundle(tmp_path / name / "small.gan") for name in ("a", "b"))
    assert bytes_of(one) == bytes_of(two)


def test_a_change_keeps_what_it_does_not_touch(bundle_path: Path) -> None:
    before = read_bundle(bundle_path)
    model = before.read("model.onnx")
    with bundle_changed(bundle_path) as draft:
        draft.add("notes/why.txt", b"because")
        draft.put_variant(draft.variants[0].with_verdict(verdict(device="cuda:0")))
        draft.put_variant(Variant("other", "fp16", "onnx", "model.onnx"))
        draft.preview = "notes/why.txt"
        draft.reports["export"] = {"seconds": 1.0}
    after = read_bundle(bundle_path)
    assert after.manifest.files == {**before.manifest.files, "notes/why.txt": after.manifest.files["notes/why.txt"]}
    assert list(after.manifest.files) == sorted(after.manifest.files)
    assert after.read("notes/why.txt") == b"because"
    assert after.read("model.onnx") == model
    assert [v.name for v in after.manifest.variants] == ["fp32", "other"]
    assert [v.device for v in after.variant("fp32").verdicts] == ["cpu", "cuda:0"]
    assert (after.manifest.preview, after.manifest.reports) == ("notes/why.txt", {"export": {"seconds": 1.0}})
    assert after.manifest.golden == before.manifest.golden


def test_a_variant_that_is_put_again_keeps_its_place(bundle_path: Path) -> None:
    with bundle_changed(bundle_path) as draft:
        draft.put_variant(Variant("second", "fp16", "onnx", "model.onnx"))
        draft.put_variant(draft.variants[0].with_verdict(verdict(device="elsewhere")))
    variants = read_bundle(bundle_path).manifest.variants
    assert [(v.name, len(v.verdicts)) for v in variants] == [("fp32", 2), ("second", 0)]


def test_a_file_added_twice_is_the_second(bundle_path: Path) -> None:
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", b"first")
        draft.add("model.onnx", b"second")
    assert read_bundle(bundle_path).read("model.onnx") == b"second"


def test_files_that_stay_are_links_and_files_that_change_are_not(bundle_path: Path, tmp_path: Path) -> None:
    os.link(bundle_path / "model.onnx", tmp_path / "kept.onnx")
    os.link(bundle_path / "manifest.json", tmp_path / "kept.json")
    kept = {name: (tmp_path / name).read_bytes() for name in ("kept.onnx", "kept.json")}
    inode = (bundle_path / "golden.npz").stat().st_ino
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", b"another")
    assert (bundle_path / "golden.npz").stat().st_ino == inode
    assert (bundle_path / "model.onnx").read_bytes() == b"another"
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_without_hard_links_files_are_copied(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = bytes_of(bundle_path)
    add_engine(bundle_path, "a")
    after = bytes_of(bundle_path)
    assert {name: after[name] for name in ("model.onnx", "golden.npz")} == {
        n: before[n] for n in ("model.onnx", "golden.npz")
    }
    assert read_bundle(bundle_path).read("engines/a.plan") == b"engine"


def test_an_empty_folder_and_an_older_bundle_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "new.gan").mkdir()
    first = bytes_of(write_small_bundle(tmp_path / "new.gan", seed=1))
    (tmp_path / "new.gan" / "stray.txt").write_text("not of the bundle")
    second = bytes_of(write_small_bundle(tmp_path / "new.gan", seed=2))
    assert set(first) == set(second)
    assert first["model.onnx"] != second["model.onnx"]


# What is not written


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "holiday.png").write_bytes(b"picture")
    with pytest.raises(InputError, match="not a bundle") as error, bundle_written(precious, small_spec()):
        pytest.fail("the draft was given out")
    assert str(precious) in str(error.value)
    assert bytes_of(precious) == {"holiday.png": b"picture"}
    file = tmp_path / "file.gan"
    file.write_text("data")
    with pytest.raises(InputError, match="not a folder"), bundle_written(file, small_spec()):
        pytest.fail("the draft was given out")
    assert file.read_text() == "data"


def test_a_change_needs_a_bundle(tmp_path: Path) -> None:
    for path, error in [(tmp_path / "none.gan", BundleError), (tmp_path / "no/where.gan", OutputError)]:
        with pytest.raises(error, match=path.name), bundle_changed(path):
            pytest.fail("the draft was given out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "", "a//b", "manifest.json", "manifest.json/x", ".x"])
def test_a_file_cannot_be_added_outside(bundle_path: Path, name: str) -> None:
    with left_as_it_was(bundle_path), pytest.raises(BundleFormatError), bundle_changed(bundle_path) as draft:
        draft.add(name, b"data")


def test_an_incomplete_draft_is_not_written(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleFormatError, match="golden"), bundle_written(tmp_path / "new.gan", small_spec()) as draft:
        draft.add("model.onnx", b"model")
    with left_as_it_was(bundle_path):
        with pytest.raises(BundleFormatError, match="golden"), bundle_written(bundle_path, small_spec()):
            pass
        with pytest.raises(BundleFormatError, match="lacks a file"), bundle_changed(bundle_path) as draft:
            draft.put_variant(Variant("fp16", "fp16", "onnx", "model.fp16.onnx"))
        with pytest.raises(BundleFormatError, match="empty"), bundle_changed(bundle_path) as draft:
            draft.variants.clear()
    assert not (tmp_path / "new.gan").exists()


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_inside_changes_nothing(bundle_path: Path, error: BaseException) -> None:
    def change() -> None:
        with bundle_changed(bundle_path) as draft:
            draft.add("model.onnx", b"half")
            raise error

    with left_as_it_was(bundle_path), pytest.raises(type(error)):
        change()


def test_a_bundle_that_lost_a_file_is_not_written_anew_without_it(bundle_path: Path) -> None:
    (bundle_path / "golden.npz").unlink()
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz is missing"):
        add_engine(bundle_path, "a")
    assert not (bundle_path / "engines").exists()


# Full and read-only disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with small_disk(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_disk_that_is_full_leaves_the_old_bundle(disk: Path) -> None:
    path = write_small_bundle(disk / "small.gan")
    for size in (900 << 10, 4 << 20):
        with left_as_it_was(path):
            with pytest.raises(OutputError, match="No space left") as error:
                add_engine(path, "large", os.urandom(size) + bytes(200 << 10))
            assert str(path) in str(error.value)
            assert "free some space" in str(error.value)
    add_engine(path, "small")
    assert read_bundle(path).read("engines/small.plan") == b"engine"


def limited_writer(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
    try:
        add_engine(path, "large", bytes(1 << 20))
    except OutputError as error:
        os._exit(0 if str(path) in str(error) else 3)
    os._exit(4)


def test_a_limit_on_file_sizes_leaves_the_old_bundle(bundle_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=limited_writer, args=(bundle_path,))
    with left_as_it_was(bundle_path):
        process.start()
        process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("mkdir", errno.EROFS, "read-only"),
        ("mkdir", errno.EACCES, "may write"),
        ("write_bytes", errno.ENOSPC, "free some space"),
        ("write_text", errno.ENOSPC, "free some space"),
        ("write_text", errno.EDQUOT, "quota"),
    ],
)
def test_whatever_fails_the_old_bundle_stays(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with left_as_it_was(bundle_path):
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, fail)
            with pytest.raises(OutputError, match=words) as error:
                add_engine(bundle_path, "a")
        assert str(bundle_path) in str(error.value)
        assert os.strerror(code) in str(error.value)


@pytest.mark.parametrize("turn", range(6))
def test_a_failing_fsync_at_any_file_leaves_the_old_bundle(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    real, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == turn + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with left_as_it_was(bundle_path):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_once)
            with pytest.raises(OutputError, match="Input/output error"):
                add_engine(bundle_path, "a")
        assert len(calls) == turn + 1


def test_everything_is_on_the_disk_before_it_takes_its_place(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def remember(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    add_engine(bundle_path, "a")
    *inside, parent = synced
    assert parent == bundle_path.parent
    (partial,) = {p for p in inside if p.parent == bundle_path.parent}
    assert {p.relative_to(partial).as_posix() for p in inside} == {
        ".", "engines", "engines/a.plan", "golden.npz", "manifest.json", "model.onnx",
    }  # fmt: skip


def test_a_file_system_without_locks_is_an_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with left_as_it_was(bundle_path):
        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(OutputError, match="No locks available"):
            add_engine(bundle_path, "a")
        with pytest.raises(OutputError, match="No locks available"):
            write_small_bundle(bundle_path, seed=9)


# Kills


@pytest.mark.parametrize("mode", ["written", "changed"])
def test_a_killed_writer_leaves_a_whole_bundle(tmp_path: Path, mode: str) -> None:
    rounds = 40
    run = [sys.executable, str(HERE / "killed_writer.py"), str(tmp_path), mode, str(rounds), "1"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rounds"] == rounds
    # The moments were awkward ones: writers were killed in the middle, and what they left was removed.
    assert found["left_partial"] > rounds // 10
    assert found["removed"] >= found["left_partial"]
    assert found["turns"] >= 2 * rounds


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a disk that takes its time to sync: four times a write, and a round is three writes
@pytest.mark.parametrize(("mode", "seed"), [("written", 100), ("changed", 101)])
def test_half_a_thousand_kills(tmp_path: Path, mode: str, seed: int) -> None:
    run = [sys.executable, str(HERE / "killed_writer.py"), str(tmp_path), mode, "500", str(seed)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Writers at once


def many_engines(path: Path, start: int, count: int) -> None:
    for i in range(start, start + count):
        add_engine(path, str(i), str(i).encode())


def test_processes_that_change_at_once_lose_nothing(bundle_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=many_engines, args=(bundle_path, start, 8)) for start in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    bundle = read_bundle(bundle_path)
    for start in (0, 100, 200):
        for i in range(start, start + 8):
            assert bundle.read(f"engines/{i}.plan") == str(i).encode()
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_threads_that_change_at_once_lose_nothing(bundle_path: Path) -> None:
    threads = [threading.Thread(target=many_engines, args=(bundle_path, start, 6)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_bundle(bundle_path).manifest.files) == 2 + 18


def test_readers_see_the_old_bundle_or_the_new_one(bundle_path: Path) -> None:
    stop, problems, reads = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                reads.append(len(read_bundle(bundle_path).manifest.files))
            except Exception as error:  # whatever it is, it is the finding
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    many_engines(bundle_path, 0, 15)
    stop.set()
    reader.join()
    assert problems == []
    assert reads == sorted(reads)
    assert reads[-1] > 2


def test_a_change_of_the_old_bundle_does_not_undo_a_new_export(bundle_path: Path) -> None:
    """An engine is being added while the bundle is exported anew: the new export waits, and is what stays."""
    changing, exported = threading.Event(), threading.Event()

    def export() -> None:
        changing.wait()
        write_small_bundle(bundle_path, seed=9)
        exported.set()

    exporter = threading.Thread(target=export)
    exporter.start()
    with bundle_changed(bundle_path) as draft:
        changing.set()
        assert not exported.wait(0.5)
        draft.add("engines/old.plan", b"engine")
    exporter.join()
    names = set(read_bundle(bundle_path).manifest.files)
    assert names == {"model.onnx", "golden.npz"}


def test_a_golden_record_is_what_makes_a_draft_whole(tmp_path: Path) -> None:
    with bundle_written(tmp_path / "a.gan", small_spec()) as draft:
        draft.add("model.onnx", b"model")
        draft.add("golden.npz", b"golden")
        draft.golden = GoldenRecord("golden.npz", 0, 1, "nothing")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx"))
        assert not (tmp_path / "a.gan").exists()
    assert read_bundle(tmp_path / "a.gan").variant("fp32").status == "unverified"
