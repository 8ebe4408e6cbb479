"""Input files: which row an image gets, what a run and a record say of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_bundles import SPEC, picture, saved, write_painter

from ganruntime.bundle import read_bundle
from ganruntime.chunks import Chunk
from ganruntime.errors import InputError
from ganruntime.generator import Generator, load
from ganruntime.images import uint8_from_output, values_from_uint8
from ganruntime.input_files import InputFiles, input_files, inputs_from_texts, named_texts, parts_of
from ganruntime.pipeline import drawn, write_images
from ganruntime.replay import recorded_image, replay
from ganruntime.runs import BundleRecord, request_from
from ganruntime.writers import Destination, writer_for

SIZES = [(8, 6), (8, 6), (4, 10), (8, 6), (8, 6), (8, 6), (4, 10)]
SEED = 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_painter(tmp_path_factory.mktemp("painter") / "painter.gan")


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Iterator[Generator]:
    with load(bundle, "cpu", "onnxruntime", buckets=(1, 2), threads=1) as generator:
        yield generator


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, size in enumerate(SIZES):
        saved(picture(i, *size), tmp_path / "photos" / f"p{i}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


@pytest.fixture
def points(tmp_path: Path) -> Path:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).uniform(-1, 1, (len(SIZES), 2, 2)).astype(np.float32))
    return tmp_path / "points.npy"


def given(**paths: Path) -> InputFiles:
    return input_files(SPEC, paths)


CHOSEN: dict[str, Any] = {"words": [3, 4, 0, 0], "class": "night"}


def test_image_i_takes_row_i_whatever_the_run(generator: Generator, photos: Path, points: Path) -> None:
    files = given(photo=photos, points=points)
    rows = np.load(points)

    def images(first: int, count: int, size: int, overlapped: bool) -> list[Any]:
        chunks = [Chunk(s, min(size, count - s)) for s in range(0, count, size)]
        with drawn(
            generator, chunks, seed=SEED, first=first, inputs=CHOSEN, files=files, overlapped=overlapped
        ) as results:
            return [image for result in results for image in result.images]

    alone = [
        generator.generate(
            1, seed=SEED, first=i, photo=values_from_uint8(picture(i, *size), SPEC.inputs[0]), points=rows[i], **CHOSEN
        )[0]
        for i, size in enumerate(SIZES)
    ]
    assert len({a.tobytes() for a in alone}) == len(SIZES)
    for first, count, size, overlapped in ((0, 7, 4, True), (0, 7, 1, False), (2, 5, 3, False), (6, 1, 4, True)):
        found = images(first, count, size, overlapped)
        for a, b in zip(found, alone[first : first + count], strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_input_is_felt(generator: Generator, photos: Path, points: Path) -> None:
    """The tests here would see an input that is lost: the small network lets none go without a trace."""
    image = values_from_uint8(picture(0), SPEC.inputs[0])
    base: dict[str, Any] = {"photo": image, "points": np.zeros((2, 2)), "words": [0, 0, 0, 0], "class": 0}
    others = {"photo": -image, "points": np.ones((2, 2)), "words": [9, 9, 9, 9], "class": 1, "strength": 1.0}
    first = generator.generate(1, **base)
    for name, value in others.items():
        assert not np.array_equal(first, generator.generate(1, **(base | {name: value}))), name


@pytest.mark.parametrize("format", ["files", "tar"])
def test_a_run_goes_on_and_every_image_of_it_comes_again(
    bundle: Path, generator: Generator, photos: Path, points: Path, tmp_path: Path, format: str
) -> None:
    opened = read_bundle(bundle)

    def run(files: InputFiles, folder: Path = tmp_path / "run") -> Path:
        asked = request_from(
            generator.describe(),
            opened.spec,
            opened,
            seed=SEED,
            first=1,
            count=6,
            inputs=CHOSEN,
            format=format,
            shard_images=4 if format == "tar" else None,
            files=files.digests,
        )
        record = BundleRecord(str(bundle), opened.manifest_sha256)
        writer = writer_for(Destination(folder, format), SPEC, asked, record, files=files)
        write_images(generator, writer, seed=SEED, first=1, inputs=CHOSEN, files=files)
        return folder

    folder = run(given(photo=photos, points=points))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for index in range(1, 7):
        answer = replay(recorded_image(folder, index=index))
        assert answer.identical, index
        assert answer.differences == ()
    # The same files in another place are the same run; the lines say where they lie now.
    moved = shutil.move(photos, tmp_path / "moved")
    with pytest.raises(InputError, match=r"p2\.png for input 'photo' is not where it was[\s\S]*--input photo=FILE"):
        replay(recorded_image(folder, index=2))
    assert replay(recorded_image(folder, index=2), inputs={"photo": Path(moved)}).identical
    assert replay(recorded_image(folder, index=2), inputs={"photo": Path(moved) / "p2.png"}).identical
    with pytest.raises(InputError, match=r"p3\.png is not what input 'photo' was given"):
        replay(recorded_image(folder, index=2), inputs={"photo": Path(moved) / "p3.png"})
    lost = "seed7-00000002.png" if format == "files" else "shard-000000.tar"
    (folder / lost).unlink()
    run(given(photo=Path(moved), points=points))
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {n: b for n, b in after.items() if n != "inputs.jsonl"} == {
        n: b for n, b in before.items() if n != "inputs.jsonl"
    }
    assert str(moved) in after["inputs.jsonl"].decode()
    saved(picture(99), Path(moved) / "p3.png")
    with pytest.raises(InputError, match=r"holds another run\s+got: +files\.photo: "):
        run(given(photo=Path(moved), points=points))


def test_a_record_names_each_file_without_its_folder(photos: Path, points: Path) -> None:
    files = given(photo=photos, points=points)
    digest = hashlib.sha256((photos / "p3.png").read_bytes()).hexdigest()
    assert files.records(3) == {
        "photo": {"file": "p3.png", "sha256": digest},
        "points": {"file": "points.npy", "sha256": hashlib.sha256(points.read_bytes()).hexdigest(), "row": 3},
    }
    lines = [json.loads(line) for line in files.lines().splitlines()]
    assert len(lines) == len(SIZES) + 1
    assert lines[3]["path"] == str(photos / "p3.png")
    assert given(photo=photos / "p3.png").digests == {"photo": digest}


def test_a_file_that_changes_while_a_run_goes_on_is_an_error(photos: Path) -> None:
    files = given(photo=photos)
    saved(picture(50), photos / "p1.png")
    files.rows(0, 1)
    with pytest.raises(InputError, match=r"p1\.png was changed since the run began"):
        files.rows(1, 1)
    (photos / "p2.png").unlink()
    with pytest.raises(InputError, match=r"cannot read .*p2\.png"):
        files.rows(2, 1)


def test_one_for_all_and_rows_of_different_numbers(photos: Path, points: Path, tmp_path: Path) -> None:
    single = given(photo=photos / "p0.png")
    assert single.count is None
    assert single.rows(3, 4)["photo"].shape == (4, 3, 8, 6)
    assert single.default_count(0, ["z", "class"]) == 1
    assert single.default_count(0, ["z"]) == 64
    assert given(photo=photos).default_count(2, []) == 5
    np.save(tmp_path / "few.npy", np.zeros((3, 2, 2), np.float32))
    with pytest.raises(InputError, match=r"different numbers of rows\s+got: +7 of 'photo', 3 of 'points'"):
        given(photo=photos, points=tmp_path / "few.npy")
    with pytest.raises(InputError, match=r"has 7 rows[\s\S]*images 5 to 8[\s\S]*-n 2"):
        given(photo=photos).require_range(5, 4)
    given(photo=photos).require_one_size(3, 3, "x.npz")
    with pytest.raises(InputError, match=r"p0\.png: height 8, width 6; p2\.png: height 4, width 10"):
        given(photo=photos).require_one_size(0, 3, "x.npz")


def test_sizes_that_the_network_does_not_take_are_named_before_anything_runs(tmp_path: Path) -> None:
    saved(picture(0, 8, 6), tmp_path / "p" / "a.png")
    saved(picture(0, 7, 6), tmp_path / "p" / "b.png")
    with pytest.raises(InputError, match=r"b\.png: input 'photo' has a size[\s\S]*multiples of 2"):
        given(photo=tmp_path / "p")


def test_what_is_missing_says_how_to_give_it(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no seed gives[\s\S]*--input photo=FILE --input words=FILE"):
        given().require_all(["points"])
    (tmp_path / "empty").mkdir()
    for name, path, message in (
        ("photo", tmp_path / "empty", "holds no pictures"),
        ("photo", tmp_path / "none.png", r"does not exist[\s\S]*a picture"),
        ("photo", photos / "notes.txt", r"nothing that input 'photo' takes[\s\S]*\.png"),
        ("points", photos, "is no image"),
        ("points", photos / "p0.png", "nothing that input 'points' takes"),
        ("photon", photos, "has no input 'photon'"),
    ):
        with pytest.raises(InputError, match=message):
            given(**{name: path})


def test_texts_are_values_or_paths(photos: Path) -> None:
    texts = named_texts([f"photo={photos}", "words=[1]", "class=night", "strength=0.25", "z=[0, 1]"])
    values, files = inputs_from_texts(SPEC, texts)
    assert values == {"words": [1, 0, 0, 0], "class": "night", "strength": 0.25, "z": [0, 1]}
    assert files.names == ("photo",)
    for wrong in (["photo"], ["=a"], ["photo="], ["a=1", "a=2"]):
        with pytest.raises(InputError, match=r"NAME=FILE|given twice"):
            named_texts(wrong)


def test_parts_cut_where_the_size_changes() -> None:
    sizes = [1, 1, 2, 1, 1]
    assert list(parts_of(Chunk(10, 5), sizes)) == [Chunk(10, 2), Chunk(12, 1), Chunk(13, 2)]
    assert list(parts_of(Chunk(0, 3), [None] * 3)) == [Chunk(0, 3)]


def test_images_of_the_painter_are_what_its_inputs_say(generator: Generator) -> None:
    photo = values_from_uint8(picture(0), SPEC.inputs[0])
    arguments: dict[str, Any] = {"points": np.zeros((2, 2)), "words": [4, 4, 4, 4], "class": 0, "z": np.zeros(2)}
    image = generator.generate(1, photo=photo, strength=0.5, **arguments)
    np.testing.assert_array_equal(image, uint8_from_output((photo * 0.5 + 0.2)[None], SPEC.outputs[0]))
