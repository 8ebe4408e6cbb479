"""Heights and widths that a network takes where its spec leaves them open: found by running it, and by tracing it.

1. Multiples 1, 2, 4, … 32 are tried. For each, the smallest number of steps from which the network runs, and from which
   its outputs grow evenly: so many pixels for each step, in height and in width alike.
2. What runs is traced with symbols. A condition on the size that only some sizes meet (a pad to a multiple, a check)
   holds for all of a larger multiple, or above a larger minimum; the first for which the trace holds is taken.
3. Where no multiple runs, the size is in the network: the error names the module, the operation and the line.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ganexport.inference import copied_network, require_exportable
from ganexport.probes import probe_inputs
from ganexport.program.place import place_of_failure
from ganexport.program.size_conditions import least_steps
from ganexport.program.tracing import failure_of_trace, is_about_sizes
from ganexport.source import Source
from ganruntime.errors import ExportError
from ganruntime.roles import SIDE_LIMIT
from ganruntime.sizes import Size, size_text, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

MULTIPLES = (1, 2, 4, 8, 16, 32)
_SEED = 0x73697A65  # "size"
_LARGEST_MINIMUM = 64
# Steps of height and width beyond the smallest size at which outputs are measured: square, taller, wider, both.
_FAR_APART = ((64, 64), (96, 160))  # multiples of all that is tried
_OFFSETS = ((0, 0), (1, 0), (0, 1), (3, 2))


def source_with_sizes(source: Source) -> Source:
    """The source with a spec that says which heights and widths the network takes, and what its outputs make of them.

    A source whose shapes are fixed stays as it is, and so does one that was found before. A multiple or minimum that
    the spec names is where the search starts.

    Raises:
        ExportError: a size is in the network (names the module, the operation and the line), outputs do not grow evenly
            with the input, or dimensions vary that cannot.
    """
    spec = source.spec
    require_exportable(spec)
    if not varying_inputs(spec) or "sizes" in source.notes:
        return source
    network = copied_network(source.module, spec)
    found = _found(network, spec)
    role = _role(varying_inputs(found)[0])
    notes: dict[str, Any] = {"sizes": {"multiple": role.multiple, "minimum": role.minimum}}
    return replace(source, spec=found, notes={**source.notes, **notes})


def _found(network: nn.Module, spec: GeneratorSpec) -> GeneratorSpec:
    runs: list[GeneratorSpec] = []
    for multiple in _multiples_of(spec):
        candidate = _that_runs(network, spec, multiple)
        if candidate is None:
            continue
        runs.append(candidate)
        traced, goes_on = _that_is_traced(network, candidate)
        if traced is not None:
            return traced
        if not goes_on:
            break
    if runs:
        # Not for a size: exporting it says why, and where.
        return runs[0]
    raise _size_in_network(network, spec)


def _multiples_of(spec: GeneratorSpec) -> list[int]:
    given = max(_role(t).multiple for t in varying_inputs(spec))
    return [given * m for m in MULTIPLES if m == 1 or given * m <= MULTIPLES[-1]]


def _that_runs(network: nn.Module, spec: GeneratorSpec, multiple: int) -> GeneratorSpec | None:
    """The spec with this multiple, the smallest minimum from which it runs, and the outputs that follow."""
    given = max(_role(t).minimum for t in varying_inputs(spec))
    least = max(1, -(-given // multiple))
    last = max(least + 1, -(-_LARGEST_MINIMUM // multiple))
    for steps in range(least, last + 1):
        inputs = _with_sizes(spec, multiple, steps * multiple)
        sizes = [((steps + taller) * multiple, (steps + wider) * multiple) for taller, wider in _OFFSETS]
        first = _output_shapes(network, inputs, sizes[0])
        if first is None:
            continue
        others = [_output_shapes(network, inputs, size) for size in sizes[1:]]
        shapes = [first, *(s for s in others if s is not None)]
        outputs = _outputs_that_follow(spec, steps, shapes) if len(shapes) == len(sizes) else None
        return None if outputs is None else replace(inputs, outputs=outputs)
    return None


def _that_is_traced(network: nn.Module, spec: GeneratorSpec) -> tuple[GeneratorSpec | None, bool]:
    """The spec for which the trace holds, with a larger minimum where it needs one; else whether it failed for the
    size."""
    for _ in range(2):
        cause = failure_of_trace(network, spec)
        if cause is None:
            return spec, False
        if not is_about_sizes(cause):
            return None, False
        role = _role(varying_inputs(spec)[0])
        minimum = least_steps(cause) * role.multiple
        if not role.minimum < minimum <= SIDE_LIMIT:
            break
        spec = _with_sizes(spec, role.multiple, minimum)
    return None, True


def _with_sizes(spec: GeneratorSpec, multiple: int, minimum: int) -> GeneratorSpec:
    inputs = tuple(
        replace(t, role=replace(_role(t), multiple=multiple, minimum=minimum)) if t in varying_inputs(spec) else t
        for t in spec.inputs
    )
    return replace(spec, inputs=inputs)


def _output_shapes(network: nn.Module, spec: GeneratorSpec, size: Size) -> list[tuple[int, ...]] | None:
    """The outputs' shapes without the batch; None where the network raises."""
    try:
        with torch.inference_mode():
            result = network(*_arguments(spec, size))
    except Exception:  # whatever a stranger's code raises
        return None
    tensors = list(result) if isinstance(result, (tuple, list)) else [result]
    return [tuple(t.shape[1:]) if isinstance(t, torch.Tensor) else () for t in tensors]


def _arguments(spec: GeneratorSpec, size: Size) -> list[torch.Tensor]:
    probes = probe_inputs(spec_at(spec, size), _SEED, 0, 1)
    return [torch.from_numpy(probes[t.name]) for t in spec.inputs]


def _outputs_that_follow(
    spec: GeneratorSpec, steps: int, shapes: list[list[tuple[int, ...]]]
) -> tuple[TensorSpec, ...] | None:
    """The outputs with the multiple and offset that give these shapes at `_OFFSETS`; None where there are none."""
    if any(len(at_size) != len(spec.outputs) for at_size in shapes):
        return spec.outputs  # not for the size: running it says what is wrong
    outputs = []
    for index, tensor in enumerate(spec.outputs):
        role = tensor.role
        if not isinstance(role, Image) or None not in tensor.shape:
            outputs.append(tensor)
            continue
        sides = [
            tuple(at_size[index][axis] for axis in role.height_and_width if axis < len(at_size[index]))
            for at_size in shapes
        ]
        if any(len(s) != 2 for s in sides):
            return spec.outputs
        multiple = sides[1][0] - sides[0][0]
        offset = sides[0][0] - multiple * steps
        even = all(
            side == tuple(multiple * (steps + more) + offset for more in offsets)
            for side, offsets in zip(sides, _OFFSETS, strict=True)
        )
        if not even or not 1 <= multiple <= SIDE_LIMIT:
            return None
        if (role.multiple, role.offset) != (1, 0) and (role.multiple, role.offset) != (multiple, offset):
            return spec.outputs
        outputs.append(replace(tensor, role=replace(role, multiple=multiple, offset=offset)))
    return tuple(outputs)


def _size_in_network(network: nn.Module, spec: GeneratorSpec) -> ExportError:
    """Why no multiple runs: where it fails at a size that all multiples have, or what the outputs do instead."""
    sizes = _FAR_APART
    arguments = _arguments(spec, sizes[1])
    with contextlib.suppress(Exception):
        with torch.inference_mode():
            network(*arguments)
        shapes = [_output_shapes(network, spec, size) for size in sizes]
        return ExportError(
            f"{spec.name}: an output does not grow evenly with the height and width of the input",
            got="; ".join(f"{list(map(list, s or []))} for {size_text(z)}" for s, z in zip(shapes, sizes, strict=True)),
            expected="so many pixels more for each step of the input, in height and width alike",
            remedy="give fixed heights and widths in the spec, those of the input or of the output",
        )
    try:
        with torch.inference_mode():
            network(*arguments)
    except Exception as error:  # whatever a stranger's code raises
        return ExportError(
            f"{spec.name}: a height or width is fixed in {place_of_failure(network, arguments)}",
            got=f"{type(error).__name__}: {error}, for {size_text(sizes[1])}",
            expected=f"a network for every height and width, or for multiples of up to {MULTIPLES[-1]}",
            remedy="take sizes from the tensor (x.shape[-2:]), scale what has a size of its own to it "
            "(torch.nn.functional.interpolate), or give fixed heights and widths in the spec",
        )
    raise AssertionError("the network failed once and ran then")


def _role(tensor: TensorSpec) -> Image:
    assert isinstance(tensor.role, Image)
    return tensor.role
