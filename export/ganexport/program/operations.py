"""Operations that a graph cannot hold as they are: rewritten where that is exact, refused by their module where not.

1. The inverse of 2×2 matrices (first-order motion models): its closed form, the adjugate over the determinant. ONNX has
   no inverse; larger ones are refused (`remedy_for`), unless they come from weights alone (`ganexport.program.baked`).
2. A transposed convolution whose output padding is not smaller than its stride, which torch allows with a dilation:
   refused, for ONNX Runtime does not run it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ganexport.program.emitter import Emitter
from ganexport.program.place import place_of_node
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

_aten = torch.ops.aten
_INVERSES = (_aten.inverse.default, _aten.linalg_inv.default)
_TRANSPOSED = (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input)


def rewrite_operations(program: torch.export.ExportedProgram, spec: GeneratorSpec) -> None:
    """Rewrites or refuses, in place. Raises `ExportError` with the module's name."""
    graph = program.graph_module.graph
    changed = False
    for node in list(graph.nodes):
        if node.target in _INVERSES and tuple(node.meta["val"].shape[-2:]) == (2, 2):
            _closed_inverse(node)
            changed = True
        elif node.target in _TRANSPOSED:
            _require_small_output_padding(node, spec)
    if changed:
        graph.eliminate_dead_code()
        program.graph_module.recompile()


def _closed_inverse(node: Node) -> None:
    with node.graph.inserting_before(node):
        emit = Emitter(node)
        rows = [emit(_aten.select.int, node.args[0], -2, i) for i in range(2)]
        (a, b), (c, d) = ([emit(_aten.select.int, row, -1, i) for i in range(2)] for row in rows)
        determinant = emit(_aten.sub.Tensor, emit(_aten.mul.Tensor, a, d), emit(_aten.mul.Tensor, b, c))
        first = emit(_aten.stack.default, [d, emit(_aten.neg.default, b)], -1)
        second = emit(_aten.stack.default, [emit(_aten.neg.default, c), a], -1)
        adjugate = emit(_aten.stack.default, [first, second], -2)  # [..., 2, 2]
        one_each = emit(_aten.unsqueeze.default, emit(_aten.unsqueeze.default, determinant, -1), -1)
        inverse = emit(_aten.div.Tensor, adjugate, one_each)
    node.replace_all_uses_with(inverse)
    node.graph.erase_node(node)


def _require_small_output_padding(node: Node, spec: GeneratorSpec) -> None:
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    values: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    stride, padding = values.get("stride", [1]), values.get("output_padding", [0])
    count = max(len(stride), len(padding))
    pairs = list(zip(_spread(stride, count), _spread(padding, count), strict=True))
    if any(p >= s for s, p in pairs):
        raise ExportError(
            f"{spec.name}: an output padding that is not smaller than the stride in {place_of_node(node)}",
            got=f"output_padding {list(padding)}, stride {list(stride)}",
            expected="what ONNX Runtime runs: output_padding < stride",
            remedy="leave output_padding out and crop less: a smaller padding, and a slice of the output",
        )


def _spread(values: Any, count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def remedy_for(target: str) -> str:
    """What to change where torch.onnx cannot export an operation."""
    if "linalg_inv" in target or "inverse" in target:
        return (
            "keep inputs out of it: what comes from weights alone is computed at export; that of a small matrix per "
            "sample: write its closed form"
        )
    return (
        "write it with plain torch operations that ONNX has, in place of the extension or the special function, or ask "
        "for a later opset (--opset); GANEXPORT_DEBUG=1 shows the traceback"
    )
