"""`GeneratorSpec`: what goes into a generator, what comes out, and what the numbers mean.

The spec is stored in the checkpoint, in the ONNX file's metadata and in the bundle, so that nobody retypes a latent
size. It is made of frozen dataclasses, uses the standard library only, and is read strictly: a key that is not known,
missing or of the wrong type is an error that names its place.

JSON form (schema version 1)::

    {"schema_version": 1,
     "name": "dcgan-digits",
     "inputs":  [{"name": "z", "dtype": "float32", "shape": [100],
                  "role": {"kind": "latent", "distribution": "normal", "scale": 1.0}}],
     "outputs": [{"name": "image", "dtype": "float32", "shape": [1, 32, 32],
                  "role": {"kind": "image", "layout": "CHW", "range": [-1.0, 1.0]}}],
     "provenance": {"recipe": "dcgan", "dataset": "digits", "steps": 2000, "seed": 0, "metrics": {}, "versions": {}}}

Shapes are without the batch dimension, which is always first. A `null` in a shape is a dimension that may vary
(height and width of an image input, and of the image outputs that follow it: `ganruntime.sizes`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ganruntime.errors import SpecError
from ganruntime.roles import (
    DISTRIBUTIONS,
    INPUT_ROLES,
    LAYOUTS,
    OUTPUT_ROLES,
    SIZE_FIELDS,
    SIZE_LIMIT,
    Image,
    Keypoints,
    Label,
    Latent,
    Logits,
    Mask,
    Noise,
    Role,
    Scalar,
    Tokens,
    Vector,
    integer,
    is_text,
    number,
    require,
)
from ganruntime.strict_json import strict_loads

__all__ = [
    "DISTRIBUTIONS",
    "DTYPES",
    "INPUT_ROLES",
    "LAYOUTS",
    "OUTPUT_ROLES",
    "SCHEMA_VERSION",
    "GeneratorSpec",
    "Image",
    "Keypoints",
    "Label",
    "Latent",
    "Logits",
    "Mask",
    "Noise",
    "Provenance",
    "Role",
    "Scalar",
    "Shape",
    "TensorSpec",
    "Tokens",
    "Vector",
]

SCHEMA_VERSION = 1
DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}\Z")

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name in the graph, dtype, and shape without the batch dimension."""

    name: str
    dtype: str
    shape: Shape
    role: Role

    def __post_init__(self) -> None:
        where = f"tensor {self.name!r}"
        require(
            isinstance(self.name, str) and bool(_NAME.match(self.name)),
            "tensor name",
            "is not a name",
            got=repr(self.name),
            expected="a letter or _, then letters, digits, _ . -",
        )
        require(
            self.dtype in DTYPES, f"{where}: dtype", "is not known", got=repr(self.dtype), expected=", ".join(DTYPES)
        )
        require(isinstance(self.shape, (list, tuple)), f"{where}: shape", "is not a list", got=repr(self.shape))
        shape = tuple(None if d is None else integer(d, f"{where}: shape") for d in self.shape)
        object.__setattr__(self, "shape", shape)
        require(
            math.prod(d or 1 for d in shape) <= SIZE_LIMIT,
            f"{where}: shape",
            f"has more than {SIZE_LIMIT:,} elements",
            got=list(shape),
        )
        require(
            isinstance(self.role, Role) and bool(self.role.kind), f"{where}: role", "is not a role", got=repr(self.role)
        )
        if isinstance(self.role, Image):
            require(
                len(shape) == 3,
                f"{where}: shape",
                "is not that of an image",
                got=list(shape),
                expected=f"three dimensions, {self.role.layout}",
            )
            require(
                self.channels is not None,
                f"{where}: shape",
                "has no fixed number of channels",
                got=list(shape),
            )
        if isinstance(self.role, (Latent, Noise)):
            require(self.dtype == "float32", f"{where}: dtype", "of a latent is float32", got=self.dtype)
            require(None not in shape, f"{where}: shape", "of a latent is fixed", got=list(shape))
        if isinstance(self.role, (Label, Tokens)):
            require(
                self.dtype in ("int64", "int32"),
                f"{where}: dtype",
                "of labels and tokens is an integer",
                got=self.dtype,
            )
        if isinstance(self.role, Scalar) and "float" not in self.dtype:
            whole = self.role.default.is_integer() and (self.dtype != "bool" or self.role.default in (0.0, 1.0))
            require(whole, f"{where}: scalar.default", f"is not of dtype {self.dtype}", got=self.role.default)

    @property
    def channels(self) -> int | None:
        """Number of channels of an image; None for any other role."""
        if not isinstance(self.role, Image):
            return None
        return self.shape[0 if self.role.layout == "CHW" else -1]

    @property
    def size(self) -> int:
        """Elements per row of the batch. Raises `SpecError` where a dimension varies."""
        known = [d for d in self.shape if d is not None]
        require(
            len(known) == len(self.shape), f"tensor {self.name!r}", "has dimensions that vary", got=list(self.shape)
        )
        return math.prod(known)

    def to_json(self) -> dict[str, Any]:
        role = {"kind": self.role.kind} | {
            f.name: _plain(getattr(self.role, f.name))
            for f in fields(self.role)
            if not (f.name in SIZE_FIELDS and getattr(self.role, f.name) == f.default)
        }
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "role": role}

    @classmethod
    def from_json(cls, data: object, where: str, roles: Mapping[str, type[Role]]) -> TensorSpec:
        table = _object(data, where, {"name", "dtype", "shape", "role"})
        role = _object(table["role"], f"{where}.role", None)
        kind = role.pop("kind", None)
        known_kind = isinstance(kind, str) and kind in roles
        require(known_kind, f"{where}.role.kind", "is not known", got=repr(kind)[:80], expected=", ".join(roles))
        role_type = roles[str(kind)]
        known = {f.name for f in fields(role_type)}
        require(
            set(role) <= known,
            f"{where}.role",
            "has a key that is not known",
            got=sorted(set(role) - known),
            expected=sorted(known),
        )
        needed = {"classes", "vocabulary_size"} & known
        require(needed <= set(role), f"{where}.role", "lacks a key", got=sorted(role), expected=sorted(needed))
        require(isinstance(table["shape"], list), f"{where}.shape", "is not a list", got=repr(table["shape"]))
        return cls(name=table["name"], dtype=table["dtype"], shape=tuple(table["shape"]), role=role_type(**role))


@dataclass(frozen=True)
class Provenance:
    """Where a generator comes from. All of it is information; nothing is computed from it."""

    recipe: str = ""
    dataset: str = ""
    steps: int = 0
    seed: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("recipe", "dataset"):
            value = getattr(self, name)
            require(is_text(value), f"provenance.{name}", "is not a string", got=repr(value)[:80])
        for name in ("steps", "seed"):
            integer(getattr(self, name), f"provenance.{name}", least=0, most=(1 << 64) - 1)
        require(isinstance(self.metrics, Mapping), "provenance.metrics", "is not an object", got=repr(self.metrics))
        require(isinstance(self.versions, Mapping), "provenance.versions", "is not an object", got=repr(self.versions))
        object.__setattr__(self, "metrics", {k: number(v, f"provenance.metrics.{k}") for k, v in self.metrics.items()})
        for name, texts in (("metrics", [*self.metrics]), ("versions", [*self.versions, *self.versions.values()])):
            bad = [repr(t)[:80] for t in texts if not is_text(t)]
            require(not bad, f"provenance.{name}", "has what is not a string", got=", ".join(bad[:3]))
        object.__setattr__(self, "versions", dict(self.versions))


@dataclass(frozen=True)
class GeneratorSpec:
    """The contract of a generator, the same object from training to production.

    Raises:
        SpecError: on construction, where anything in it is malformed; the message names the place.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        require(
            isinstance(self.name, str) and bool(_NAME.match(self.name)),
            "spec.name",
            "is not a name",
            got=repr(self.name),
            expected="a letter or _, then letters, digits, _ . -",
        )
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        require(len(self.inputs) > 0, "spec.inputs", "is empty")
        require(len(self.outputs) > 0, "spec.outputs", "is empty")
        for side, tensors, roles in (("inputs", self.inputs, INPUT_ROLES), ("outputs", self.outputs, OUTPUT_ROLES)):
            for t in tensors:
                require(
                    t.role.kind in roles,
                    f"spec.{side}: {t.name}",
                    "has a role that is not one of this side",
                    got=t.role.kind,
                    expected=", ".join(roles),
                )
        names = [t.name for t in (*self.inputs, *self.outputs)]
        require(len(set(names)) == len(names), "spec", "has a tensor name twice", got=names)

    @cached_property
    def latent(self) -> TensorSpec | None:
        """The first input with the role `latent`, or None for a generator that takes none (image to image)."""
        return next((t for t in self.inputs if isinstance(t.role, Latent)), None)

    @cached_property
    def image(self) -> TensorSpec | None:
        """The first output with the role `image`, or None for a generator that draws none."""
        return next((t for t in self.outputs if isinstance(t.role, Image)), None)

    def input(self, name: str) -> TensorSpec:
        for t in self.inputs:
            if t.name == name:
                return t
        raise SpecError(f"spec {self.name!r} has no input {name!r}", expected=", ".join(t.name for t in self.inputs))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the schema version inside; `from_json` gives the same spec back."""
        provenance = {f.name: _plain(getattr(self.provenance, f.name)) for f in fields(Provenance)}
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "inputs": [t.to_json() for t in self.inputs],
            "outputs": [t.to_json() for t in self.outputs],
            "provenance": provenance,
        }

    @classmethod
    def from_json(cls, data: object) -> GeneratorSpec:
        """Reads `to_json`'s form.

        Raises:
            SpecError: the data is not a spec, or is of a newer schema version.
        """
        require(isinstance(data, dict), "spec", "is not a JSON object", got=type(data).__name__)
        version = data.get("schema_version")  # type: ignore[attr-defined]
        integer(version, "spec.schema_version")
        if version != SCHEMA_VERSION:
            raise SpecError(
                "spec: schema version is newer than this release reads",
                got=version,
                expected=SCHEMA_VERSION,
                remedy="pip install --upgrade ganexport",
            )
        table = _object(
            data, "spec", {"schema_version", "name", "inputs", "outputs", "provenance"}, optional={"provenance"}
        )
        for side in ("inputs", "outputs"):
            require(isinstance(table[side], list), f"spec.{side}", "is not a list", got=repr(table[side]))
        known = {f.name for f in fields(Provenance)}
        provenance = _object(table.get("provenance", {}), "spec.provenance", known, optional=known)
        return cls(
            name=table["name"],
            inputs=tuple(
                TensorSpec.from_json(t, f"spec.inputs[{i}]", INPUT_ROLES) for i, t in enumerate(table["inputs"])
            ),
            outputs=tuple(
                TensorSpec.from_json(t, f"spec.outputs[{i}]", OUTPUT_ROLES) for i, t in enumerate(table["outputs"])
            ),
            provenance=Provenance(**provenance),
        )

    def dumps(self) -> str:
        """Canonical text: sorted keys, two spaces, a newline at the end. Equal specs give equal bytes."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def loads(cls, text: str) -> GeneratorSpec:
        """Reads `dumps`' form. Raises `SpecError` for text that is not JSON, too."""
        try:
            data = strict_loads(text)
        except ValueError as error:
            raise SpecError("spec: is not JSON", got=str(error)[:200]) from error
        return cls.from_json(data)


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _object(data: object, where: str, known: set[str] | None, *, optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    require(isinstance(data, dict), where, "is not a JSON object", got=repr(data)[:80])
    table: dict[str, Any] = dict(data)  # type: ignore[call-overload]
    if known is not None:
        require(
            set(table) <= known,
            where,
            "has a key that is not known",
            got=sorted(set(table) - known),
            expected=sorted(known),
        )
        require(known - optional <= set(table), where, "lacks a key", got=sorted(table), expected=sorted(known))
    return table


def pixel_spec(spec: GeneratorSpec) -> GeneratorSpec:
    """The spec of the same generator where its images come as pixels: uint8 [H, W, C], range [0, 255].

    What `ganruntime.images.uint8_from_output` gives of such an output is the output itself. Outputs that are no images
    stay as they are.
    """
    return replace(spec, outputs=tuple(_pixel_tensor(t) for t in spec.outputs))


def _pixel_tensor(tensor: TensorSpec) -> TensorSpec:
    if not isinstance(tensor.role, Image):
        return tensor
    shape = tensor.shape[1:] + tensor.shape[:1] if tensor.role.layout == "CHW" else tensor.shape
    return replace(tensor, dtype="uint8", shape=shape, role=replace(tensor.role, layout="HWC", range=(0.0, 255.0)))
