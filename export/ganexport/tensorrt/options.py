"""What an engine is asked to be: precision, batch buckets, limits. Checked before anything heavy happens."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ganruntime.buckets import LARGEST_BUCKET
from ganruntime.bundle.manifest import HARDWARE_COMPATIBILITIES
from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, TensorSpec

# Precision lives in the graph: each but tf32 names the variant to build from. TF32 is how FLOAT inner products are
# computed, and is built from the fp32 graph.
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
DEFAULT_BUCKETS = (1, 8, 64)
_LARGEST_TENSOR_ELEMENTS = 2**31 - 1  # TensorRT: the volume of a tensor is below 2³¹
_OPTIMIZATION_LEVELS = range(6)


def graph_precision(precision: str) -> str:
    """The precision of the graph that an engine of `precision` is built from."""
    return "fp32" if precision == "tf32" else precision


def buckets_from_text(text: str) -> tuple[int, ...]:
    """(1, 8, 64) of `1,8,64`, in rising order whatever the order given.

    Raises:
        InputError: nothing is given, a number is not a whole one of at least 1, or stands there twice.
    """
    buckets = []
    for part in text.split(","):
        number = part.strip()
        # isdecimal() alone would let through digits of other scripts, which int() reads and people do not.
        known = number.isascii() and number.isdecimal() and len(number) <= len(str(LARGEST_BUCKET))
        if not known or not 1 <= int(number) <= LARGEST_BUCKET:
            raise InputError(
                f"--batch: {number!r} is not a batch size",
                got=text,
                expected=f"whole numbers from 1 to {LARGEST_BUCKET} with commas between, as in 1,8,64",
                remedy="ganexport to-trt NAME.gan --batch 1,8,64",
            )
        buckets.append(int(number))
    twice = sorted({b for b in buckets if buckets.count(b) > 1})
    if twice:
        raise InputError(
            f"--batch: {twice[0]} stands there twice", got=text, remedy=f"--batch {text_from_buckets(set(buckets))}"
        )
    return tuple(sorted(buckets))


def text_from_buckets(buckets: tuple[int, ...] | set[int]) -> str:
    """`1,8,64` of (1, 8, 64)."""
    return ",".join(str(b) for b in sorted(buckets))


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: the least, the tuned-for and the largest batch. `static` where all three are one."""

    minimum: int
    optimum: int
    maximum: int

    @property
    def static(self) -> bool:
        return self.minimum == self.optimum == self.maximum

    def shapes(self, tensor: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The shapes [N, …] of an input at the least, tuned-for and largest batch."""
        rest = tuple(d for d in tensor.shape if d is not None)
        return (self.minimum, *rest), (self.optimum, *rest), (self.maximum, *rest)

    def __str__(self) -> str:
        return f"{self.maximum}" if self.static else f"{self.minimum}..{self.maximum}"


def profiles_from_buckets(buckets: tuple[int, ...]) -> tuple[Profile, ...]:
    """One static profile per bucket, then a dynamic one for every batch up to the largest.

    Kernels are tuned at a profile's optimum only, hence the static ones. (1,) needs no dynamic one.
    """
    static = tuple(Profile(b, b, b) for b in buckets)
    return static if buckets == (1,) else (*static, Profile(1, buckets[-1], buckets[-1]))


@dataclass(frozen=True)
class BuildOptions:
    """What `engine_from_onnx` is asked for.

    Args:
        precision: `fp32`, `fp16`, `bf16`, `int8`: as the graph of that precision is typed, TF32 off; or `tf32`: the
            fp32 graph, where inner products may round their factors to 10 bits of mantissa.
        buckets: batch sizes, rising; one tuned profile each.
        device: index of the GPU.
        workspace_mib: the most scratch memory a layer may use; None for TensorRT's own limit (all of the GPU's).
        optimization_level: 0 (quick build) to 5 (most tactics tried); None for TensorRT's own, 3.
        timing_cache: a file, or a folder in which each GPU and version has its own file; None for none.
        hardware: `none`; `ampere+`: it also runs on every GPU of compute capability 8.0 or later; `same-cc`: on every
            GPU of the same compute capability. Both cost speed.
        version_compatible: later releases of TensorRT run it too (10 on 11 as well); slower, and larger.
        refittable: its weights can be exchanged; some optimisations of constants are lost.
        stripped: it holds no weights, and takes those of the bundle's graph at load; implies `refittable`.

    Raises:
        InputError: a value is outside its range.
    """

    precision: str = "fp32"
    buckets: tuple[int, ...] = DEFAULT_BUCKETS
    device: int = 0
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware: str = "none"
    version_compatible: bool = False
    refittable: bool = False
    stripped: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                "--precision is not one that to-trt builds", got=repr(self.precision), expected=", ".join(PRECISIONS)
            )
        buckets = self.buckets
        if not buckets or buckets[0] < 1 or any(a >= b for a, b in pairwise(buckets)):
            raise InputError("batch buckets do not rise from 1 or more", got=list(buckets), expected="(1, 8, 64), say")
        if self.device < 0:
            raise InputError("--device is not the index of a GPU", got=self.device, expected="0 or more")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise InputError("--workspace-mib is not positive", got=self.workspace_mib, expected="1 or more MiB")
        if self.optimization_level is not None and self.optimization_level not in _OPTIMIZATION_LEVELS:
            raise InputError("--optimization-level is not a level", got=self.optimization_level, expected="0 to 5")
        if self.hardware not in HARDWARE_COMPATIBILITIES:
            raise InputError(
                "--hardware-compatible is not a level",
                got=repr(self.hardware),
                expected=", ".join(HARDWARE_COMPATIBILITIES),
            )
        if self.stripped:
            object.__setattr__(self, "refittable", True)

    @property
    def graph_precision(self) -> str:
        """The precision of the graph to build from."""
        return graph_precision(self.precision)

    @property
    def tf32(self) -> bool:
        return self.precision == "tf32"

    @property
    def profiles(self) -> tuple[Profile, ...]:
        return profiles_from_buckets(self.buckets)

    def check_fits(self, spec: GeneratorSpec) -> None:
        """Raises `InputError` where a tensor of the spec has a shape that varies, or too many elements."""
        largest = self.buckets[-1]
        for tensor in (*spec.inputs, *spec.outputs):
            if None in tensor.shape:
                raise InputError(
                    f"{spec.name}: {tensor.name!r} has dimensions that vary, and a TensorRT profile needs their sizes",
                    got=["batch", *("varies" if d is None else d for d in tensor.shape)],
                    expected="a shape that is fixed but for the batch",
                    remedy="export the generator at one height and width",
                )
            if tensor.size * largest > _LARGEST_TENSOR_ELEMENTS:
                raise InputError(
                    f"--batch {largest} is too large: {tensor.name!r} would have {tensor.size * largest:,} elements",
                    expected=f"at most {_LARGEST_TENSOR_ELEMENTS // tensor.size} of {tensor.size:,} each",
                )

    def command(self, bundle: Path | str) -> str:
        """The command that builds this engine into `bundle`; what an error offers as its remedy."""
        words = ["ganexport", "to-trt", str(bundle), "--precision", self.precision]
        words += ["--batch", text_from_buckets(self.buckets)]
        for option, value in (
            ("--device", self.device or None),
            ("--workspace-mib", self.workspace_mib),
            ("--optimization-level", self.optimization_level),
            ("--timing-cache", self.timing_cache),
        ):
            words += [] if value is None else [option, str(value)]
        words += self._flags()
        return shlex.join(words)

    def _flags(self) -> list[str]:
        words = [] if self.hardware == "none" else ["--hardware-compatible", self.hardware]
        words += ["--version-compatible"] if self.version_compatible else []
        return words + (["--strip"] if self.stripped else ["--refittable"] if self.refittable else [])
