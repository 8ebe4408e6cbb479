"""The table of `operator_support.json`: which operators, dtypes and opsets a TensorRT release takes.

The file says where its rows come from and when they were read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ganruntime.errors import InputError
from ganruntime.sessions.tensorrt_library import NEWEST_BELOW, OLDEST

Version = tuple[int, ...]

# Our dtypes -> the table's.
CODES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8e4m3fn": "fp8",
    "float4e2m1": "fp4",
    "int4": "int4",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "bool": "bool",
}


def version_from_text(text: str) -> Version:
    """(11, 4) of `11.4`. Raises `InputError` where it is not a release that this project builds for."""
    parts = text.split(".")
    fits = 2 <= len(parts) <= 4 and all(p.isascii() and p.isdecimal() and len(p) <= 6 for p in parts)
    version = tuple(int(p) for p in parts) if fits else ()
    if not fits or not OLDEST <= version < NEWEST_BELOW:
        raise InputError(
            "--target is not a TensorRT release that engines are built for",
            got=text,
            expected="10.12 or later, below 12: 10.16, 11.4 or 11.2.1, say",
        )
    return version


def text_from_version(version: Version) -> str:
    """`11.4` of (11, 4)."""
    return ".".join(str(n) for n in version)


@dataclass(frozen=True)
class OperatorSupport:
    """Whether one operator is taken. `types`: the table's codes, None where they are not documented."""

    supported: bool
    since: str | None = None
    types: frozenset[str] | None = None


@dataclass(frozen=True)
class SupportTable:
    """The table for one release.

    Attributes:
        version: the release asked for.
        read: the day on which the sources were read.
        newest: the newest release that the sources speak of.
    """

    version: Version
    read: str
    newest: str
    sources: tuple[str, ...]
    opsets: tuple[int, int]
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def is_beyond_sources(self) -> bool:
        return self.version[:2] > version_from_text(self.newest)

    def operator(self, name: str) -> OperatorSupport | None:
        """None for an operator that the table does not have."""
        row = self.rows.get(name)
        if row is None:
            return None
        since = row.get("since")
        if not row.get("supported", True) or (since and self.version < version_from_text(since)):
            return OperatorSupport(False, since)
        types = row["types"]
        for release, later in row.get("later", {}).items():
            if self.version >= version_from_text(release):
                types = later
        return OperatorSupport(True, since, None if types is None else frozenset(types.split()))


def support_table(version: Version) -> SupportTable:
    """The table as it stands for a release."""
    data = _data()
    opsets = [tuple(range_) for release, range_ in data["opsets"].items() if version >= version_from_text(release)]
    return SupportTable(
        version=version,
        read=data["read"],
        newest=data["newest"],
        sources=tuple(data["sources"]),
        opsets=(opsets[-1][0], opsets[-1][1]),
        rows=data["operators"],
    )


def newest_known() -> Version:
    """The newest release that the table's sources speak of."""
    return version_from_text(_data()["newest"])


@cache
def _data() -> dict[str, Any]:
    text = files("ganexport.tensorrt").joinpath("operator_support.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
