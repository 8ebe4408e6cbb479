"""A reader while an export replaces the bundle: what is read is whole, and of one export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_bundles import write_small_bundle

from ganruntime.bundle import read_bundle, reader
from ganruntime.errors import BundleError, BundleIntegrityError


def exported_anew_before(call: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets an export happen between the reader's opening of the folder and its opening of the file."""
    calls: list[int] = []
    read_below = reader._read_below

    def read(folder: int, *arguments: Any) -> bytes:
        calls.append(folder)
        if len(calls) <= call:
            write_small_bundle(bundle_path, seed=len(calls))
        return read_below(folder, *arguments)

    monkeypatch.setattr(reader, "_read_below", read)
    return calls


def test_opening_finds_the_new_bundle_when_the_old_one_goes(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = read_bundle(bundle_path).manifest_sha256
    calls = exported_anew_before(3, bundle_path, monkeypatch)
    assert read_bundle(bundle_path).manifest_sha256 != old
    assert len(calls) == 4


def test_a_bundle_that_never_stands_still_is_an_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_EXCHANGES", 5)
    exported_anew_before(99, bundle_path, monkeypatch)
    with pytest.raises(BundleIntegrityError, match="replaced 5 times"):
        read_bundle(bundle_path)


def test_files_of_a_bundle_that_was_replaced_are_not_called_damaged(bundle_path: Path) -> None:
    opened = read_bundle(bundle_path)
    write_small_bundle(bundle_path, seed=9)
    with pytest.raises(BundleError, match="exported anew since it was opened") as caught:
        opened.read("golden.npz")
    assert "open it again" in str(caught.value)
    assert not isinstance(caught.value, BundleIntegrityError)


def test_a_missing_file_of_a_bundle_that_stands_is_missing(bundle_path: Path) -> None:
    opened = read_bundle(bundle_path)
    (bundle_path / "golden.npz").unlink()
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz is missing"):
        opened.read("golden.npz")
