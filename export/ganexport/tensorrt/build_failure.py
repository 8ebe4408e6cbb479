"""What TensorRT's messages mean: the cause in words, and what mends it.

TensorRT returns None from a failed build, and says why in its log only, in words that mislead: a build that runs out of
memory ends in "could not find any implementation for node" (NVIDIA/TensorRT#4258).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ganexport.tensorrt.options import BuildOptions
from ganruntime.errors import BackendError, DeviceError, EngineError
from ganruntime.sizes import size_option

_SHOWN = 6
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|insufficient memory|not enough (?:free )?memory|user allocator error"
    r"|memory (?:is insufficient|could not be allocated)|GPU memory \(\d+ bytes\)|bad_alloc",
    re.IGNORECASE,
)
_NO_IMPLEMENTATION = re.compile(
    r"could not find any implementation for node (\S.*?)(?:\.\)|\)\.?|\.)?\s*$", re.I | re.M
)
_OLD_GPU = re.compile(r"(?:target )?GPU SM ?\d+ is not supported|no kernel image is available|unsupported SM", re.I)
_CUDA = re.compile(
    r"CUDA initialization failure|cuda(?:Error)?\w*InsufficientDriver|driver version is insufficient", re.I
)
_PROFILE = re.compile(r"optimization profile", re.I)


@dataclass(frozen=True)
class NodeError:
    """One error of TensorRT's ONNX parser, and the node that it is about."""

    index: int
    name: str
    operator: str
    code: str
    description: str

    @property
    def unsupported(self) -> bool:
        return self.code.startswith("UNSUPPORTED") or "no importer registered" in self.description.lower()

    def __str__(self) -> str:
        node = f"node {self.index}" + (f" {self.name!r}" if self.name else "")
        operator = f" ({self.operator})" if self.operator else ""
        return f"{node}{operator}: {self.code}: {self.description}".strip()


def error_from_parser(nodes: Sequence[NodeError], logged: Sequence[str], version: str, bundle: str) -> EngineError:
    """The error of a graph that TensorRT's parser does not take: every node that it named."""
    unsupported = [n for n in nodes if n.unsupported]
    operators = sorted({n.operator for n in unsupported if n.operator})
    if operators:
        problem = f"TensorRT {version} does not support {', '.join(operators)} as this graph uses it"
        remedy = (
            "export without it: replace the module that makes these nodes, or serve the bundle with ONNX Runtime; "
            f"ganexport to-trt {shlex.quote(bundle)} --check tells of every node, without a GPU"
        )
    else:
        problem = f"TensorRT {version} cannot read the bundle's graph"
        remedy = "`ganexport verify NAME.gan` says whether the graph itself is sound"
    lines = [str(n) for n in nodes] or _last(logged)
    return EngineError(problem, got=_lines(lines), remedy=remedy)


def error_from_build(
    errors: Sequence[str], warnings: Sequence[str], options: BuildOptions, bundle: str
) -> BackendError:
    """The error of a build that returned nothing: memory, an old GPU, a profile, or what TensorRT said last."""
    said = "\n".join(errors)
    everything = said + "\n" + "\n".join(warnings)
    got = _lines(_last(errors) or _last(warnings) or ["nothing: TensorRT gave no reason"])
    if _OLD_GPU.search(everything):
        return DeviceError(
            "this GPU is not one that the installed TensorRT builds for",
            got=got,
            remedy='an older TensorRT may: pip install "tensorrt>=10.12,<11"',
        )
    if _CUDA.search(everything):
        return DeviceError("TensorRT cannot use the GPU", got=got, remedy="run `nvidia-smi`; update the driver")
    node = _NO_IMPLEMENTATION.search(said)
    if _OUT_OF_MEMORY.search(everything):
        return EngineError(
            f"the GPU ran out of memory while the engine was built for {_asked(options)}",
            got=got,
            remedy=_less_memory(options, bundle),
        )
    if node is not None:
        return EngineError(
            f"TensorRT found no kernel for node {node[1]}: most often because there was not enough memory to try any",
            got=got,
            remedy=_less_memory(options, bundle),
        )
    if _PROFILE.search(said):
        return EngineError(
            "TensorRT refuses the profiles of the batches" + (" and sizes" if options.sizes else ""),
            got=got,
            expected=_asked(options),
            remedy=f"`ganexport to-trt {shlex.quote(bundle)} --check` tells of every node; "
            f"or build for less: {for_less(options, bundle)}",
        )
    return EngineError("TensorRT could not build the engine", got=got, remedy=options.command(bundle))


def for_less(options: BuildOptions, bundle: str) -> str:
    """The command that builds the same for a smaller largest batch; where that is 1, without the largest size."""
    if options.buckets == (1,) and len(options.sizes) > 1:
        return replace(options, sizes=options.sizes[:-1]).command(bundle)
    smaller = options.buckets[:-1] or (max(1, options.buckets[0] // 2),)
    return replace(options, buckets=smaller).command(bundle)


def _asked(options: BuildOptions) -> str:
    sizes = f" at sizes up to {size_option(options.sizes[-1:])}" if options.sizes else ""
    return f"batches up to {options.buckets[-1]}{sizes}"


def _less_memory(options: BuildOptions, bundle: str) -> str:
    limit = "" if options.workspace_mib is None else ", a larger --workspace-mib"
    return f"free the GPU (`nvidia-smi` says who holds it){limit}, or build for less: {for_less(options, bundle)}"


def _last(messages: Sequence[str]) -> list[str]:
    return [m.strip() for m in messages if m.strip()][-_SHOWN:]


def _lines(lines: Sequence[str]) -> str:
    shown = list(lines[:_SHOWN])
    if len(lines) > _SHOWN:
        shown.append(f"and {len(lines) - _SHOWN} more")
    return "\n            ".join(shown)
