"""Inputs as they are told on the command line: `z=100`, `label=label:10`, `photo=3x256x256,image`, or `3xHxW`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ganruntime.errors import SpecError
from ganruntime.spec import (
    DTYPES,
    INPUT_ROLES,
    Image,
    Keypoints,
    Label,
    Latent,
    Noise,
    Role,
    Scalar,
    TensorSpec,
    Tokens,
    Vector,
)

_FORM = (
    "NAME=SHAPE[,DTYPE][,ROLE], such as z=100, photo=3x64x64,image, photo=3xHxW,image, label=label:10, "
    "caption=77,tokens:49408"
)


@dataclass(frozen=True)
class GivenInput:
    """What a caller says of an input. count: classes of a label, or words of a vocabulary. layout: of an image."""

    shape: tuple[int | None, ...]
    dtype: str
    role: str
    count: int | None = None
    layout: str = "CHW"

    @property
    def classes(self) -> int | None:
        return self.count if self.role == "label" else None

    def tensor(self, name: str) -> TensorSpec:
        """The input's spec. Raises `SpecError` where the parts do not fit each other."""
        roles: dict[str, Role] = {
            "latent": Latent(),
            "noise": Noise(),
            "image": Image(self.layout),
            "scalar": Scalar(),
            "keypoints": Keypoints(),
            "vector": Vector(),
        }
        if self.role == "label":
            role: Role = Label(tuple(str(i) for i in range(self.count or 0)))
        elif self.role == "tokens":
            role = Tokens(self.count or 1)
        else:
            role = roles[self.role]
        return TensorSpec(name, self.dtype, self.shape, role)


def given_inputs(texts: tuple[str, ...]) -> dict[str, GivenInput]:
    """The inputs by name. Raises `SpecError` for text of another form."""
    given: dict[str, GivenInput] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or not name or name in given:
            raise SpecError(f"--input {text!r} does not describe an input", expected=_FORM)
        given[name] = _given_input(text, rest)
    return given


def _given_input(text: str, rest: str) -> GivenInput:
    shape: tuple[int | None, ...] = ()
    dtype, role, count, layout = "", "", None, "CHW"
    for part in (p.strip() for p in rest.split(",")):
        word, _, number = part.partition(":")
        if re.fullmatch(r"\d+(x\d+)*", part):
            shape = tuple(int(d) for d in part.split("x"))
        elif re.fullmatch(r"\d+xHxW|HxWx\d+", part):
            shape = tuple(int(d) if d.isdigit() else None for d in part.split("x"))
            layout = "HWC" if part.startswith("H") else "CHW"
        elif part in DTYPES:
            dtype = part
        elif word in INPUT_ROLES and (number.isdigit() if word in ("label", "tokens") else not number):
            role, count = word, int(number) if number else None
        else:
            raise SpecError(f"--input {text!r}: {part!r} is no shape, dtype or role", expected=_FORM)
    role = role or ("latent" if dtype in ("", "float32") else "vector")
    if None in shape and role != "image":
        raise SpecError(f"--input {text!r}: the height and width of images may vary, of nothing else", expected=_FORM)
    return GivenInput(shape, dtype or ("int64" if role in ("label", "tokens") else "float32"), role, count, layout)
