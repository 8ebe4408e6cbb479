"""JSON from strangers: what Python would let through."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.strict_json import DEPTH_LIMIT, strict_loads


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' stands twice"),
        ('{"a": 1, "\\u0061": 2}', "'a' stands twice"),
        ("NaN", "NaN"),
        ("[Infinity]", "Infinity"),
        ('{"a": -Infinity}', "-Infinity"),
        ("1e400", "too large"),
        ("-1e400", "too large"),
        ("18446744073709551616", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("1" * 5000, "64 bits"),
        ("1" * 1_000_000, "64 bits"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ("[" * 100_000, "deep"),
        ("[" * (DEPTH_LIMIT + 2) + "]" * (DEPTH_LIMIT + 2), "deep"),
        ('{"a":' * 50 + "1" + "}" * 50, "deep"),
        ("", "Expecting value"),
        ("\ufeff{}", "BOM"),
        ("{} {}", "Extra data"),
        ("{'a': 1}", "Expecting property name"),
        ('"\n"', "control character"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_loads(text)


def test_what_stands_at_the_limits_is_read() -> None:
    assert strict_loads("[18446744073709551615, -9223372036854775808, 1e308]") == [2**64 - 1, -(2**63), 1e308]
    assert strict_loads('"\\ud83d\\ude00"') == "😀"
    nested = "[" * DEPTH_LIMIT + "1" + "]" * DEPTH_LIMIT
    assert strict_loads(nested) == json.loads(nested)
    assert strict_loads('{"a": {"b": 1}, "c": {"b": 1}}') == {"a": {"b": 1}, "c": {"b": 1}}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(values)
def test_what_is_plain_json_is_read_as_python_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert strict_loads(text) == json.loads(text)


@settings(deadline=None, max_examples=200)
@given(st.text('{}[]",:0123456789eE+-.truefalsn\\ud8', max_size=40))
def test_anything_else_is_a_value_error(text: str) -> None:
    # A RecursionError, OverflowError or UnicodeError would leave this block.
    with contextlib.suppress(json.JSONDecodeError, ValueError):
        strict_loads(text)
