"""Replay: makes an image of a run again from its record, and says whether it is the same one.

The contract: the same graph on the same backend and device in the same bucket gives the same image to the last bit. On
another backend, device or bucket, or with another variant, it is within the bound that the bundle's verdicts publish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.buckets import pieces_of
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.chunks import Chunk
from ganruntime.encoding import SUFFIXES, image_from_bytes
from ganruntime.errors import BundleError, InputError
from ganruntime.generator import Generator, load
from ganruntime.input_files import parts_of
from ganruntime.replay_inputs import Line, files_of_image, inputs_again, read_lines, sizes_of_images
from ganruntime.replay_record import ReplayRecord, pixels_digest
from ganruntime.runs import RUN_NAME, Request, cpu_kind, read_run
from ganruntime.shards import image_key, members_of, sample_of, shard_name
from ganruntime.spec import GeneratorSpec, Image

_RECORD_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Recorded:
    """An image as a run left it.

    record: what it was made of. picture: the bytes of its file, where there is one. bundle_path: where the run's bundle
    was, if known. where: what it is called in messages. input_lines: where the files lay that its inputs were given as.
    """

    record: ReplayRecord
    picture: bytes | None
    bundle_path: str | None
    where: str
    input_lines: Sequence[Line] = ()


@dataclass(frozen=True)
class Replay:
    """What came of making an image again.

    identical: whether all pixels are the same. compared: with what, `pixels`, `picture` (a lossy file: with the pixels
        of encoding the image again), `hash` (nothing but the record was there) or `size` (the picture has another).
    differences: in what this run is another than the recorded one, a line each: `backend: onnxruntime then, openvino
        now`.
    psnr_db: infinite where identical, None where there was nothing to compare with but a hash. levels: the largest
        difference of a pixel, likewise. bound: the published bound for these differences, None where the contract is
        identity.
    """

    image: NDArray[np.uint8]
    identical: bool
    compared: str
    differences: tuple[str, ...]
    psnr_db: float | None
    levels: int | None
    bound: Bound | None


@dataclass(frozen=True)
class Bound:
    """How far an image may be from another of the same latent: in pixel levels, or as a PSNR. Either may be unknown."""

    levels: int | None = None
    psnr_db: float | None = None

    def holds(self, levels: int, psnr_db: float) -> bool | None:
        """None where nothing is published."""
        if self.levels is not None:
            return levels <= self.levels
        return None if self.psnr_db is None else psnr_db >= self.psnr_db

    def __str__(self) -> str:
        if self.levels is not None:
            return f"at most {self.levels} level(s)"
        return "none is published" if self.psnr_db is None else f"at least {self.psnr_db:g} dB"


def recorded_image(path: Path, member: str | None = None, index: int | None = None) -> Recorded:
    """Finds an image of a run and its record.

    Args:
        path: a record file (.json), a shard (.tar), an image file in the folder of a run, or that folder.
        member: of a shard, the name of the picture, of its record, or what they have in common.
        index: of a shard or a folder, the image's index.

    Raises:
        InputError: there is no such image, or no record of it.
    """
    if path.is_dir():
        return _from_folder(path, _needed(index, member, f"{path} is the folder of a run"))
    if not path.is_file():
        raise InputError(f"{path} does not exist", expected="a record, a shard, an image of a run, or its folder")
    if path.suffix == ".tar":
        return _from_shard(path, member, index)
    if member is not None or index is not None:
        raise InputError(f"{path} is one image", got="--member or --index", expected="neither")
    if path.suffix in SUFFIXES.values():
        stem = path.stem
        number = stem.rpartition("-")[2]
        if not number.isdecimal():
            raise InputError(f"{path} is not named as images of a run are", expected="seed7-00000123.png")
        found = _from_folder(path.parent, int(number))
        if found.where != str(path):
            raise InputError(f"{path} is not an image of the run in {path.parent}", expected=found.where)
        return found
    with path.open("rb") as file:
        record = ReplayRecord.loads(file.read(_RECORD_LIMIT_BYTES + 1), str(path))
    beside = path.with_suffix(record.encoding.suffix)
    picture = beside.read_bytes() if beside.is_file() else None
    return Recorded(record, picture, _bundle_path(path.parent), str(path), read_lines(path.parent))


def replay(
    recorded: Recorded,
    bundle: Bundle | Path | str | None = None,
    *,
    device: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    bucket: int | None = None,
    threads: int | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> Replay:
    """Makes a recorded image again.

    Args:
        bundle: by default the one that the run names.
        device, backend, precision, bucket: by default those of the record.
        threads: compute threads on the CPU; of most networks they change nothing (docs/embedding.md, "Equality").
        inputs: {input: file, or its folder}, where the files that it was given lie now; by default where they lay.

    Raises:
        InputError: no bundle is named, or it has no such variant; a file that was given is missing, or another one.
        BundleError, BackendError, MissingDependencyError: as for `ganruntime.load`.
    """
    record = recorded.record
    opened = _opened(recorded, bundle)
    generator = load(
        opened,
        device or record.device,
        backend or record.backend,
        precision or record.variant,
        buckets=[bucket or record.bucket],
        threads=threads,
    )
    with generator:
        return compared(recorded, opened, generator, inputs)


def compared(
    recorded: Recorded, bundle: Bundle | None, generator: Generator, inputs: Mapping[str, Path] | None = None
) -> Replay:
    """The replay on a generator that is loaded already, in the one bucket that it runs (`buckets=[…]`)."""
    record = recorded.record
    given: dict[str, Any] = inputs_again(generator.spec, record.files, recorded.input_lines, inputs or {})
    image = generator.generate(1, seed=record.seed, first=record.index, **(given | dict(record.inputs)))[0]
    about = generator.describe()
    graph = None if bundle is None else bundle.manifest.files[bundle.variant(about["variant"]).file].sha256
    now = {
        "generator": generator.spec.name,
        "graph_sha256": graph,
        "variant": about["variant"],
        "backend": about["backend"],
        "device": about["device"],
        "bucket": pieces_of(1, tuple(about["buckets"]))[0].bucket,
    }
    differences = [
        f"{name}: {getattr(record, name)} then, {value} now"
        for name, value in now.items()
        if getattr(record, name) != value
    ]
    versions = about["versions"] | ({"cpu": cpu_kind()} if about["device"] == "cpu" else {})
    differences += [
        f"{name}: {then} then, {versions[name]} now"
        for name, then in record.versions.items()
        if name in versions and versions[name] != then
    ]
    identical, compared_with, before = _stored(recorded, image)
    if compared_with == "size":
        differences.append(f"size: another than {image.shape[1]} × {image.shape[0]} then")
    psnr_db = levels = None
    if identical:
        psnr_db, levels = math.inf, 0
    elif before is not None:
        again = image
        if compared_with == "picture":
            again = image_from_bytes(record.encoding.bytes_from_image(image), image.shape[2], recorded.where)
        psnr_db, levels = _psnr(again, before), int(np.abs(again.astype(int) - before).max(initial=0))
    bound = published_bound(bundle, record, about["variant"], generator.spec) if differences else None
    return Replay(image, identical, compared_with, tuple(differences), psnr_db, levels, bound)


def published_bound(bundle: Bundle | None, record: ReplayRecord, variant: str, spec: GeneratorSpec) -> Bound:
    """How far apart two images of a latent may be, by the verdicts of the variants that drew them.

    fp32 is held to a largest error e in the output's own range: two sessions differ by 2e at most, and pixels by as
    many levels and one more for the rounding. Lower precisions are held to a PSNR against fp32; where both runs are of
    a lower precision, the noise of both may add up, which costs 6 dB at most.
    """
    if bundle is None or spec.image is None:
        return Bound()
    known = {v.name: v for v in bundle.manifest.variants}
    pair = [known.get(record.variant), known.get(variant)]
    verdicts = [verdict for v in pair if v is not None for verdict in v.verdicts]
    if not all(v is not None and v.verdicts for v in pair):
        return Bound()
    floors = [v.verdicts[0].errors.get("floor_psnr_db") for v in pair if v is not None]
    lower = [floor for floor in floors if floor is not None]
    if lower:
        return Bound(psnr_db=min(lower) - (20 * math.log10(2) if len(lower) == 2 else 0.0))
    assert isinstance(spec.image.role, Image)
    low, high = spec.image.role.range
    return Bound(levels=1 + math.floor(2 * max(v.bound for v in verdicts) * 255 / (high - low)))


def _stored(recorded: Recorded, image: NDArray[np.uint8]) -> tuple[bool, str, NDArray[np.uint8] | None]:
    """(identical, compared with what, the pixels that were stored)."""
    record, picture = recorded.record, recorded.picture
    before = None if picture is None else image_from_bytes(picture, image.shape[2], recorded.where)
    if before is not None and before.shape != image.shape:
        return False, "size", None
    if before is not None and record.encoding.lossless:
        same = bool(np.array_equal(before, image))
        # The picture may have been exchanged for another, and its record tells.
        return same and record.pixels_sha256 in (None, pixels_digest(image)), "pixels", before
    if record.pixels_sha256 is not None:
        same = record.pixels_sha256 == pixels_digest(image)
        return same, "picture" if before is not None else "hash", before
    if before is None:
        raise InputError(
            f"{recorded.where} has neither a picture nor the hash of its pixels", remedy="replay it from its shard"
        )
    assert picture is not None
    return picture == record.encoding.bytes_from_image(image), "picture", before


def _psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    mean = float(np.square(a.astype(np.float64) - b).mean())
    return math.inf if mean == 0.0 else 10 * math.log10(255.0**2 / mean)


def _from_shard(path: Path, member: str | None, index: int | None) -> Recorded:
    bundle_path = _bundle_path(path.parent)
    if index is not None and member is None:
        member = _key_of(path, index)
    record_bytes, picture = sample_of(path, _needed(member, None, f"{path} is a shard"))
    where = f"{path}: {picture[0] if picture is not None else member}"
    record = ReplayRecord.loads(record_bytes, where)
    lines = read_lines(path.parent)
    return Recorded(record, picture[1] if picture is not None else None, bundle_path, where, lines)


def _key_of(path: Path, index: int) -> str:
    ending = f"-{index:08d}.json"
    for name in members_of(path):
        if name.endswith(ending):
            return name
    raise InputError(f"{path} has no image of index {index}", remedy=f"tar tf {path} lists what is in it")


def _from_folder(path: Path, index: int) -> Recorded:
    request, bundle = read_run(path)
    number = index - request.first
    if not 0 <= number < request.count:
        raise InputError(
            f"{path} has no image of index {index}",
            expected=f"{request.first} to {request.first + request.count - 1}",
        )
    key = image_key(request.seed, index)
    if request.format == "tar":
        assert request.shard_images is not None
        return _from_shard(path / shard_name(number // request.shard_images), key, None)
    file = path / (key + request.encoding.suffix)
    if not file.is_file():
        raise InputError(f"{file} does not exist", remedy="ganexport generate with the run's options completes it")
    lines = read_lines(path) if request.files else []
    files = files_of_image(lines, request, index)
    record = ReplayRecord.of(request, bundle, index, _bucket_of(request, number, lines), request.inputs, files=files)
    return Recorded(record, file.read_bytes(), bundle.path, str(file), lines)


def _bucket_of(request: Request, number: int, lines: Sequence[Line]) -> int:
    """The bucket that image `number` of a folder ran in: chunks of the largest bucket, the last one cut further, all of
    them where the size of what images were given changes."""
    size = request.buckets[-1]
    start = number - number % size
    chunk = Chunk(start, min(size, request.count - start))
    sizes = sizes_of_images(lines, request, request.first + start, chunk.count)
    part = next(p for p in parts_of(chunk, sizes) if number < p.start + p.count)
    pieces = pieces_of(part.count, request.buckets)
    return next(p.bucket for p in pieces if number - part.start < p.start + p.rows)


def _bundle_path(folder: Path) -> str | None:
    return read_run(folder)[1].path if (folder / RUN_NAME).is_file() else None


def _opened(recorded: Recorded, bundle: Bundle | Path | str | None) -> Bundle:
    if isinstance(bundle, Bundle):
        return bundle
    path = bundle or recorded.bundle_path
    if path is None:
        raise InputError(f"{recorded.where} does not say where its bundle is", remedy="--bundle NAME.gan")
    try:
        return read_bundle(path)
    except BundleError as error:
        if bundle is None and not Path(path).exists():
            raise InputError(
                "the bundle of the run is not where it was", got=str(path), remedy="--bundle NAME.gan"
            ) from error
        raise


def _needed(value: Any, other: Any, problem: str) -> Any:
    if value is None or other is not None:
        raise InputError(
            f"{problem}: which image?", remedy="--index I" + ("" if "folder" in problem else " or --member NAME")
        )
    return value


def bundle_note(record: ReplayRecord, bundle: Bundle) -> str | None:
    """A word on a manifest that changed while the graph did not, as when a verdict is added."""
    if record.bundle_sha256 in (None, bundle.manifest_sha256):
        return None
    return f"the bundle's manifest is another one ({record.bundle_sha256} then, {bundle.manifest_sha256} now)"
