"""Fields of JSON from strangers: each reader gives the value in its Python type, or an error that says where it is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ganruntime.errors import BundleFormatError
from ganruntime.roles import SIDE_LIMIT, is_text

T = TypeVar("T")
MANIFEST_NAME = "manifest.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-+]*(/[A-Za-z0-9][A-Za-z0-9._\-+]*)*\Z")


def require(holds: bool, where: str, problem: str, *, got: object = None, expected: object = None) -> None:
    if not holds:
        raise BundleFormatError(f"{where}: {problem}", got=got, expected=expected)


def string(value: object, where: str) -> str:
    require(is_text(value), where, "is not a string", got=repr(value)[:80])
    return str(value)


def integer(value: object, where: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
    ok = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    require(ok, where, f"is not an integer in [{least}, {most}]", got=repr(value)[:80])
    return int(value)  # type: ignore[call-overload, no-any-return]


def number(value: object, where: str) -> float:
    try:
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        ok = False
    require(ok, where, "is not a finite number", got=repr(value)[:80])
    return float(value)  # type: ignore[arg-type]


def table(value: object, where: str, known: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    require(isinstance(value, dict), where, "is not a JSON object", got=repr(value)[:80])
    found: dict[str, Any] = dict(value)  # type: ignore[call-overload]
    extra, missing = sorted(set(found) - known), sorted(known - optional - set(found))
    require(not extra, where, "has a key that is not known", got=extra, expected=sorted(known))
    require(not missing, where, "lacks a key", got=sorted(found), expected=missing)
    return found


def tuple_of(value: object, where: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    require(isinstance(value, (list, tuple)), where, "is not a list", got=repr(value)[:80])
    return tuple(read(item, f"{where}[{i}]") for i, item in enumerate(value))  # type: ignore[arg-type, var-annotated]


def mapping(value: object, where: str, read: Callable[[object, str], T]) -> dict[str, T]:
    require(isinstance(value, Mapping), where, "is not a JSON object", got=repr(value)[:80])
    return {string(k, where): read(v, f"{where}.{k}") for k, v in value.items()}  # type: ignore[attr-defined]


def file_name(value: object, where: str) -> str:
    """A relative path of plain names, with `/` between: it cannot leave the bundle, and cannot be the manifest."""
    name = string(value, where)
    require(
        bool(_FILE_NAME.match(name)),
        where,
        "is not a path inside the bundle",
        got=repr(name)[:200],
        expected="names of letters, digits, . _ - + with / between",
    )
    require(name.split("/")[0] != MANIFEST_NAME, where, "is the manifest itself", got=name)
    return name


def size(value: object, where: str) -> tuple[int, int]:
    sides = tuple_of(value, where, lambda v, w: integer(v, w, 1, SIDE_LIMIT))
    require(len(sides) == 2, where, "is not a height and a width", got=list(sides))
    return sides[0], sides[1]


def json_of(record: object) -> Any:
    """A record as JSON has it; the other way round from all of the above."""
    if hasattr(record, "__dataclass_fields__"):
        return {name: json_of(getattr(record, name)) for name in record.__dataclass_fields__}
    if isinstance(record, Mapping):
        return {k: json_of(v) for k, v in record.items()}
    if isinstance(record, (tuple, list)):
        return [json_of(v) for v in record]
    return record
