"""Tables and sizes as they stand in terminals."""

from __future__ import annotations

import pytest

from ganexport.tables import size_text, table


def test_columns_line_up_and_numbers_are_flush_right() -> None:
    text = table([["a", "1"], ["long name", "12,345"]], ["name", "size"], frozenset({1}))
    assert text.splitlines() == [
        "name         size",
        "---------  ------",
        "a               1",
        "long name  12,345",
    ]


def test_lines_end_without_spaces() -> None:
    text = table([["a", "b"], ["aaa", ""]], ["x", ""])
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_table_without_rows_is_its_header() -> None:
    assert table([], ["one", "two"]) == "one  two\n---  ---"


def test_a_row_of_another_length_is_a_fault() -> None:
    with pytest.raises((ValueError, IndexError)):
        table([["a"]], ["x", "y"])


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_sizes_are_read_at_a_glance(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
