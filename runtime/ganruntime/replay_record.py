"""Replay records: what an image was made of, enough to make it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.encoding import SUFFIXES, Encoding
from ganruntime.errors import InputError
from ganruntime.run_request import MOST_THREADS, Request
from ganruntime.runs import BundleRecord
from ganruntime.strict_json import strict_loads

FORMAT, SCHEMA_VERSION = "ganexport-replay", 2
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class ReplayRecord:
    """One image.

    bundle_sha256: of the manifest that it was drawn from; graph_sha256: of the file that ran. Either may be None, for a
        session without a bundle. A manifest changes when a verdict is added, and the graph does not.
    seed, index: which image. inputs: {name: value} of labels and scalars (the truncation), as they were used;
        classes: the names of the labels among them.
    variant, precision, backend, device, bucket, versions: what ran, in which batch size.
    files: {name: {"file", "sha256", "row"}} of inputs that were given as files: name and SHA-256 of the file, and which
        row of it this image was given, where it holds more than one.
    threads, streams: of the backend, on the CPU; None where it has none, and in records of before they were kept.
    image_format, quality: of the picture's file. pixels_sha256: `pixels_digest` of what was drawn.
    """

    generator: str
    bundle_sha256: str | None
    graph_sha256: str | None
    variant: str
    precision: str
    backend: str
    device: str
    bucket: int
    versions: Mapping[str, str]
    seed: int
    index: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    image_format: str = "png"
    quality: int | None = None
    pixels_sha256: str | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: int | None = None
    streams: int | None = None

    @classmethod
    def of(
        cls,
        request: Request,
        bundle: BundleRecord,
        index: int,
        bucket: int,
        inputs: Mapping[str, Any] | None = None,
        classes: Mapping[str, str] | None = None,
        pixels_sha256: str | None = None,
        files: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> ReplayRecord:
        return cls(
            generator=request.generator,
            bundle_sha256=bundle.manifest_sha256,
            graph_sha256=request.graph_sha256,
            variant=request.variant,
            precision=request.precision,
            backend=request.backend,
            device=request.device,
            bucket=bucket,
            versions=request.versions,
            seed=request.seed,
            index=index,
            inputs=dict(inputs or {}),
            classes=dict(classes or {}),
            image_format=request.image_format,
            quality=request.quality,
            pixels_sha256=pixels_sha256,
            files=dict(files or {}),
            threads=request.threads,
            streams=request.streams,
        )

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.image_format, self.quality)

    def dumps(self) -> bytes:
        """Canonical bytes: one line, sorted keys. Equal records give equal bytes."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.files:  # earlier releases know no such field
            del data["files"]
        if self.threads is None:
            del data["threads"], data["streams"]
        data |= {"format": FORMAT, "schema_version": 1 if self.threads is None else SCHEMA_VERSION}
        return (json.dumps(data, sort_keys=True, ensure_ascii=False, default=dict) + "\n").encode()

    @classmethod
    def loads(cls, data: bytes, where: str) -> ReplayRecord:
        """Reads `dumps`' form. Raises `InputError` for anything else."""
        try:
            if len(data) > _LIMIT_BYTES:
                raise ValueError(f"more than {_LIMIT_BYTES:,} bytes")
            table = strict_loads(data.decode())
            if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            version = table.pop("schema_version", None)
            if version not in (1, SCHEMA_VERSION):
                raise ValueError(f"schema version {version!r}, and this release reads 1 and {SCHEMA_VERSION}")
            if {"threads", "streams"} & table.keys() != ({"threads", "streams"} if version > 1 else set()):
                raise ValueError(f"schema version {version}, which does not fit threads and streams")
            record = cls(**table)
            if (record.threads is None) != (version == 1):
                raise ValueError(f"threads is {record.threads!r}")
            record._require_types()
        except (ValueError, TypeError) as error:
            raise InputError(f"{where} is not a replay record", got=str(error)[:200]) from error
        return record

    def _require_types(self) -> None:
        for name, least, most in (("seed", 0, 2**64), ("index", 0, 2**64), ("bucket", 1, 65_537)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < most:
                raise ValueError(f"{name} is {value!r}")
        for name in ("threads", "streams"):
            value = getattr(self, name)
            if not (value is None or (type(value) is int and 1 <= value <= MOST_THREADS)):
                raise ValueError(f"{name} is {value!r}")
        for name in ("generator", "variant", "precision", "backend", "device"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}")
        for name in ("versions", "inputs", "classes"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is not an object")
        files = self.files.values() if isinstance(self.files, dict) else [None]
        for said in files:
            table = said if isinstance(said, dict) else {}
            row = table.get("row")
            sound = isinstance(table.get("file"), str) and isinstance(table.get("sha256"), str)
            if not sound or not (row is None or (type(row) is int and row >= 0)):
                raise ValueError(f"files is {str(self.files)[:100]}")
        for name in ("bundle_sha256", "graph_sha256", "pixels_sha256"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise ValueError(f"{name} is not text")
        if self.image_format not in SUFFIXES:
            raise ValueError(f"image_format is {self.image_format!r}")
        _ = self.encoding


def pixels_digest(image: NDArray[np.uint8]) -> str:
    """SHA-256 of `H,W,C:` in decimal and the pixels, row by row."""
    digest = hashlib.sha256((",".join(map(str, image.shape)) + ":").encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
