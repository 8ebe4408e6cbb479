"""The manifest: what a bundle says of itself. Frozen dataclasses, to and from JSON, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from ganruntime.bundle.fields import integer as _integer
from ganruntime.bundle.fields import mapping as _mapping
from ganruntime.bundle.fields import number as _number
from ganruntime.bundle.fields import require as _require
from ganruntime.bundle.fields import string as _string
from ganruntime.bundle.fields import table as _table
from ganruntime.bundle.fields import tuple_of as _tuple
from ganruntime.bundle.tuning import Tuning
from ganruntime.errors import BundleFormatError
from ganruntime.roles import SIDE_LIMIT
from ganruntime.spec import GeneratorSpec
from ganruntime.strict_json import strict_loads

FORMAT = "ganexport-bundle"
SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT_BYTES = 8 << 20
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
FORMATS = ("onnx", "tensorrt")
OUTPUTS = ("float", "uint8")
HARDWARE_COMPATIBILITIES = ("none", "ampere+", "same-cc")
REFERENCE = "reference"  # the backend of a verdict that evaluated a graph by its definition, where no kernel runs it
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-+]*(/[A-Za-z0-9][A-Za-z0-9._\-+]*)*\Z")
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-+]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

T = TypeVar("T")


def file_name(value: object, where: str) -> str:
    """A relative path of plain names, with `/` between: it cannot leave the bundle, and cannot be the manifest."""
    name = _string(value, where)
    _require(
        bool(_FILE_NAME.match(name)),
        where,
        "is not a path inside the bundle",
        got=repr(name)[:200],
        expected="names of letters, digits, . _ - + with / between",
    )
    _require(name.split("/")[0] != MANIFEST_NAME, where, "is the manifest itself", got=name)
    return name


@dataclass(frozen=True)
class FileRecord:
    """One file of the bundle: its SHA-256 (64 lower-case hex digits) and its size."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        _require(bool(_SHA256.match(_string(self.sha256, "sha256"))), "sha256", "is not 64 hex digits", got=self.sha256)
        _integer(self.size_bytes, "size_bytes")


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
        _require(isinstance(self.passed, bool), "verdict.passed", "is not true or false", got=repr(self.passed)[:80])
        for name in ("backend", "device", "reference"):
            _string(getattr(self, name), f"verdict.{name}")
        object.__setattr__(self, "versions", _mapping(self.versions, "verdict.versions", _string))
        _integer(self.latents, "verdict.latents", 1)
        object.__setattr__(self, "batches", _tuple(self.batches, "verdict.batches", lambda v, w: _integer(v, w, 1)))
        object.__setattr__(self, "bound", _number(self.bound, "verdict.bound"))
        object.__setattr__(self, "errors", _mapping(self.errors, "verdict.errors", _number))
        object.__setattr__(self, "sizes", _tuple(self.sizes, "verdict.sizes", _size))

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
            _string(getattr(self, name), f"engine.{name}")
        object.__setattr__(self, "batches", _tuple(self.batches, "engine.batches", lambda v, w: _integer(v, w, 1)))
        _integer(self.largest_batch, "engine.largest_batch", 1)
        object.__setattr__(self, "build_seconds", _number(self.build_seconds, "engine.build_seconds"))
        _require(
            self.hardware_compatibility in HARDWARE_COMPATIBILITIES,
            "engine.hardware_compatibility",
            "is not known",
            got=repr(self.hardware_compatibility)[:80],
            expected=", ".join(HARDWARE_COMPATIBILITIES),
        )
        for name in ("version_compatible", "refittable", "stripped"):
            value = getattr(self, name)
            _require(isinstance(value, bool), f"engine.{name}", "is not true or false", got=repr(value)[:80])
        _require(self.refittable or not self.stripped, "engine.stripped", "needs engine.refittable")
        for name in ("graph_key", "graph_sha256"):
            value = _string(getattr(self, name), f"engine.{name}")
            _require(not value or bool(_SHA256.match(value)), f"engine.{name}", "is not 64 hex digits", got=value[:80])
        for name in ("sizes", "size_range"):
            object.__setattr__(self, name, _tuple(getattr(self, name), f"engine.{name}", _size))
        _require(
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
        _require(
            bool(_VARIANT_NAME.match(_string(self.name, "variant.name"))),
            "variant.name",
            "is not a name",
            got=repr(self.name)[:80],
        )
        where = f"variant {self.name}"
        _require(
            self.precision in PRECISIONS,
            f"{where}: precision",
            "is not known",
            got=repr(self.precision),
            expected=", ".join(PRECISIONS),
        )
        _require(
            self.format in FORMATS,
            f"{where}: format",
            "is not known",
            got=repr(self.format),
            expected=", ".join(FORMATS),
        )
        _require(
            self.output in OUTPUTS,
            f"{where}: output",
            "is not known",
            got=repr(self.output)[:80],
            expected=", ".join(OUTPUTS),
        )
        file_name(self.file, f"{where}: file")
        object.__setattr__(self, "verdicts", tuple(self.verdicts))
        _require(
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


@dataclass(frozen=True)
class GoldenRecord:
    """The reference samples: which file, drawn from which seed, how many latents, computed by what."""

    file: str
    seed: int
    latents: int
    reference: str

    def __post_init__(self) -> None:
        file_name(self.file, "golden.file")
        _integer(self.seed, "golden.seed", most=(1 << 64) - 1)
        _integer(self.latents, "golden.latents", 1)
        _string(self.reference, "golden.reference")


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself. `reports` is information for people: nothing is computed from it.

    tunings: what was measured to be fastest, on which machine. JSON has the key only where there are any.

    Raises:
        BundleFormatError: on construction, where anything is malformed or names a file that is not listed.
    """

    spec: GeneratorSpec
    files: Mapping[str, FileRecord]
    variants: tuple[Variant, ...]
    golden: GoldenRecord
    preview: str | None = None
    reports: Mapping[str, Any] = field(default_factory=dict)
    tunings: tuple[Tuning, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", tuple(self.variants))
        object.__setattr__(self, "tunings", tuple(self.tunings))
        names = [v.name for v in self.variants]
        _require(len(names) > 0, "manifest.variants", "is empty")
        _require(len(set(names)) == len(names), "manifest.variants", "has a name twice", got=names)
        for name in self.files:
            file_name(name, "manifest.files")
        for needed in (
            *(v.file for v in self.variants),
            self.golden.file,
            *([] if self.preview is None else [self.preview]),
        ):
            _require(
                needed in self.files,
                "manifest.files",
                "lacks a file that is named elsewhere",
                got=sorted(self.files),
                expected=needed,
            )
        places = [t.place for t in self.tunings]
        _require(len(set(places)) == len(places), "manifest.tunings", "has a machine twice, with the same versions")

    def variant(self, name: str) -> Variant:
        for v in self.variants:
            if v.name == name:
                return v
        raise BundleFormatError(f"no variant {name!r} in the bundle", expected=", ".join(v.name for v in self.variants))

    def dumps(self) -> str:
        """Canonical text: sorted keys, two spaces, a newline at the end, no time. Equal manifests give equal bytes."""
        data = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "spec": self.spec.to_json(),
            "files": {name: _json(record) for name, record in self.files.items()},
            "variants": [_variant_json(v) for v in self.variants],
            "golden": _json(self.golden),
            "preview": self.preview,
            "reports": dict(self.reports),
        }
        if self.tunings:
            data["tunings"] = [t.to_json() for t in self.tunings]
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def loads(cls, text: str) -> Manifest:
        """Reads `dumps`' form.

        Raises:
            BundleFormatError: the text is not a manifest, or is of a newer schema version.
            SpecError: the spec inside is malformed.
        """
        try:
            data = strict_loads(text)
        except ValueError as error:
            raise BundleFormatError(
                "manifest.json: is not JSON", got=str(error)[:200], remedy="export the bundle again"
            ) from error
        _require(isinstance(data, dict), "manifest.json", "is not a JSON object", got=type(data).__name__)
        _require(
            data.get("format") == FORMAT,
            "manifest.json: format",
            "is not that of a bundle",
            got=repr(data.get("format"))[:80],
            expected=repr(FORMAT),
        )
        version = _integer(data.get("schema_version"), "manifest.json: schema_version", 1)
        if version > SCHEMA_VERSION:
            raise BundleFormatError(
                "manifest.json: schema version is newer than this release reads",
                got=version,
                expected=f"at most {SCHEMA_VERSION}",
                remedy="pip install --upgrade ganexport",
            )
        known = {"format", "schema_version", "spec", "files", "variants", "golden", "preview", "reports", "tunings"}
        table = _table(data, "manifest", known, optional=frozenset({"tunings"}))
        _require(table.get("tunings") != [], "manifest.tunings", "stands only where there are any")
        _require(
            table["preview"] is None or isinstance(table["preview"], str),
            "manifest.preview",
            "is not a name",
            got=repr(table["preview"])[:80],
        )
        _require(
            isinstance(table["reports"], dict),
            "manifest.reports",
            "is not a JSON object",
            got=repr(table["reports"])[:80],
        )
        return cls(
            spec=GeneratorSpec.from_json(table["spec"]),
            files=_mapping(table["files"], "manifest.files", lambda v, w: _read(FileRecord, v, w)),
            variants=_tuple(table["variants"], "manifest.variants", _read_variant),
            golden=_read(GoldenRecord, table["golden"], "manifest.golden"),
            preview=table["preview"],
            reports=table["reports"],
            tunings=_tuple(table.get("tunings", []), "manifest.tunings", Tuning.from_json),
        )


def _read(cls: type[T], value: object, where: str) -> T:
    return cls(**_table(value, where, {f.name for f in fields(cls)}))  # type: ignore[arg-type]


def _size(value: object, where: str) -> tuple[int, int]:
    sides = _tuple(value, where, lambda v, w: _integer(v, w, 1, SIDE_LIMIT))
    _require(len(sides) == 2, where, "is not a height and a width", got=list(sides))
    return sides[0], sides[1]


def _read_verdict(value: object, where: str) -> Verdict:
    table = _table(value, where, {f.name for f in fields(Verdict)}, optional=frozenset({"sizes"}))
    _require(table.get("sizes") != [], f"{where}.sizes", "stands only where there are any")
    return Verdict(**table)


def _read_engine(value: object, where: str) -> EngineRecord:
    optional = ("sizes", "size_range")
    table = _table(value, where, {f.name for f in fields(EngineRecord)}, optional=frozenset(optional))
    for name in optional:
        _require(table.get(name) != [], f"{where}.{name}", "stands only where there are any")
    return EngineRecord(**table)


def _read_variant(value: object, where: str) -> Variant:
    table = _table(value, where, {f.name for f in fields(Variant)}, optional=frozenset({"output"}))
    # One way to say it: a manifest that is read and written again has the bytes that it had.
    _require(table.get("output") != OUTPUTS[0], f"{where}.output", "stands only where it is uint8", got=OUTPUTS[0])
    engine = None if table["engine"] is None else _read_engine(table["engine"], f"{where}.engine")
    verdicts = _tuple(table["verdicts"], f"{where}.verdicts", _read_verdict)
    return Variant(**(table | {"engine": engine, "verdicts": verdicts}))


def _variant_json(variant: Variant) -> Any:
    data = _json(variant)
    if data["output"] == OUTPUTS[0]:
        del data["output"]
    for name in ("sizes", "size_range"):
        if data["engine"] is not None and not data["engine"][name]:
            del data["engine"][name]
    for verdict in data["verdicts"]:
        if not verdict["sizes"]:
            del verdict["sizes"]
    return data


def _json(record: object) -> Any:
    if hasattr(record, "__dataclass_fields__"):
        return {name: _json(getattr(record, name)) for name in record.__dataclass_fields__}
    if isinstance(record, Mapping):
        return {k: _json(v) for k, v in record.items()}
    if isinstance(record, (tuple, list)):
        return [_json(v) for v in record]
    return record
