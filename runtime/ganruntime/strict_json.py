"""JSON from strangers: what Python's reader lets through and the format does not."""

from __future__ import annotations

import json
import math
from typing import Any

DEPTH_LIMIT = 32
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 64) - 1


def strict_loads(text: str) -> Any:
    """Parses JSON as RFC 8259 has it, and stricter.

    Raises:
        ValueError: the text is not JSON; a name stands twice in one object; a number is NaN, infinite, or an integer
            outside [-2⁶³, 2⁶⁴); a string holds half of a surrogate pair; lists and objects are nested more than 32
            levels deep.
    """
    try:
        data = json.loads(
            text,
            object_pairs_hook=_object_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_integer,
        )
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH_LIMIT} levels deep") from None
    _check_nesting_and_strings(data)
    return data


def _object_without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:80]!r} stands twice in one object")
    return table


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is too large a number")
    return value


def _bounded_integer(text: str) -> int:
    # By length first: turning a million digits into an integer takes seconds where Python's own limit is lifted.
    if len(text) > 20 or not INTEGER_MIN <= int(text) <= INTEGER_MAX:
        raise ValueError(f"{text[:40]} does not fit 64 bits")
    return int(text)


def _check_nesting_and_strings(data: Any) -> None:
    level: list[Any] = [data]
    depth = 0
    while level:
        if depth > DEPTH_LIMIT:
            raise ValueError(f"nested more than {DEPTH_LIMIT} levels deep")
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_string(value)
            elif isinstance(value, dict):
                for name in value:
                    _check_string(name)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level, depth = below, depth + 1


def _check_string(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a string holds half of a surrogate pair")
