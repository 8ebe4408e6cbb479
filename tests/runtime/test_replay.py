"""Replay: any image again from its record, identical or with what differs."""

from __future__ import annotations

import io
import json
import math
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from small_bundles import verdict, write_small_bundle

import ganruntime.replay as module
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from ganruntime.encoding import Encoding
from ganruntime.errors import InputError
from ganruntime.generator import Generator, load
from ganruntime.pipeline import write_images
from ganruntime.replay import Bound, compared, recorded_image, replay
from ganruntime.runs import BundleRecord, request_from
from ganruntime.writers import Destination, writer_for

COUNT, FIRST, SEED = 30, 90, 7
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("replay") / "conditional.gan", conditional=True)


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Generator:
    return load(bundle, "cpu", "onnxruntime", buckets=(1, 4, 16), threads=1)


@pytest.fixture
def run(bundle: Path, generator: Generator, tmp_path: Path) -> Run:
    def make(format: str = "tar", image_format: str = "png", **inputs: Any) -> Path:
        opened = read_bundle(bundle)
        asked = request_from(
            generator.describe(),
            opened.spec,
            opened,
            seed=SEED,
            first=FIRST,
            count=COUNT,
            inputs=inputs,
            format=format,
            encoding=Encoding(image_format),
            shard_images=20 if format == "tar" else None,
        )
        folder = tmp_path / f"{format}-{image_format}"
        record = BundleRecord(str(bundle), opened.manifest_sha256)
        writer = writer_for(Destination(folder, format), generator.spec, asked, record)
        write_images(generator, writer, seed=SEED, first=FIRST, inputs=inputs)
        return folder

    return make


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("format", ["files", "tar"])
def test_every_image_of_a_run_comes_again(
    run: Run, bundle: Path, generator: Generator, format: str, image_format: str
) -> None:
    folder = run(format, image_format, truncation=0.7)
    loaded = {b: load(bundle, "cpu", "onnxruntime", buckets=[b], threads=1) for b in (1, 4, 16)}
    for index in range(FIRST, FIRST + COUNT):
        recorded = recorded_image(folder, index=index)
        answer = compared(recorded, read_bundle(bundle), loaded[recorded.record.bucket])
        assert answer.identical, index
        assert answer.differences == ()
        assert (answer.psnr_db, answer.levels, answer.bound) == (math.inf, 0, None)
        expected = generator.generate(1, seed=SEED, first=index, truncation=0.7)[0]
        assert np.abs(answer.image.astype(int) - expected).max() <= 1


def test_an_image_is_found_in_every_way(run: Run, tmp_path: Path) -> None:
    shards, files = run("tar"), run("files")
    key = f"seed{SEED}-{FIRST + 25:08d}"
    with tarfile.open(shards / "shard-000001.tar") as archive:
        for name in (f"{key}.json", f"{key}.png"):
            member = archive.extractfile(name)
            assert member is not None
            (tmp_path / name).write_bytes(member.read())
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / f"{key}.json", tmp_path / "alone")
    ways: list[tuple[Path, dict[str, Any]]] = [
        (shards, {"index": FIRST + 25}),
        (shards / "shard-000001.tar", {"index": FIRST + 25}),
        (shards / "shard-000001.tar", {"member": key}),
        (shards / "shard-000001.tar", {"member": f"{key}.png"}),
        (shards / "shard-000001.tar", {"member": f"{key}.json"}),
        (files, {"index": FIRST + 25}),
        (files / f"{key}.png", {}),
        (tmp_path / f"{key}.json", {}),
        (tmp_path / "alone" / f"{key}.json", {}),
    ]
    pictures = set()
    for path, how in ways:
        recorded = recorded_image(path, **how)
        assert (recorded.record.seed, recorded.record.index) == (SEED, FIRST + 25)
        pictures.add(recorded.picture)
    assert len(pictures) == 2  # the same one everywhere, and none beside the lone record
    assert recorded.bundle_path is None


def test_a_lone_record_is_told_by_its_hash(run: Run, bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(run() / "shard-000000.tar") as archive:
        data = archive.extractfile(archive.getnames()[1]).read()  # type: ignore[union-attr]
    path = tmp_path / "record.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match="does not say where its bundle is") as caught:
        replay(recorded_image(path))
    assert caught.value.remedy == "--bundle NAME.gan"
    answer = replay(recorded_image(path), bundle, threads=1)
    assert (answer.identical, answer.compared) == (True, "hash")
    path.write_bytes(data.replace(b'"pixels_sha256": "', b'"pixels_sha256": "0')[:-1])
    answer = replay(recorded_image(path), bundle, threads=1)
    assert (answer.identical, answer.psnr_db, answer.levels) == (False, None, None)


def test_another_bucket_is_named_and_held_to_the_bound(run: Run) -> None:
    recorded = recorded_image(run(), index=FIRST)
    assert recorded.record.bucket == 16
    answer = replay(recorded, bucket=1, threads=1)
    assert answer.differences == ("bucket: 16 then, 1 now",)
    assert answer.bound == Bound(levels=1)
    assert answer.levels is not None
    assert answer.levels <= 1


def test_other_threads_are_named_and_held_to_the_bound(run: Run) -> None:
    recorded = recorded_image(run(), index=FIRST)
    assert recorded.record.threads == 1
    assert replay(recorded).differences == ()
    answer = replay(recorded, threads=2)
    assert answer.differences == ("threads: 1 then, 2 now",)
    assert answer.bound == Bound(levels=1)


def test_as_many_threads_run_as_were_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, Any]] = []

    def noted(*arguments: Any, **options: Any) -> Generator:
        loaded.append({"backend": arguments[2]} | {n: options[n] for n in ("threads", "streams")})
        return load(*arguments, **options)

    monkeypatch.setattr(module, "load", noted)
    recorded = recorded_image(run(), index=FIRST)
    # More than there may be cores: they take turns.
    three = replace(recorded, record=replace(recorded.record, threads=3))
    assert replay(three).differences == ()
    # A record may come from anywhere: thousands of threads are not started for it.
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    many = replace(recorded, record=replace(recorded.record, threads=60_000))
    assert replay(many).differences == ("threads: 60000 then, 256 now",)
    # Another backend's threads say nothing of this one's.
    pytest.importorskip("openvino")
    assert "backend: onnxruntime then, openvino now" in replay(three, backend="openvino").differences
    assert loaded == [
        {"backend": "onnxruntime", "threads": 3, "streams": None},
        {"backend": "onnxruntime", "threads": 256, "streams": None},
        {"backend": "openvino", "threads": None, "streams": None},
    ]


def test_openvino_runs_as_many_threads_and_streams_as_there_are_cores(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    recorded = recorded_image(run(), index=FIRST)
    record = replace(recorded.record, backend="openvino", threads=2, streams=2, versions={})
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    answer = replay(replace(recorded, record=record))
    assert answer.differences == ("threads: 2 then, 1 now", "streams: 2 then, 1 now")
    assert answer.bound == Bound(levels=1)
    assert answer.levels is not None
    assert answer.levels <= 1


def test_a_record_without_threads_blames_them_only_for_what_differs(run: Run, tmp_path: Path) -> None:
    recorded = recorded_image(run(), index=FIRST)
    old = replace(recorded, record=replace(recorded.record, threads=None))
    assert replay(old, threads=1).differences == ()
    other = replace(old, record=replace(old.record, index=FIRST + 1))
    answer = replay(other, threads=1)
    assert answer.differences == ("threads: not recorded then, 1 now",)
    assert answer.bound == Bound(levels=1)


def test_another_bundle_is_named_and_measured(run: Run, tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path / "other.gan", conditional=True, seed=9)
    answer = replay(recorded_image(run(), index=FIRST), other, threads=1)
    assert not answer.identical
    (difference,) = answer.differences
    assert difference.startswith("graph_sha256: ")
    assert answer.psnr_db is not None
    assert answer.psnr_db < 40
    assert answer.levels is not None
    assert answer.levels > 1


def test_a_verdict_that_was_added_changes_nothing(run: Run, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy.gan")
    with bundle_changed(tmp_path / "copy.gan") as draft:
        draft.put_variant(draft.variants[0].with_verdict(verdict(device="cuda:0")))
    answer = replay(recorded_image(run(), index=FIRST), tmp_path / "copy.gan", threads=1)
    assert answer.identical
    assert answer.differences == ()


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_a_changed_picture_is_not_identical(run: Run, image_format: str) -> None:
    folder = run("files", image_format)
    path = folder / f"seed{SEED}-{FIRST:08d}{Encoding(image_format).suffix}"
    pixels = np.asarray(PIL.Image.open(path)).copy()
    pixels[0, 0] ^= 64
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, image_format)
    path.write_bytes(buffer.getvalue())
    answer = replay(recorded_image(path), threads=1)
    assert not answer.identical
    assert answer.differences == ()
    assert answer.psnr_db is not None
    assert 5 < answer.psnr_db < 45
    assert answer.bound is None


def test_a_picture_that_was_exchanged_for_another_is_found_by_its_record(run: Run, tmp_path: Path) -> None:
    with tarfile.open(run() / "shard-000000.tar") as archive:
        names = archive.getnames()
        picture, record = (archive.extractfile(names[i]).read() for i in (2, 1))  # type: ignore[union-attr]
    (tmp_path / "x.json").write_bytes(record)
    (tmp_path / "x.png").write_bytes(picture)
    answer = replay(recorded_image(tmp_path / "x.json"), recorded_image(run(), index=FIRST).bundle_path, threads=1)
    assert not answer.identical


def test_what_is_not_there_is_refused(run: Run, tmp_path: Path, bundle: Path) -> None:
    shards, files = run("tar"), run("files")
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.tar").write_bytes(b"x" * 600)
    (tmp_path / "not.json").write_text("{}")
    (tmp_path / "picture.png").write_bytes(b"x")
    cut = tmp_path / "cut.tar"
    cut.write_bytes((shards / "shard-000000.tar").read_bytes()[:700])
    key = f"seed{SEED}-{FIRST:08d}"
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "nothing", {}, "does not exist"),
        (tmp_path / "empty", {"index": 3}, "has no run record"),
        (tmp_path / "not.tar", {"index": 3}, "is not a shard"),
        (cut, {"member": key}, "has no record of|is not a whole tar file"),
        (tmp_path / "not.json", {}, "is not a replay record"),
        (tmp_path / "picture.png", {}, "is not named as"),
        (shards, {}, "which image"),
        (shards, {"index": FIRST - 1}, "has no image of index"),
        (shards, {"index": FIRST + COUNT}, "has no image of index"),
        (shards / "shard-000000.tar", {}, "which image"),
        (shards / "shard-000000.tar", {"index": FIRST + 25}, "has no image of index"),
        (shards / "shard-000000.tar", {"member": "seed1-00000000"}, "has no record of"),
        (files / f"{key}.png", {"index": 3}, "is one image"),
        (files, {"index": FIRST + COUNT}, "has no image of index"),
    ]
    for path, how, problem in cases:
        with pytest.raises(InputError, match=problem):
            recorded_image(path, **how)
    shutil.copy(files / f"{key}.png", files / f"seed8-{FIRST:08d}.png")
    with pytest.raises(InputError, match="is not an image of the run"):
        recorded_image(files / f"seed8-{FIRST:08d}.png")
    (files / f"{key}.png").unlink()
    with pytest.raises(InputError, match="does not exist"):
        recorded_image(files, index=FIRST)
    data = json.loads((shards / "run.json").read_text())
    data["bundle"]["path"] = str(tmp_path / "gone.gan")
    (shards / "run.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="is not where it was"):
        replay(recorded_image(shards, index=FIRST))
    assert replay(recorded_image(shards, index=FIRST), bundle, threads=1).identical


def test_bounds_follow_the_verdicts(run: Run, bundle: Path, tmp_path: Path) -> None:
    """A variant of a lower precision is held to its floor; two of them may differ by the noise of both."""
    shutil.copytree(bundle, tmp_path / "copy.gan")
    with bundle_changed(tmp_path / "copy.gan") as draft:
        lower = verdict()
        lower.errors["floor_psnr_db"] = 40.0  # type: ignore[index]
        draft.put_variant(Variant("int8", "int8", "onnx", "model.onnx", (lower,)))
    recorded = recorded_image(run(), index=FIRST)
    answer = replay(recorded, tmp_path / "copy.gan", precision="int8", threads=1)
    assert "variant: fp32 then, int8 now" in answer.differences
    assert answer.bound == Bound(psnr_db=40.0)
    assert Bound(psnr_db=40.0).holds(9, 41.0)
    assert not Bound(psnr_db=40.0).holds(9, 39.0)
    assert Bound(levels=1).holds(1, 0.0)
    assert not Bound(levels=1).holds(2, 99.0)
    assert Bound().holds(0, 99.0) is None
