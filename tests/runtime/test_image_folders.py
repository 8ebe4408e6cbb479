"""Folders of images and shards: what lies in them, and what a second start keeps, draws again and refuses."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_requests import (
    COLOUR,
    GREY,
    add,
    bytes_in,
    images,
    images_in,
    names_in,
    pixels,
    request,
    samples_in,
    write_rest,
)

from ganruntime.chunks import Drawn
from ganruntime.encoding import Encoding, image_from_bytes
from ganruntime.errors import BackendError, InputError, OutputError
from ganruntime.image_writer import ImageWriter
from ganruntime.replay_record import ReplayRecord, pixels_digest
from ganruntime.runs import BundleRecord, Request, RunFolder, read_run
from ganruntime.spec import GeneratorSpec
from ganruntime.writers import Destination, writer_for

COUNT, FIRST = 42, 95  # of 16 a chunk and 10 a shard
EVERYTHING = images(COUNT)


def begin(folder: Path, format: str, spec: GeneratorSpec = GREY, **other: Any) -> ImageWriter:
    arguments: dict[str, Any] = {"seed": 7, "first": FIRST, "format": format, "spec": spec}
    if format == "tar":
        arguments["shard_images"] = 10
    asked = request(other.pop("count", COUNT), **(arguments | other))
    return writer_for(Destination(folder, format), spec, asked, workers=2)


@pytest.fixture(params=["files", "tar"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_shard_holds_each_image_and_its_record(tmp_path: Path) -> None:
    writer = begin(tmp_path, "tar", COLOUR, inputs={"truncation": 0.5})
    drawn = images(COUNT, 3)
    with writer:
        for chunk in writer.chunks(16):
            rows = slice(chunk.start, chunk.start + chunk.count)
            inputs = {"label": np.arange(COUNT)[rows] % 3, "truncation": np.full(chunk.count, 0.5, np.float32)}
            writer.add(Drawn(chunk.start, drawn[rows], inputs))
    assert writer.written == COUNT
    assert images_in(tmp_path) == [f"shard-{i:06d}.tar" for i in range(5)]
    samples = [sample for i in range(5) for sample in samples_in(tmp_path / f"shard-{i:06d}.tar")]
    assert [key for key, _, _ in samples] == [f"seed7-{i:08d}" for i in range(FIRST, FIRST + COUNT)]
    for i, (_, image, record) in enumerate(samples):
        np.testing.assert_array_equal(image, drawn[i])
        assert (record["seed"], record["index"], record["variant"]) == (7, FIRST + i, "fp32")
        assert record["inputs"] == {"label": i % 3, "truncation": 0.5}
        assert record["classes"] == {"label": ("zero", "one", "two")[i % 3]}
        assert record["pixels_sha256"] == pixels_digest(drawn[i])
    # The cheapest covers in buckets of 1, 4 and 16: ten images run as 4 + 4 + 1 + 1.
    assert [record["bucket"] for _, _, record in samples] == ([4] * 8 + [1] * 2) * 4 + [1, 1]


def test_a_shard_depends_on_its_images_alone(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 8)):
        writer = writer_for(
            Destination(tmp_path / name, "tar"), GREY, request(COUNT, 7, FIRST, format="tar"), workers=workers
        )
        write_rest(writer, EVERYTHING)
    assert bytes_in(tmp_path / "a") == bytes_in(tmp_path / "b")
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644
            assert member.isreg()
    assert (tmp_path / "a" / "shard-000000.tar").stat().st_size % 10_240 == 0


def test_each_file_has_a_line_with_its_hash(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    lines = [json.loads(line) for line in (tmp_path / "files.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == images_in(tmp_path)
    for line in lines:
        data = (tmp_path / line["file"]).read_bytes()
        assert line == {"file": line["file"], "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def test_the_run_record_says_what_was_asked(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    asked, _ = read_run(tmp_path)
    assert (asked.seed, asked.first, asked.count, asked.format) == (7, FIRST, COUNT, format)
    assert "numpy" not in asked.versions
    assert asked.versions.keys() >= {"fake", "pillow", "zlib", "cpu"}


def test_another_processor_is_another_run(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels round otherwise: images of both would be mixed."""
    write_rest(begin(tmp_path, format), EVERYTHING)
    monkeypatch.setattr("ganruntime.run_request.cpu_kind", lambda: "z80")
    with pytest.raises(InputError, match="holds another run") as caught:
        begin(tmp_path, format)
    assert "z80 asked for" in str(caught.value.got)


def test_a_run_that_is_whole_asks_for_nothing(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    before = bytes_in(tmp_path)
    writer = begin(tmp_path, format)
    assert writer.written == COUNT
    assert write_rest(writer, EVERYTHING) == []
    assert bytes_in(tmp_path) == before


@pytest.mark.parametrize("stopped_after", [0, 1, 2])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, format: str, stopped_after: int) -> None:
    write_rest(begin(tmp_path / "whole", format), EVERYTHING)
    writer = begin(tmp_path / "stopped", format)
    with writer:
        for chunk, _ in zip(writer.chunks(16), range(stopped_after), strict=False):
            add(writer, EVERYTHING[chunk.start : chunk.start + chunk.count], start=chunk.start)
    there = writer.written
    writer = begin(tmp_path / "stopped", format)
    assert writer.written == there
    asked = write_rest(writer, EVERYTHING)
    assert writer.written == COUNT
    assert bytes_in(tmp_path / "stopped") == bytes_in(tmp_path / "whole")
    # What was whole is not drawn again: shards by the shard, files by the chunk.
    assert asked[0][0] == there
    assert sum(n for _, n in asked) == COUNT - there


@pytest.mark.parametrize("damage", ["missing", "shorter", "changed", "link"])
@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_file_that_was_lost_or_changed_is_made_again(tmp_path: Path, format: str, damage: str, which: int) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    before = bytes_in(tmp_path)
    victim = tmp_path / images_in(tmp_path)[which]
    data = victim.read_bytes()
    victim.unlink()
    if damage == "shorter":
        victim.write_bytes(data[:-1])
    elif damage == "changed":
        victim.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif damage == "link":
        victim.symlink_to("/dev/null")
    writer = begin(tmp_path, format)
    asked = write_rest(writer, EVERYTHING)
    assert bytes_in(tmp_path) == before
    assert not victim.is_symlink()
    assert sum(n for _, n in asked) <= 16
    assert writer.written == COUNT


def test_a_line_of_something_else_is_dropped_with_all_after_it(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    before = bytes_in(tmp_path)
    lines = before["files.jsonl"].splitlines(keepends=True)
    for wrong in (
        b"\xff\xfe\n",
        b"{}\n",
        b"[1]\n",
        lines[1],
        lines[2].replace(b'"sha256": "', b'"sha256": "x'),
        lines[2][:-1],
    ):
        (tmp_path / "files.jsonl").write_bytes(b"".join([*lines[:2], wrong]))
        writer = begin(tmp_path, format)
        assert writer.written == 2 * (10 if format == "tar" else 1)
        write_rest(writer, EVERYTHING)
        assert bytes_in(tmp_path) == before


def test_another_request_is_refused_with_what_differs(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    before = bytes_in(tmp_path)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"seed": 8}, ["seed: 7 there, 8 asked for"]),
        ({"count": 50}, ["count: 42 there, 50 asked for"]),
        ({"first": 0, "seed": 1}, ["first: 95 there, 0 asked for", "seed: 7 there, 1 asked for"]),
        ({"inputs": {"truncation": 0.5}}, ["inputs.truncation: none there, 0.5 asked for"]),
        ({"described": {"variant": "int8"}}, ["variant: fp32 there, int8 asked for"]),
        ({"described": {"buckets": [64]}}, ["buckets: [1, 4, 16] there, [64] asked for"]),
        ({"described": {"versions": {"fake": "2"}}}, ["versions.fake: 1 there, 2 asked for"]),
        ({"described": {"device": "cuda:0"}}, ["device: cpu there, cuda:0 asked for"]),
        ({"image_format": "jpeg"}, ["image_format: png there, jpeg asked for", "quality: none there, 95 asked for"]),
    ]
    if format == "tar":
        cases.append(({"shard_images": 20}, ["shard_images: 10 there, 20 asked for"]))
    for other, said in cases:
        with pytest.raises(InputError, match="holds another run") as caught:
            begin(tmp_path, format, **other)
        for line in said:
            assert line in str(caught.value.got)
        assert "choose another folder" in str(caught.value.remedy)
    with pytest.raises(InputError, match="holds another run") as caught:
        begin(tmp_path, "files" if format == "tar" else "tar")
    assert f"format: {format} there" in str(caught.value.got)
    assert bytes_in(tmp_path) == before
    begin(tmp_path, format).finish()  # a refusal leaves no lock behind


def test_another_numpy_is_no_other_run(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path, format), EVERYTHING)
    assert begin(tmp_path, format, described={"versions": {"fake": "1", "numpy": "99"}}).written == COUNT


def test_an_image_drawn_again_that_is_another_is_an_error(tmp_path: Path, format: str) -> None:
    """A machine with other kernels would mix its own images into the run."""
    write_rest(begin(tmp_path, format), EVERYTHING)
    before = bytes_in(tmp_path)
    lost = images_in(tmp_path)[1]
    (tmp_path / lost).unlink()
    with pytest.raises(BackendError, match="was drawn again and is not what it was") as caught:
        write_rest(begin(tmp_path, format), images(COUNT, seed=99))
    assert "kind of machine" in str(caught.value.remedy)
    assert images_in(tmp_path) == [n for n in before if n.startswith("s") and n != lost]


def test_without_a_record_nothing_is_trusted(tmp_path: Path, format: str) -> None:
    write_rest(begin(tmp_path / "whole", format), EVERYTHING)
    (tmp_path / "other").mkdir()
    for name, data in bytes_in(tmp_path / "whole").items():
        if name != "run.json":
            (tmp_path / "other" / name).write_bytes(data)
    writer = begin(tmp_path / "other", format)
    assert writer.written == 0
    write_rest(writer, EVERYTHING)
    assert bytes_in(tmp_path / "other") == bytes_in(tmp_path / "whole")


BAD_RECORDS = [
    b"",
    b"{",
    b"[]",
    b"\xff",
    b'{"format": "other", "schema_version": 1, "request": {}, "bundle": {}}',
    b'{"format": "ganexport-run", "schema_version": 2, "request": {}, "bundle": {}}',
    b'{"format": "ganexport-run", "schema_version": 1}',
    b'{"format": "ganexport-run", "schema_version": 1, "request": [], "bundle": {}}',
    b'{"format": "ganexport-run", "schema_version": 3, "request": {}, "bundle": {}}',
    b" " * ((1 << 20) + 1),
]


@pytest.mark.parametrize("data", BAD_RECORDS, ids=[str(i) for i in range(len(BAD_RECORDS))])
def test_a_malformed_record_is_refused(tmp_path: Path, format: str, data: bytes) -> None:
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(InputError, match=r"run\.json is not a run record"):
        begin(tmp_path, format)
    assert bytes_in(tmp_path) == {"run.json": data}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("count", True),
        ("count", 0),
        ("buckets", []),
        ("buckets", [0]),
        ("buckets", 3),
        ("format", "zip"),
        ("versions", []),
        ("image_format", "bmp"),
        ("device", None),
        ("other", 1),
    ],
)
def test_a_record_with_a_value_that_is_none_of_ours_is_refused(tmp_path: Path, name: str, value: object) -> None:
    write_rest(begin(tmp_path, "files"), EVERYTHING)
    data = json.loads((tmp_path / "run.json").read_text())
    data["request"][name] = value
    (tmp_path / "run.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="is not a run record"):
        read_run(tmp_path)


def test_two_at_once_are_refused(tmp_path: Path, format: str) -> None:
    with begin(tmp_path, format), pytest.raises(OutputError, match="another process is writing into"):
        begin(tmp_path, format)
    begin(tmp_path, format).finish()


def test_a_folder_that_may_not_be_written_is_an_output_error(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        begin(tmp_path / "file" / "folder", format)


@pytest.mark.parametrize(("image_format", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp")])
def test_lossy_formats_take_a_quality(tmp_path: Path, format: str, image_format: str, suffix: str) -> None:
    smooth = np.linspace(0, 255, COUNT * 16 * 16 * 3).reshape(COUNT, 16, 16, 3).astype(np.uint8)
    sizes = []
    for quality in (20, None, 100):
        folder = tmp_path / str(quality)
        write_rest(begin(folder, format, COLOUR, image_format=image_format, quality=quality), smooth)
        if format == "files":
            assert {Path(name).suffix for name in images_in(folder)} == {suffix}
            found = np.stack([pixels(folder / name) for name in images_in(folder)])
        else:
            found = np.stack([s[1] for i in range(5) for s in samples_in(folder / f"shard-{i:06d}.tar")])
        assert np.abs(found.astype(int) - smooth).mean() < 12
        sizes.append(sum(len(data) for name, data in bytes_in(folder).items() if name.startswith("s")))
    assert sizes[0] < sizes[1] or format == "tar"
    assert Encoding(image_format).quality == {"jpeg": 95, "webp": 90}[image_format]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_an_encoding_is_read_back(image_format: str, channels: int) -> None:
    encoding = Encoding(image_format)
    image = np.full((8, 6, channels), 90, np.uint8)
    if image_format == "jpeg" and channels == 4:
        with pytest.raises(InputError, match="draws nothing that a JPEG can hold") as caught:
            encoding.require_channels(channels, "small")
        assert caught.value.remedy == "--image-format png"
        return
    encoding.require_channels(channels, "small")
    data = encoding.bytes_from_image(image)
    assert data == encoding.bytes_from_image(image)
    assert np.abs(image_from_bytes(data, channels, "it").astype(int) - image).max() <= 2


@pytest.mark.parametrize(
    ("image_format", "quality", "problem"),
    [("bmp", None, "not an image format"), ("png", 90, "PNG has no quality"), ("jpeg", 0, "out of range")]
    + [("webp", value, "out of range") for value in (101, True, 9.5)],
)
def test_an_encoding_that_is_none_is_refused(image_format: str, quality: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Encoding(image_format, quality)


def test_records_tell_threads_and_streams_and_older_ones_do_not() -> None:
    def record_of(described: dict[str, Any]) -> ReplayRecord:
        return ReplayRecord.of(request(4, 7, described=described), BundleRecord(), 3, 16)

    new, old = record_of({"threads": 3, "streams": 2}), record_of({})
    for record, version in ((new, 2), (old, 1)):
        table = json.loads(record.dumps())
        assert table["schema_version"] == version
        assert ("threads" in table, "streams" in table) == (version == 2, version == 2)
        assert ReplayRecord.loads(record.dumps(), "it") == record
    assert (new.threads, new.streams, old.threads, old.streams) == (3, 2, None, None)
    table = json.loads(new.dumps())
    for change in (
        {"schema_version": 1},
        {"schema_version": 3},
        {"threads": 0},
        {"threads": None},
        {"threads": True},
        {"threads": 10**6},
        {"streams": 0},
        {"streams": "2"},
    ):
        with pytest.raises(InputError, match="is not a replay record"):
            ReplayRecord.loads(json.dumps(table | change).encode(), "it")


def test_a_run_of_other_threads_is_another_and_one_that_tells_none_is_not(tmp_path: Path) -> None:
    one, two, untold = (request(4, described={"threads": n} if n else {}) for n in (1, 2, None))
    assert one.differences(two) == ["threads: 1 there, 2 asked for"]
    assert one.differences(untold) == untold.differences(one) == []
    for asked, version in ((two, 2), (untold, 1)):
        writer = writer_for(Destination(tmp_path / str(version), "files"), GREY, asked, workers=0)
        writer.discard()
        assert json.loads((tmp_path / str(version) / "run.json").read_text())["schema_version"] == version
        assert read_run(tmp_path / str(version))[0] == asked
    # Gone on with, it stays what it was: its records tell no threads to the end.
    folder = RunFolder(tmp_path / "1", two, BundleRecord(), str, 4)
    folder.close()
    assert folder.request == untold
    for path, change in ((tmp_path / "1", {"threads": 2}), (tmp_path / "2", {"threads": 0})):
        data = json.loads((path / "run.json").read_text())
        data["request"] |= change
        (path / "run.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match="is not a run record"):
            read_run(path)


def test_records_are_read_strictly() -> None:
    asked: Request = request(4, 7)
    record = ReplayRecord.of(
        asked, BundleRecord("digits.gan", "1" * 64), 3, 16, {"label": 1}, {"label": "one"}, "0" * 64
    )
    data = record.dumps()
    assert ReplayRecord.loads(data, "it") == record
    assert data.endswith(b"}\n")
    table = json.loads(data)
    for change in (
        {"format": "x"},
        {"schema_version": 2},
        {"seed": -1},
        {"index": 2**64},
        {"bucket": 0},
        {"bucket": True},
        {"variant": 3},
        {"inputs": []},
        {"image_format": "bmp"},
        {"pixels_sha256": 3},
        {"unknown": 1},
    ):
        with pytest.raises(InputError, match="is not a replay record"):
            ReplayRecord.loads(json.dumps(table | change).encode(), "it")
    for wrong in (b"", b"[]", b"\xff", data[:-3], b" " * ((1 << 20) + 1)):
        with pytest.raises(InputError, match="is not a replay record"):
            ReplayRecord.loads(wrong, "it")


def test_what_else_is_in_a_folder_is_left_alone(tmp_path: Path) -> None:
    for name in ("a.png", "seed9-00000000.png", ".hidden", "shard-x.tar"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    write_rest(begin(tmp_path, "files"), EVERYTHING)
    for name in ("a.png", "seed9-00000000.png", ".hidden", "shard-x.tar"):
        assert (tmp_path / name).read_text() == "mine"
    assert "link" in names_in(tmp_path)
