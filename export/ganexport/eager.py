"""PyTorch's own outputs: a network run eagerly on arrays, and held to what its spec says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import ExportError
from ganruntime.sizes import size_of, spec_at
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[np.generic]]


def eager_outputs(module: nn.Module, spec: GeneratorSpec, inputs: Arrays) -> Arrays:
    """What PyTorch computes, in the network's own code: {input: [n, *shape]} -> {output: [n, *shape]}.

    Raises:
        ExportError: the forward fails, or its outputs are not those of the spec.
    """
    import torch

    arguments = [torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in spec.inputs]
    try:
        with torch.inference_mode():
            result = module(*arguments)
    except Exception as error:  # whatever a stranger's code raises
        from ganexport.program.place import place_of_failure

        shapes = {t.name: list(inputs[t.name].shape) for t in spec.inputs}
        place = place_of_failure(module, arguments)
        raise ExportError(
            f"{spec.name}: forward failed" + (f" in {place}" if place is not None else ""),
            got=f"{type(error).__name__}: {error}",
            expected=f"to take {shapes}",
        ) from error
    tensors = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(tensors) != len(spec.outputs) or not all(isinstance(t, torch.Tensor) for t in tensors):
        raise ExportError(
            f"{spec.name}: forward gives other outputs than the spec",
            got=", ".join(_output_text(t) for t in tensors) or "nothing",
            expected=", ".join(t.name for t in spec.outputs),
            remedy="return one tensor, or a tuple of tensors in the order of the spec",
        )
    n = len(next(iter(inputs.values())))
    for t, tensor in zip(spec_at(spec, size_of(spec, inputs)).outputs, tensors, strict=True):
        if _output_text(tensor) != f"{t.dtype} {[n, *t.shape]}":
            raise ExportError(
                f"{spec.name}: output {t.name!r} is not as the spec says",
                got=_output_text(tensor),
                expected=f"{t.dtype} {[n, *t.shape]}",
                remedy="correct the spec, or the network",
            )
    return {t.name: tensor.detach().cpu().numpy() for t, tensor in zip(spec.outputs, tensors, strict=True)}


def _output_text(value: object) -> str:
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
