"""The manifest: what a bundle says of itself. Frozen dataclasses, to and from JSON, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ganruntime.bundle.fields import (
    MANIFEST_NAME,
    file_name,
    integer,
    json_of,
    mapping,
    require,
    string,
    table,
    tuple_of,
)
from ganruntime.bundle.tuning import Tuning
from ganruntime.bundle.variant import (
    FORMATS,
    HARDWARE_COMPATIBILITIES,
    OUTPUTS,
    PRECISIONS,
    REFERENCE,
    EngineRecord,
    Variant,
    Verdict,
    read_variant,
    variant_json,
)
from ganruntime.errors import BundleFormatError
from ganruntime.spec import GeneratorSpec
from ganruntime.strict_json import strict_loads

__all__ = [
    "FORMAT",
    "FORMATS",
    "HARDWARE_COMPATIBILITIES",
    "MANIFEST_LIMIT_BYTES",
    "MANIFEST_NAME",
    "OUTPUTS",
    "PRECISIONS",
    "REFERENCE",
    "SCHEMA_VERSION",
    "EngineRecord",
    "FileRecord",
    "GoldenRecord",
    "Manifest",
    "Variant",
    "Verdict",
    "file_name",
]

FORMAT = "ganexport-bundle"
SCHEMA_VERSION = 1
MANIFEST_LIMIT_BYTES = 8 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

T = TypeVar("T")


@dataclass(frozen=True)
class FileRecord:
    """One file of the bundle: its SHA-256 (64 lower-case hex digits) and its size."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        require(bool(_SHA256.match(string(self.sha256, "sha256"))), "sha256", "is not 64 hex digits", got=self.sha256)
        integer(self.size_bytes, "size_bytes")


@dataclass(frozen=True)
class GoldenRecord:
    """The reference samples: which file, drawn from which seed, how many latents, computed by what."""

    file: str
    seed: int
    latents: int
    reference: str

    def __post_init__(self) -> None:
        file_name(self.file, "golden.file")
        integer(self.seed, "golden.seed", most=(1 << 64) - 1)
        integer(self.latents, "golden.latents", 1)
        string(self.reference, "golden.reference")


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
        require(len(names) > 0, "manifest.variants", "is empty")
        require(len(set(names)) == len(names), "manifest.variants", "has a name twice", got=names)
        for name in self.files:
            file_name(name, "manifest.files")
        for needed in (
            *(v.file for v in self.variants),
            self.golden.file,
            *([] if self.preview is None else [self.preview]),
        ):
            require(
                needed in self.files,
                "manifest.files",
                "lacks a file that is named elsewhere",
                got=sorted(self.files),
                expected=needed,
            )
        places = [t.place for t in self.tunings]
        require(len(set(places)) == len(places), "manifest.tunings", "has a machine twice, with the same versions")

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
            "files": {name: json_of(record) for name, record in self.files.items()},
            "variants": [variant_json(v) for v in self.variants],
            "golden": json_of(self.golden),
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
        require(isinstance(data, dict), "manifest.json", "is not a JSON object", got=type(data).__name__)
        require(
            data.get("format") == FORMAT,
            "manifest.json: format",
            "is not that of a bundle",
            got=repr(data.get("format"))[:80],
            expected=repr(FORMAT),
        )
        version = integer(data.get("schema_version"), "manifest.json: schema_version", 1)
        if version > SCHEMA_VERSION:
            raise BundleFormatError(
                "manifest.json: schema version is newer than this release reads",
                got=version,
                expected=f"at most {SCHEMA_VERSION}",
                remedy="pip install --upgrade ganexport",
            )
        known = {"format", "schema_version", "spec", "files", "variants", "golden", "preview", "reports", "tunings"}
        read = table(data, "manifest", known, optional=frozenset({"tunings"}))
        require(read.get("tunings") != [], "manifest.tunings", "stands only where there are any")
        require(
            read["preview"] is None or isinstance(read["preview"], str),
            "manifest.preview",
            "is not a name",
            got=repr(read["preview"])[:80],
        )
        require(
            isinstance(read["reports"], dict),
            "manifest.reports",
            "is not a JSON object",
            got=repr(read["reports"])[:80],
        )
        return cls(
            spec=GeneratorSpec.from_json(read["spec"]),
            files=mapping(read["files"], "manifest.files", lambda v, w: _read(FileRecord, v, w)),
            variants=tuple_of(read["variants"], "manifest.variants", read_variant),
            golden=_read(GoldenRecord, read["golden"], "manifest.golden"),
            preview=read["preview"],
            reports=read["reports"],
            tunings=tuple_of(read.get("tunings", []), "manifest.tunings", Tuning.from_json),
        )


def _read(cls: type[T], value: object, where: str) -> T:
    return cls(**table(value, where, {f.name for f in fields(cls)}))  # type: ignore[arg-type]
