"""Replay: makes an image of a run again from its record, and says whether it is the same one.

The contract: the same graph on the same backend and device in the same bucket, with as many threads and streams, gives
the same image to the last bit. With any of them another, it is within the bound that the bundle's verdicts publish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.buckets import pieces_of
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.cores import usable_cores
from ganruntime.encoding import image_from_bytes
from ganruntime.errors import BundleError, InputError
from ganruntime.generator import Generator, load
from ganruntime.recorded import Recorded, recorded_image
from ganruntime.replay_inputs import inputs_again
from ganruntime.replay_record import ReplayRecord, pixels_digest
from ganruntime.runs import cpu_kind
from ganruntime.spec import GeneratorSpec, Image

__all__ = ["Bound", "Recorded", "Replay", "bundle_note", "compared", "published_bound", "recorded_image", "replay"]

_MOST_TURNS = 256  # threads that a record may ask for beyond the cores there are: it may come from anywhere


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
        threads: compute threads on the CPU; by default, and streams always, those of the record, as far as the backend
            takes as many on this machine: else as many as it does, and `Replay.differences` says so.
        inputs: {input: file, or its folder}, where the files that it was given lie now; by default where they lay.

    Raises:
        InputError: no bundle is named, or it has no such variant; a file that was given is missing, or another one.
        BundleError, BackendError, MissingDependencyError: as for `ganruntime.load`.
    """
    record = recorded.record
    opened = _opened(recorded, bundle)
    device, backend = device or record.device, backend or record.backend
    streams = None
    if (device, backend) == (record.device, record.backend):
        threads, streams = _settings(record, threads)
    generator = load(
        opened,
        device,
        backend,
        precision or record.variant,
        buckets=[bucket or record.bucket],
        threads=threads,
        streams=streams,
    )
    with generator:
        return compared(recorded, opened, generator, inputs)


def _settings(record: ReplayRecord, threads: int | None) -> tuple[int | None, int | None]:
    """(threads, streams) to load with: those of the record, but no more than the backend takes on this machine."""
    # ONNX Runtime takes any number, and on fewer cores they take turns; OpenVINO takes one for each core.
    most = usable_cores() if record.backend == "openvino" else max(_MOST_TURNS, usable_cores())
    wanted = threads or (None if record.threads is None else min(record.threads, most))
    return wanted, None if record.streams is None else min(record.streams, wanted or most)


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
    # Where a record tells none, they are no difference, unless the image turns out to be another.
    now |= {n: about[n] for n in ("threads", "streams") if n in about and getattr(record, n) is not None}
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
    if not identical and record.threads is None and "threads" in about:
        differences.append(f"threads: not recorded then, {about['threads']} now")
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


def bundle_note(record: ReplayRecord, bundle: Bundle) -> str | None:
    """A word on a manifest that changed while the graph did not, as when a verdict is added."""
    if record.bundle_sha256 in (None, bundle.manifest_sha256):
        return None
    return f"the bundle's manifest is another one ({record.bundle_sha256} then, {bundle.manifest_sha256} now)"
