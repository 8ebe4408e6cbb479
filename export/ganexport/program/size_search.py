"""Heights and widths that a network takes where its spec leaves them open: found by running it, and by tracing it.

1. Multiples 1, 2, 4, … 32 are tried. For each, the smallest number of steps from which the network runs, and from which
   its outputs grow evenly: so many pixels for each step, in height and in width alike.
2. What runs is traced with symbols. A condition on the size that only some sizes meet (a pad to a multiple, a check)
   holds for all of a larger multiple, or above a larger minimum; the first for which the trace holds is taken.
3. Where no multiple runs, the size is in the network: the error names the module, the operation and the line.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ganexport.inference import copied_network, require_exportable
from ganexport.probes import probe_inputs
from ganexport.program.place import place_of_failure
from ganexport.source import Source
from ganruntime.errors import ExportError
from ganruntime.roles import SIDE_LIMIT
from ganruntime.sizes import Size, size_text, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

MULTIPLES = (1, 2, 4, 8, 16, 32)
_SEED = 0x73697A65  # "size"
_LARGEST_MINIMUM = 64
# Steps of height and width beyond the smallest size at which outputs are measured: square, taller, wider, both.
_OFFSETS = ((0, 0), (1, 0), (0, 1), (3, 2))
_LEAST_IN_WORDS = re.compile(r"(?:height|width)\w* = Dim\('\w+', (?:max=\d+, )?min=(\d+)")


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
    role = varying_inputs(found)[0].role
    assert isinstance(role, Image)
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
    first = max(1, -(-given // multiple))
    last = max(first + 1, -(-_LARGEST_MINIMUM // multiple))
    for steps in range(first, last + 1):
        inputs = _with_sizes(spec, multiple, steps * multiple)
        shapes = []
        for taller, wider in _OFFSETS:
            size = (steps + taller) * multiple, (steps + wider) * multiple
            shapes.append(_output_shapes(network, inputs, size))
            if shapes[-1] is None:
                break
        else:
            outputs = _outputs_that_follow(spec, steps, [s for s in shapes if s is not None])
            return None if outputs is None else replace(inputs, outputs=outputs)
    return None


def _with_sizes(spec: GeneratorSpec, multiple: int, minimum: int) -> GeneratorSpec:
    inputs = tuple(
        replace(t, role=replace(t.role, multiple=multiple, minimum=minimum)) if t in varying_inputs(spec) else t
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
    # Inputs alone: where the outputs are at this size is not known yet.
    fixed = spec_at(replace(spec, outputs=(TensorSpec("output_", "float32", (1,), Image_none),)), size)
    probes = probe_inputs(fixed, _SEED, 0, 1)
    return [torch.from_numpy(probes[t.name]) for t in fixed.inputs]


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
        sides = [tuple(at_size[index][axis] for axis in role.height_and_width if axis < len(at_size[index]))
                 for at_size in shapes]
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
