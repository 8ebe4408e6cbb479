"""Type stubs out of the bindings' docstrings, so that mypy can hold our code against a version's real API.

The stubs say what pybind11 says and no more: a method, property, enumerator or argument that a version lacks is an
error of the type checker in the very line that uses it.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((?P<parameters>.*)\) -> (?P<result>.+)$")
_PROPERTY = re.compile(r"^\(.*\) -> (?P<result>.+)$")
_PLAIN = {"int", "float", "str", "bytes", "bool", "None", "object"}
_WORD = re.compile(r"[A-Za-z_][\w.]*")
_RETURNS = re.compile(r"^ *Returns\n *-+\n(.*)", re.MULTILINE | re.DOTALL)
_CUDA_OBJECT = re.compile(r":py:obj:`~?\.?(\w+)`")

_HEADER = """# mypy: ignore-errors
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Never, overload
from typing_extensions import Buffer
"""


def write_tensorrt_stub(api: dict[str, Any], folder: Path) -> None:
    """`tensorrt/__init__.pyi`."""
    target = folder / "tensorrt"
    target.mkdir(parents=True)
    lines = [_HEADER, "__version__: str"]
    for name, cls in api["classes"].items():
        lines += _class(name, cls, api["classes"])
    for name in api["functions"]:
        lines.append(f"def {name}(*args: Any, **kwargs: Any) -> Any: ...")
    (target / "__init__.pyi").write_text("\n".join(lines) + "\n")


def write_cuda_stub(api: dict[str, Any], folder: Path) -> None:
    """`cuda/bindings/runtime.pyi`."""
    target = folder / "cuda" / "bindings"
    target.mkdir(parents=True)
    for package in (target.parent, target):
        (package / "__init__.pyi").write_text("")
    lines = [_HEADER]
    lines += [f"{name}: {kind}" for name, kind in api["constants"].items() if kind in _PLAIN]
    for name, cls in api["classes"].items():
        lines += _class(name, cls, api["classes"])
    for name, function in api["functions"].items():
        parameters = cuda_parameters(function["signature"])
        typed = [
            f"{p}: {t if t in api['classes'] else 'Any'}" + (" = ..." if has_default else "")
            for p, t, has_default in parameters
        ]
        results = cuda_results(function["doc"], api["classes"])
        lines.append(f"def {name}({', '.join(typed)}) -> tuple[{', '.join(results) or 'Any, ...'}]: ...")
    (target / "runtime.pyi").write_text("\n".join(lines) + "\n")


def signatures_of(doc: str) -> list[tuple[list[tuple[str, str, bool]], str]]:
    """[([(parameter, type, has a default), …], result type), …] of a pybind11 docstring, one per overload."""
    found = []
    for line in doc.splitlines():
        match = _SIGNATURE.match(line.strip())
        if match is None:
            continue
        parameters = []
        for part in _split(match["parameters"]):
            name, _, rest = part.partition(":")
            kind, equals, _ = rest.partition("=")
            parameters.append((name.strip(), kind.strip(), bool(equals)))
        found.append((parameters, match["result"].strip()))
    return found


def cuda_parameters(signature: str) -> list[tuple[str, str, bool]]:
    """[(name, type or "", has a default), …] of `(dst, src, kind: 'cudaMemcpyKind', stream=None)`."""
    parameters = []
    for part in _split(signature.strip("()")):
        declared, equals, _ = part.partition("=")
        name, _, kind = declared.partition(":")
        parameters.append((name.strip(), kind.strip().strip("'"), bool(equals)))
    return parameters


def cuda_results(doc: str, classes: dict[str, Any]) -> list[str]:
    """Types of what a function of cuda-python returns: its docstring lists them below `Returns`."""
    match = _RETURNS.search(doc)
    results: list[str] = []
    for line in textwrap.dedent(match[1]).splitlines() if match else []:
        if set(line.strip()) == {"-"}:  # the next section's underline: its title was taken for a result
            results.pop()
            break
        if line.strip() and not line.startswith(" "):
            results.append(line.strip())
    return [_cuda_type(line, classes) for line in results]


def _cuda_type(line: str, classes: dict[str, Any]) -> str:
    _, colon, kind = line.partition(" : ")
    kind = (kind if colon else line).removesuffix(".cudaSuccess")
    match = _CUDA_OBJECT.search(kind)
    kind = match[1] if match else kind
    return kind if kind in classes or kind in _PLAIN else "Any"


def _class(name: str, cls: dict[str, Any], classes: dict[str, Any], indent: str = "", scope: str = "") -> list[str]:
    inner = indent + "    "
    bases = [b for b in cls["bases"] if b in classes and b != name]
    lines = [f"{indent}class {name}({', '.join(bases)}):" if bases else f"{indent}class {name}:"]
    members = cls["members"]
    is_enum = any(m["kind"] == "enumerator" for m in members.values())
    if is_enum:
        lines += [f"{inner}name: str", f"{inner}value: int"]
    for dunder in ("__int__", "__index__", "__len__"):
        if dunder in members:
            lines.append(f"{inner}def {dunder}(self) -> int: ...")
    if cls["buffer"]:
        lines.append(f"{inner}def __buffer__(self, flags: int) -> memoryview: ...")
    if name == "Dims" and {"__len__", "__getitem__"} <= set(members):
        # Python iterates whatever has both.
        lines.append(f"{inner}def __getitem__(self, index: int) -> int: ...")
        lines.append(f"{inner}def __iter__(self) -> Iterator[int]: ...")
    for key, member in members.items():
        kind = member["kind"]
        if kind == "class":
            lines += _class(key, member["class"], classes, inner, f"{scope}{name}.")
        elif kind == "enumerator":
            lines.append(f"{inner}{key}: ClassVar[{scope}{name}]")
        elif kind == "attribute" and not key.startswith("__"):
            lines.append(f"{inner}{key}: {member.get('type', 'Any') if member.get('type') in _PLAIN else 'Any'}")
        elif kind == "property" and not (is_enum and key in ("name", "value")):
            lines += _property(key, member, classes, inner)
        elif kind == "method" and (not key.startswith("__") or key == "__init__"):
            lines += _method(key, member["doc"], classes, inner, is_enum)
    return [*lines, f"{inner}..."]


def _property(name: str, member: dict[str, Any], classes: dict[str, Any], indent: str) -> Iterator[str]:
    match = _PROPERTY.match(member["doc"].partition("\n")[0])
    kind = _type(match["result"], classes) if match else "Any"
    yield f"{indent}@property"
    yield f"{indent}def {name}(self) -> {kind}: ..."
    if member["settable"]:
        yield f"{indent}@{name}.setter"
        yield f"{indent}def {name}(self, value: {kind}) -> None: ..."


def _method(name: str, doc: str, classes: dict[str, Any], indent: str, is_enum: bool) -> Iterator[str]:
    signatures = signatures_of(doc)
    if name == "__init__" and not signatures:
        if not is_enum:  # pybind11 shows no constructor of what only TensorRT makes
            yield f"{indent}def __init__(self, no_constructor: Never) -> None: ..."
        return
    for parameters, result in signatures:
        typed: list[str] = []
        optional = False  # and after the first default so is every parameter
        for parameter, kind, has_default in parameters[1:] if parameters and parameters[0][0] == "self" else parameters:
            accepted = _type(kind, classes)
            accepted = "Dims | Sequence[int]" if accepted == "Dims" else accepted  # pybind11 converts
            optional |= has_default
            known_as = parameter + "_" * keyword.iskeyword(parameter)
            typed.append(f"{known_as}: {accepted}" + (" = ..." if optional else ""))
        if len(signatures) > 1:
            yield f"{indent}@overload"
        yield f"{indent}def {name}(self{''.join(', ' + t for t in typed)}) -> {_type(result, classes)}: ..."
    if not signatures:
        yield f"{indent}def {name}(self, *args: Any, **kwargs: Any) -> Any: ..."


def _type(text: str, classes: dict[str, Any]) -> str:
    """A pybind11 type as a stub's; Any where the stub has no word for it."""
    text = re.sub(r"\btensorrt_bindings\.tensorrt\.", "", text)
    text = text.replace("typing.SupportsInt", "int").replace("typing.SupportsFloat", "float")
    text = re.sub(r"\b(typing_extensions\.Buffer|buffer)\b", "Buffer", text)
    text = re.sub(r"\b(?:typing\.)?List\b", "list", text)

    def known(match: re.Match[str]) -> str:
        word = match[0]
        if word in _PLAIN | {"Buffer", "list"} or word.partition(".")[0] in classes:
            return word
        return "Any"

    # C++ names show where a class was bound after the function that uses it; IParserError is bound as ParserError.
    for scope, bare in re.findall(r"\b(nvinfer1|nvonnxparser)::(\w+)", text):
        bound = next((n for n in (bare, bare.removeprefix("I")) if n in classes), "Any")
        text = text.replace(f"{scope}::{bare}", bound)
    simple = _WORD.sub(known, text)
    return simple if re.fullmatch(r"[\w.]+(?:\[[\w., \[\]]+\])?", simple) else "Any"


def _split(text: str) -> list[str]:
    """Splits at the commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "[({<") - (character in "])}>")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [p.strip() for p in (*parts, text[start:]) if p.strip()]
