"""The exception tree: its shape, what it prints, and that it survives a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from ganruntime import errors
from ganruntime.errors import GanError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, GanError)]


def test_the_tree_is_the_one_drawn_at_the_top_of_the_file() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = ["GanError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│ ├└─]+)(\w+)(?: \((\w+)\))?\s{2,}", line) or re.match(r"([│ ├└─]+)(\w+)$", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn[match[2]] = parents[depth - 1]
    assert drawn == {c.__name__: c.__mro__[1].__name__ for c in CLASSES if c is not GanError}


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SpecError", ValueError),
        ("InputError", ValueError),
        ("MissingDependencyError", ImportError),
        ("OutputError", OSError),
        ("DeadlineExceeded", TimeoutError),
    ],
)
def test_errors_are_also_what_python_calls_them(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_says_all_it_knows_in_order(cls: type[GanError]) -> None:
    error = cls("the batch is odd", got=[1, 2], expected=4, remedy="choose another")
    assert str(error) == "the batch is odd\n  got:      [1, 2]\n  expected: 4\n  remedy:   choose another"
    assert str(cls("the batch is odd")) == "the batch is odd"
    assert str(cls("zero is a value", got=0, expected=False)).count("\n") == 2


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_survives_pickling_and_copying(cls: type[GanError], copied: object) -> None:
    error = cls("problem", got=("a", 1), expected="b", remedy="c")
    again = copied(error)  # type: ignore[operator]
    assert type(again) is cls
    assert str(again) == str(error)
    assert (again.problem, again.got, again.expected, again.remedy) == ("problem", ("a", 1), "b", "c")


def test_details_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        GanError("problem", "got")  # type: ignore[misc]
