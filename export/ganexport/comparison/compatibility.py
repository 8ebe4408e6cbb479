"""Compatibility of two specs: whether the same latents mean the same to both, and outputs can be held together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from ganexport.comparison.side import Side
from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, TensorSpec


def require_comparable(a: Side, b: Side) -> None:
    """Raises `InputError` naming every field in which what the two take or give differs.

    Names, provenance and the order of tensors may differ: two steps of one training are to be compared.
    """
    found = list(differences(a.spec, b.spec))
    if found:
        raise InputError(
            f"{a.label} and {b.label} cannot be compared: they take or give different things",
            got="\n            ".join(found),
            expected="inputs and outputs of the same names, dtypes, shapes and roles",
        )


def differences(a: GeneratorSpec, b: GeneratorSpec) -> Iterator[str]:
    """`input z: shape is [100] in A and [64] in B`, a sentence a field."""
    for side, of_a, of_b in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        tensors_a, tensors_b = ({t.name: t for t in tensors} for tensors in (of_a, of_b))
        for name in [*tensors_a, *(n for n in tensors_b if n not in tensors_a)]:
            if name not in tensors_b or name not in tensors_a:
                yield f"{side} {name}: only {'A' if name in tensors_a else 'B'} has it"
                continue
            yield from (f"{side} {name}: {d}" for d in _tensor_differences(tensors_a[name], tensors_b[name]))


def _tensor_differences(a: TensorSpec, b: TensorSpec) -> Iterator[str]:
    pairs: list[tuple[str, object, object]] = [
        ("dtype", a.dtype, b.dtype),
        ("shape", list(a.shape), list(b.shape)),
        ("role", a.role.kind, b.role.kind),
    ]
    if a.role.kind == b.role.kind:
        pairs += [(f"role.{f.name}", getattr(a.role, f.name), getattr(b.role, f.name)) for f in fields(a.role)]
    yield from (
        f"{field} is {_text(left)} in A and {_text(right)} in B" for field, left, right in pairs if left != right
    )


def _text(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else text[:79] + "…"
