"""Run requests: all that the bytes of a bulk run depend on."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ganruntime.bundle import Bundle
from ganruntime.encoding import Encoding
from ganruntime.spec import GeneratorSpec

FOLDER_FORMATS = ("files", "tar")
MOST_THREADS = 65_536
_INSTRUCTION_SETS = {"avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "sve"}
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Request:
    """All that the bytes of a run depend on. Two runs of equal requests give equal bytes.

    generator, spec_sha256, graph_sha256: the generator's name, its spec, and the file of the variant that runs (None
        for a session without a bundle).
    variant, precision, backend, device, buckets, streams, threads, versions: what runs it. `threads` is None where
        the backend has none of its own, as on a GPU, and in records of before it was kept.
    seed, first, count: which images. inputs: the labels and scalars that were chosen for all of them; files: {input:
        SHA-256} of what was given as files (`ganruntime.input_files`).
    format: `files` or `tar`. image_format, quality: of the images. shard_images: in one shard, None without shards.
    """

    generator: str
    spec_sha256: str
    graph_sha256: str | None
    variant: str
    precision: str
    backend: str
    device: str
    buckets: tuple[int, ...]
    streams: int | None
    versions: Mapping[str, str]
    seed: int
    first: int
    count: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    format: str = "files"
    image_format: str = "png"
    quality: int | None = None
    shard_images: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.image_format, self.quality)

    def to_json(self) -> dict[str, Any]:
        # Without files or threads, the record is what it was before there were any: earlier releases read it.
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("files", "threads")}
        data |= {"files": dict(self.files)} if self.files else {}
        data |= {} if self.threads is None else {"threads": self.threads}
        return data | {"buckets": list(self.buckets), "versions": dict(self.versions), "inputs": dict(self.inputs)}

    def differences(self, other: Request) -> list[str]:
        """What another request asks differently, a line each: `seed: 7 there, 8 asked for`.

        A number of threads that one of the two does not tell is no difference.
        """
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        if None in (self.threads, other.threads):
            mine.pop("threads", None)
            theirs.pop("threads", None)
        return [
            f"{name}: {_short(mine.get(name))} there, {_short(theirs.get(name))} asked for"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]

    def require_types(self) -> None:
        """Raises `ValueError` for what this module does not write: a record may come from anywhere."""
        least = {"seed": 0, "first": 0, "count": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} is {value!r}")
        for name in ("threads", "streams"):
            value = getattr(self, name)
            if not (value is None or (type(value) is int and 1 <= value <= MOST_THREADS)):
                raise ValueError(f"{name} is {value!r}")
        for value in (*self.buckets, *([] if self.shard_images is None else [self.shard_images])):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{value!r} is not a number of images")
        if self.format not in FOLDER_FORMATS or (self.format == "tar") != (self.shard_images is not None):
            raise ValueError(f"format is {self.format!r} with shard_images {self.shard_images!r}")
        tables = self.versions, self.inputs, self.files
        if not self.buckets or not all(isinstance(table, dict) for table in tables):
            raise ValueError("buckets, versions, inputs or files are malformed")
        for name in ("generator", "spec_sha256", "variant", "precision", "backend", "device"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}")
        _ = self.encoding


def request_from(
    described: Mapping[str, Any],
    spec: GeneratorSpec,
    bundle: Bundle | None,
    *,
    seed: int,
    first: int,
    count: int,
    inputs: Mapping[str, Any] | None = None,
    format: str = "files",
    encoding: Encoding | None = None,
    shard_images: int | None = None,
    files: Mapping[str, str] | None = None,
) -> Request:
    """The request of a generator: `described` is what its `describe()` gives."""
    encoding = encoding or Encoding()
    graph = None
    if bundle is not None:
        graph = bundle.manifest.files[bundle.variant(described["variant"]).file].sha256
    # Not NumPy's: the noise is exact on every version of it.
    versions = {k: v for k, v in described["versions"].items() if k != "numpy"} | encoding.versions()
    if described["device"] == "cpu":
        versions["cpu"] = cpu_kind()
    return Request(
        generator=spec.name,
        spec_sha256=hashlib.sha256(spec.dumps().encode()).hexdigest(),
        graph_sha256=graph,
        variant=described["variant"],
        precision=described["precision"],
        backend=described["backend"],
        device=described["device"],
        buckets=tuple(described["buckets"]),
        streams=described.get("streams"),
        versions=versions,
        seed=seed,
        first=first,
        count=count,
        inputs=dict(inputs or {}),
        format=format,
        image_format=encoding.image_format,
        quality=encoding.quality,
        shard_images=shard_images,
        files=dict(files or {}),
        threads=described.get("threads"),
    )


@functools.cache
def cpu_kind() -> str:
    """The processor as far as backends choose kernels by it, such as `x86_64 avx2 fma`: other kernels, other bits."""
    try:
        flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text().partition("\n\n")[0]))
    except OSError:
        flags = set()
    return " ".join([platform.machine(), *sorted(flags & _INSTRUCTION_SETS)])


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects as `versions.onnxruntime`, so that a difference names its place."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 16 or not _SHA256.match(text) else text[:12] + "…"
