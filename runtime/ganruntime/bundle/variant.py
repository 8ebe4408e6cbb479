"""Variants: the ways to run a generator, what was found when each was run, and what an engine was built with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ganruntime.bundle.fields import (
    file_name,
    integer,
    json_of,
    mapping,
    number,
    require,
    size,
    string,
    table,
    tuple_of,
)

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
# Of a verdict's figures: the largest distance between two runs of the same inputs; 0.0 where bits were the same.
REPEAT_GAP = "repeat.gap"
FORMATS = ("onnx", "tensorrt")
OUTPUTS = ("float", "uint8")
HARDWARE_COMPATIBILITIES = ("none", "ampere+", "same-cc")
REFERENCE = "reference"  # the backend of a verdict that evaluated a graph by its definition, where no kernel runs it
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-+]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Verdict:
    """What was found when a variant was run against its reference.

    passed: whether every check held, within `bound` on the largest absolute error in the output's own range.
    backend, device, versions: what it ran on.
    reference: what it was compared with.
    latents, batches: over how many latents, in which batch sizes.
    errors: measured figures, such as max_abs, mean_abs, max_uint8, psnr_db.
    sizes: where height and width vary, the (height, width) of the first image input in which it was run; the first
        over all latents in all batches, the others over fewer. JSON has the key only where there are any.
    """

    passed: bool
    backend: str
    device: str
    versions: Mapping[str, str]
    reference: str
    latents: int
    batches: tuple[int, ...]
    bound: float
    errors: Mapping[str, float]
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        require(isinstance(self.passed, bool), "verdict.passed", "is not true or false", got=repr(self.passed)[:80])
        for name in ("backend", "device", "reference"):
            string(getattr(self, name), f"verdict.{name}")
        object.__setattr__(self, "versions", mapping(self.versions, "verdict.versions", string))
        integer(self.latents, "verdict.latents", 1)
        object.__setattr__(self, "batches", tuple_of(self.batches, "verdict.batches", lambda v, w: integer(v, w, 1)))
        object.__setattr__(self, "bound", number(self.bound, "verdict.bound"))
        object.__setattr__(self, "errors", mapping(self.errors, "verdict.errors", number))
        object.__setattr__(self, "sizes", tuple_of(self.sizes, "verdict.sizes", size))

    @property
    def place(self) -> tuple[str, str]:
        """Where it ran: a newer verdict for the same place replaces this one."""
        return self.backend, self.device


@dataclass(frozen=True)
class EngineRecord:
    """What a TensorRT engine was built with, and so what it runs on.

    tensorrt, cuda, driver: versions. compute_capability: such as "9.0". gpu: the device's name.
    batches: the static profiles, ascending; `largest_batch`: the upper end of the dynamic profile.
    sizes: where height and width vary, the [height, width]s that it was tuned for, each at every one of `batches`;
        size_range: the smallest and the largest size that it takes. Both are empty elsewhere, and then not in the JSON.
    build_seconds: what the build took.
    hardware_compatibility: `none` (this compute capability), `same-cc` (any GPU of this compute capability, asked for)
        or `ampere+` (8.0 and later). version_compatible: whether later TensorRT releases run it too.
    refittable: whether it takes new weights; stripped: whether it has none of its own, and takes them at load.
    graph_key: SHA-256 of the graph without its weights; graph_sha256: of the ONNX file whose weights it has.
    """

    tensorrt: str
    compute_capability: str
    gpu: str
    driver: str
    cuda: str
    batches: tuple[int, ...]
    largest_batch: int
    build_seconds: float
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    refittable: bool = False
    stripped: bool = False
    graph_key: str = ""
    graph_sha256: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    size_range: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("tensorrt", "compute_capability", "gpu", "driver", "cuda"):
            string(getattr(self, name), f"engine.{name}")
        object.__setattr__(self, "batches", tuple_of(self.batches, "engine.batches", lambda v, w: integer(v, w, 1)))
        integer(self.largest_batch, "engine.largest_batch", 1)
        object.__setattr__(self, "build_seconds", number(self.build_seconds, "engine.build_seconds"))
        require(
            self.hardware_compatibility in HARDWARE_COMPATIBILITIES,
            "engine.hardware_compatibility",
            "is not known",
            got=repr(self.hardware_compatibility)[:80],
            expected=", ".join(HARDWARE_COMPATIBILITIES),
        )
        for name in ("version_compatible", "refittable", "stripped"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"engine.{name}", "is not true or false", got=repr(value)[:80])
        require(self.refittable or not self.stripped, "engine.stripped", "needs engine.refittable")
        for name in ("graph_key", "graph_sha256"):
            value = string(getattr(self, name), f"engine.{name}")
            require(not value or bool(_SHA256.match(value)), f"engine.{name}", "is not 64 hex digits", got=value[:80])
        for name in ("sizes", "size_range"):
            object.__setattr__(self, name, tuple_of(getattr(self, name), f"engine.{name}", size))
        require(
            len(self.size_range) == (2 if self.sizes else 0),
            "engine.size_range",
            "is not the smallest and the largest size of an engine that has sizes",
            got=[list(size) for size in self.size_range],
        )


@dataclass(frozen=True)
class Variant:
    """One way to run the generator: a graph or an engine, its precision, and its verdicts.

    output: `float`, images as the spec says; or `uint8`, images as pixels, uint8 [H, W, C] in [0, 255]. JSON has the
        key only where it is `uint8`.
    """

    name: str
    precision: str
    format: str
    file: str
    verdicts: tuple[Verdict, ...] = ()
    engine: EngineRecord | None = None
    output: str = "float"

    def __post_init__(self) -> None:
        require(
            bool(_VARIANT_NAME.match(string(self.name, "variant.name"))),
            "variant.name",
            "is not a name",
            got=repr(self.name)[:80],
        )
        where = f"variant {self.name}"
        require(
            self.precision in PRECISIONS,
            f"{where}: precision",
            "is not known",
            got=repr(self.precision),
            expected=", ".join(PRECISIONS),
        )
        require(
            self.format in FORMATS,
            f"{where}: format",
            "is not known",
            got=repr(self.format),
            expected=", ".join(FORMATS),
        )
        require(
            self.output in OUTPUTS,
            f"{where}: output",
            "is not known",
            got=repr(self.output)[:80],
            expected=", ".join(OUTPUTS),
        )
        file_name(self.file, f"{where}: file")
        object.__setattr__(self, "verdicts", tuple(self.verdicts))
        require(
            (self.engine is not None) == (self.format == "tensorrt"),
            where,
            "has an engine record if and only if it is an engine",
        )

    @property
    def status(self) -> str:
        """`verified`, `failed` (a check failed somewhere), `reference` (a reference evaluation checked its numbers, and
        no backend has run it yet) or `unverified` (it never ran anywhere)."""
        if not self.verdicts:
            return "unverified"
        if not all(v.passed for v in self.verdicts):
            return "failed"
        return "reference" if all(v.backend == REFERENCE for v in self.verdicts) else "verified"

    def status_by(self, backend: str | None) -> str:
        """`status` as it concerns one backend: by its own verdicts where it has any, else by everybody's.

        What fails in one backend may hold in another, and the other way round.
        """
        own = tuple(v for v in self.verdicts if v.backend == backend)
        return replace(self, verdicts=own).status if own else self.status

    def with_verdict(self, verdict: Verdict) -> Variant:
        """The variant with this verdict, in place of an older one of the same backend and device."""
        kept = tuple(v for v in self.verdicts if v.place != verdict.place)
        return replace(self, verdicts=(*kept, verdict))


def _read_verdict(value: object, where: str) -> Verdict:
    read = table(value, where, {f.name for f in fields(Verdict)}, optional=frozenset({"sizes"}))
    require(read.get("sizes") != [], f"{where}.sizes", "stands only where there are any")
    return Verdict(**read)


def _read_engine(value: object, where: str) -> EngineRecord:
    optional = ("sizes", "size_range")
    read = table(value, where, {f.name for f in fields(EngineRecord)}, optional=frozenset(optional))
    for name in optional:
        require(read.get(name) != [], f"{where}.{name}", "stands only where there are any")
    return EngineRecord(**read)


def read_variant(value: object, where: str) -> Variant:
    read = table(value, where, {f.name for f in fields(Variant)}, optional=frozenset({"output"}))
    # One way to say it: a manifest that is read and written again has the bytes that it had.
    require(read.get("output") != OUTPUTS[0], f"{where}.output", "stands only where it is uint8", got=OUTPUTS[0])
    engine = None if read["engine"] is None else _read_engine(read["engine"], f"{where}.engine")
    verdicts = tuple_of(read["verdicts"], f"{where}.verdicts", _read_verdict)
    return Variant(**(read | {"engine": engine, "verdicts": verdicts}))


def variant_json(variant: Variant) -> Any:
    data = json_of(variant)
    if data["output"] == OUTPUTS[0]:
        del data["output"]
    for name in ("sizes", "size_range"):
        if data["engine"] is not None and not data["engine"][name]:
            del data["engine"][name]
    for verdict in data["verdicts"]:
        if not verdict["sizes"]:
            del verdict["sizes"]
    return data
