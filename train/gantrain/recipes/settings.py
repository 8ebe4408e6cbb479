"""Settings: how they are declared, checked, and read from `key=value`. Which there are: `training_settings.py`."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from ganruntime.errors import InputError

S = TypeVar("S", bound="Settings")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field of a settings dataclass: its default, a line of meaning, and what values it may have."""
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "least": least, "most": most, "choices": choices}
    )


@dataclass(frozen=True)
class Settings:
    """A dataclass of fields made with `setting`, checked when it is made.

    Raises:
        InputError: on construction, where a value has the wrong type or is out of range; the message names the setting.
    """

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for f in fields(self):
            value = _typed(f.name, getattr(self, f.name), types[f.name])
            for item in value if isinstance(value, tuple) else (value,):
                _check_range(f, item)
            object.__setattr__(self, f.name, value)

    def to_json(self) -> dict[str, Any]:
        """Every setting by name, as plain JSON values; `type(self)(**…)` gives the same settings back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def settings_with(defaults: S, changes: Mapping[str, Any]) -> S:
    """The settings with some changed. Values are of the setting's type, or text as it stands after `--set key=`.

    Raises:
        InputError: no setting has that name (the nearest is suggested), or the value does not fit it.
    """
    known = [f.name for f in fields(defaults)]
    types = get_type_hints(type(defaults))
    values = {}
    for name, value in changes.items():
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"no setting is called {name!r}",
                expected=f"{nearest[0]!r}?" if nearest else ", ".join(known),
                remedy="ganexport recipes lists every setting with its meaning",
            )
        values[name] = _value_from_text(name, value, types[name]) if isinstance(value, str) else value
    return dataclasses.replace(defaults, **values)


def changes_from_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """`["lr=0.1", "steps=5"]` as a dictionary. Raises `InputError` for a text without `=` or a name given twice."""
    changes: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise InputError("--set takes a setting and its value", got=repr(argument), expected="--set key=value")
        if name in changes:
            raise InputError(f"setting {name!r} is given twice", got=f"{changes[name]} and {value}")
        changes[name] = value.strip()
    return changes


def _value_from_text(name: str, text: str, wanted: Any) -> Any:
    try:
        if wanted is bool:
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
        if wanted is int:
            return int(text.replace("_", ""))
        if wanted is float:
            return float(text)
        if wanted == tuple[int, ...]:
            return tuple(int(part) for part in text.split(","))
    except (ValueError, KeyError):
        raise _misfit(name, text, wanted) from None
    return text


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """`value` as the type that the setting wants: integers are floats too, lists are tuples too, and nothing else."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted == tuple[int, ...] and isinstance(value, (list, tuple)) and value:
        return tuple(_typed(name, item, int) for item in value)
    plain = wanted if isinstance(wanted, type) else tuple
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise _misfit(name, value, wanted)
    return value


def _check_range(f: dataclasses.Field[Any], value: Any) -> None:
    least, most, choices = f.metadata["least"], f.metadata["most"], f.metadata["choices"]
    if choices is not None and value not in choices:
        raise InputError(
            f"setting {f.name!r} has a value that is not one of its choices",
            got=repr(value),
            expected=", ".join(str(c) for c in choices),
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"setting {f.name!r} is not a finite number", got=value)
    if (least is not None and value < least) or (most is not None and value > most):
        raise InputError(f"setting {f.name!r} is out of range", got=value, expected=_range_text(least, most))


def _range_text(least: float | None, most: float | None) -> str:
    if most is None:
        return f"at least {least:g}"
    return f"at most {most:g}" if least is None else f"from {least:g} to {most:g}"


def type_name(wanted: Any) -> str:
    """A setting's type in a user's words."""
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
    return names.get(wanted, "integers with commas between them")


def _misfit(name: str, value: object, wanted: Any) -> InputError:
    return InputError(f"setting {name!r} is of another type", got=repr(value), expected=type_name(wanted))
