"""What an engine is asked to be: precision, batch buckets, sizes, limits. Checked before anything heavy happens."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ganexport.tensorrt.profiles import Profile, profiles_from_buckets, size_range, smallest_size, sorted_sizes
from ganruntime.buckets import LARGEST_BUCKET
from ganruntime.bundle.manifest import HARDWARE_COMPATIBILITIES
from ganruntime.errors import InputError
from ganruntime.sizes import Size, default_size, size_option, spec_at
from ganruntime.spec import GeneratorSpec

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
class BuildOptions:
    """What `engine_from_onnx` is asked for.

    Args:
        precision: `fp32`, `fp16`, `bf16`, `int8`: as the graph of that precision is typed, TF32 off; or `tf32`: the
            fp32 graph, where inner products may round their factors to 10 bits of mantissa.
        buckets: batch sizes, rising; one tuned profile each.
        sizes: where height and width vary, the (height, width)s to tune for, each at every bucket, from small to
            large; none for the default size (`ganruntime.sizes.default_size`), and where nothing varies.
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
    sizes: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                "--precision is not one that to-trt builds", got=repr(self.precision), expected=", ".join(PRECISIONS)
            )
        buckets = self.buckets
        if not buckets or buckets[0] < 1 or any(a >= b for a, b in pairwise(buckets)):
            raise InputError("batch buckets do not rise from 1 or more", got=list(buckets), expected="(1, 8, 64), say")
        object.__setattr__(self, "sizes", sorted_sizes(self.sizes))
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

    def profiles(self, spec: GeneratorSpec) -> tuple[Profile, ...]:
        """The profiles of an engine of this generator; `self` is fitted to it."""
        return profiles_from_buckets(self.buckets, self.sizes, smallest_size(spec))

    def fitted(self, spec: GeneratorSpec) -> BuildOptions:
        """These options for a generator: where its height and width vary and no size was asked for, with the default.

        Raises:
            InputError: sizes were asked for and nothing varies, one does not fit the generator, a dimension varies
                that is no height or width, or a tensor has too many elements at the largest batch and size.
        """
        size = default_size(spec)
        if size is None and self.sizes:
            raise InputError(
                f"--size: {spec.name} takes and gives one size only",
                got=size_option(self.sizes),
                remedy="leave --size out",
            )
        options = self if size is None or self.sizes else replace(self, sizes=(size,))
        for wanted in options.sizes:
            spec_at(spec, wanted)
        options._check_elements(spec_at(spec, options._largest_size(spec)))
        return options

    def _largest_size(self, spec: GeneratorSpec) -> Size | None:
        return size_range(self.sizes, smallest_size(spec))[1] if self.sizes else None

    def _check_elements(self, spec: GeneratorSpec) -> None:
        largest = self.buckets[-1]
        at = f" at {size_option((size_range(self.sizes, None)[1],))}" if self.sizes else ""
        for tensor in (*spec.inputs, *spec.outputs):
            if None in tensor.shape:
                raise InputError(
                    f"{spec.name}: {tensor.name!r} has dimensions that vary, and a TensorRT profile needs their sizes",
                    got=["batch", *("varies" if d is None else d for d in tensor.shape)],
                    expected="dimensions that are fixed, but for the batch and the height and width of images",
                    remedy="export the generator with fixed dimensions",
                )
            if tensor.size * largest > _LARGEST_TENSOR_ELEMENTS:
                raise InputError(
                    f"--batch {largest} is too large{at}: {tensor.name!r} would have "
                    f"{tensor.size * largest:,} elements",
                    expected=f"at most {_LARGEST_TENSOR_ELEMENTS // tensor.size} of {tensor.size:,} each",
                )

    def command(self, bundle: Path | str) -> str:
        """The command that builds this engine into `bundle`; what an error offers as its remedy."""
        words = ["ganexport", "to-trt", str(bundle), "--precision", self.precision]
        words += ["--batch", text_from_buckets(self.buckets)]
        words += ["--size", size_option(self.sizes)] if self.sizes else []
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
