"""Fields of JSON from strangers: each reader gives the value in its Python type, or an error that says where it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ganruntime.errors import BundleFormatError
from ganruntime.roles import is_text

T = TypeVar("T")


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
