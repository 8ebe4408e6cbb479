"""Convolutions of 3 × 3 with many channels as matrix products, by Winograd's minimal algorithms.

A tile of 4 × 4 outputs takes 36 products for each pair of channels in place of 144 (F(4 × 4, 3 × 3), Lavin and Gray,
2016; `bilinear`). Tiles, their overlap and the padding are all in two constant matrices, B [Q·T, H] and A [H, Q·T] for
Q products and T tiles along an axis, so that the whole is seven ordinary nodes of data:

    [N, C, H, W] @ Bᵀ -> [N, C, H, Q'T'] -> transposed [Q', H, T'NC] -> B @ -> [Q'Q, TT'N, C]
    @ U [Q'Q, C, K] -> [Q', QT, T'NK] -> A @ -> [Q', H, T'NK] -> transposed [N, K, H, Q'T'] -> @ Aᵀ [N, K, H, W]

1. Constant weights, kernel 3 × 3, stride 1, padding 1, dilation 1, one group, height and width known and multiples of
   4, and by a count of operations (`cost_ratio`) at most 0.7 of the direct convolution: rewritten.
2. A 3 × 3 convolution that is otherwise of this kind, of another size or by that count not cheaper: refused.
3. Everything else is none of its business.

The count is a model of what was measured with OpenVINO on two AVX-512 cores (benchmarks/README.md). The weights grow to
four times their size, which at batch 1 can cost more than it saves: so this is for a variant beside the plain graph.
Errors are those of float32 sums of another order: against float64 three times those of OpenVINO's direct convolution,
and ten times those of ONNX Runtime's.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.bilinear import Matrix, correlation
from ganexport.passes.constants import constant_of, integer_of, integers_of, name_of, new_initializer, string_of
from ganexport.passes.report import PassReport

_TAPS, _TILE = 3, 4
_PRODUCTS = _TILE + _TAPS - 1
WORTH = 0.7
# What moving one element of a transposed intermediate value costs, in multiplications; and by how much slower than the
# large product the narrow ones of the transforms are.
_MOVE, _NARROW = 45.0, 2.0


def conv_to_winograd(model: ir.Model, worth: float = WORTH) -> PassReport:
    """Rewrites every convolution that by count costs at most `worth` of what it does now."""
    report = PassReport("conv_to_winograd")
    for node in list(model.graph):
        weight = _weight_of(node)
        if weight is None:
            continue
        sizes = _sizes_of(node)
        reason = _why_not(weight, sizes, worth)
        if reason is not None:
            report.refuse(name_of(node), reason)
            continue
        assert sizes is not None
        report.changed.append(_rewrite(model.graph, node, weight, sizes))
    return report


def cost_ratio(inputs: int, outputs: int, height: int, width: int) -> float:
    """What the rewritten form costs over the direct convolution, per image, in multiplications and their like."""
    rows, columns = _PRODUCTS * height / _TILE, _PRODUCTS * width / _TILE
    direct = _TAPS**2 * height * width * inputs * outputs
    product = rows * columns * inputs * outputs
    transforms = (height * width * columns + rows * height * columns) * (inputs + outputs)
    moves = height * columns * (inputs + outputs)
    return float((product / 0.9 + _NARROW * transforms + _MOVE * moves) / direct)


def _weight_of(node: ir.Node) -> NDArray[np.generic] | None:
    """The weight [K, C, 3, 3] of a convolution of the kind that this pass is about."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or integer_of(node, "group", 1) != 1:
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.shape[2:] != (_TAPS, _TAPS) or weight.dtype != np.float32:
        return None
    same = string_of(node, "auto_pad", "NOTSET") == "NOTSET" and integers_of(node, "pads", [0] * 4) == [1] * 4
    plain = all(integers_of(node, name, [1, 1]) == [1, 1] for name in ("strides", "dilations"))
    return weight if same and plain else None


def _sizes_of(node: ir.Node) -> tuple[int, int] | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) != 4 or not all(isinstance(d, int) for d in list(shape)[2:]):
        return None
    return int(shape[2]), int(shape[3])  # type: ignore[arg-type]


def _why_not(weight: NDArray[np.generic], sizes: tuple[int, int] | None, worth: float) -> str | None:
    if sizes is None:
        return "its height and width are not known"
    if sizes[0] % _TILE or sizes[1] % _TILE:
        return f"its height and width, {sizes[0]} × {sizes[1]}, are not multiples of {_TILE}"
    ratio = cost_ratio(weight.shape[1], weight.shape[0], *sizes)
    if ratio > worth:
        return f"by count it would cost {ratio:.2f} of the direct convolution, and pays up to {worth:g}"
    return None


def transform_matrices(size: int) -> tuple[Matrix, Matrix]:
    """B [Q·T, size] and A [size, Q·T] along an axis of `size` pixels that is padded by 1; row q·T + t is product q of
    tile t."""
    a, _, b = correlation(_TILE, _TAPS)
    tiles = size // _TILE
    inputs, outputs = np.zeros((_PRODUCTS, tiles, size)), np.zeros((size, _PRODUCTS, tiles))
    for tile in range(tiles):
        first = tile * _TILE - 1  # where the padding is, nothing is
        for j in range(_PRODUCTS):
            if 0 <= first + j < size:
                inputs[:, tile, first + j] = b[:, j]
        outputs[tile * _TILE : (tile + 1) * _TILE, :, tile] = a
    return inputs.reshape(-1, size), outputs.reshape(size, -1)


def transformed_weight(weight: NDArray[np.generic]) -> NDArray[np.float32]:
    """[K, C, 3, 3] -> U [Q'·Q, C, K], Q' along the width."""
    _, g, _ = correlation(_TILE, _TAPS)
    u = np.einsum("ra,qb,kcba->rqck", g, g, weight.astype(np.float64), optimize=True)  # b: rows, a: columns
    return np.ascontiguousarray(u.reshape(_PRODUCTS**2, weight.shape[1], weight.shape[0]).astype(np.float32))


def _rewrite(graph: ir.Graph, node: ir.Node, weight: NDArray[np.generic], sizes: tuple[int, int]) -> str:
    outputs, inputs = weight.shape[:2]
    height, width = sizes
    q, t_h, t_w = _PRODUCTS, height // _TILE, width // _TILE
    name = name_of(node)
    into_rows, from_rows = (m.astype(np.float32) for m in transform_matrices(height))
    into_columns, from_columns = (np.ascontiguousarray(m.T, np.float32) for m in transform_matrices(width))
    made: list[ir.Node] = []

    def constant(what: str, array: NDArray[np.generic]) -> ir.Value:
        return new_initializer(graph, f"{name}_{what}", array)

    def put(op_type: str, what: str, *given: ir.Value | None, **attributes: object) -> ir.Value:
        made.append(ir.node(op_type, list(given), attributes or None, name=f"{name}_{what}"))  # type: ignore[arg-type]
        made[-1].outputs[0].name = f"{name}_{what}_out"
        return made[-1].outputs[0]

    def shaped(value: ir.Value, what: str, *shape: int) -> ir.Value:
        return put("Reshape", what, value, constant(f"{what}_shape", np.array(shape, np.int64)))

    x = put("MatMul", "columns_in", node.inputs[0], constant("b_columns", into_columns))  # [N, C, H, Q'T']
    x = shaped(x, "tiles_in", -1, inputs, height, q, t_w)
    x = put("Transpose", "spatial_first", x, perm=[3, 2, 4, 0, 1])  # [Q', H, T', N, C]
    x = shaped(x, "rows", q, height, -1)
    x = put("MatMul", "rows_in", constant("b_rows", into_rows), x)  # [Q', QT, T'NC]
    x = shaped(x, "products", q * q, -1, inputs)
    y = put("MatMul", "product", x, constant("u", transformed_weight(weight)))  # [Q'Q, TT'N, K]
    y = shaped(y, "product_rows", q, q * t_h, -1)
    y = put("MatMul", "rows_out", constant("a_rows", from_rows), y)  # [Q', H, T'NK]
    y = shaped(y, "tiles_out", q, height, t_w, -1, outputs)
    y = put("Transpose", "batch_first", y, perm=[3, 4, 1, 0, 2])  # [N, K, H, Q', T']
    y = shaped(y, "columns", -1, outputs, height, q * t_w)
    y = put("MatMul", "columns_out", y, constant("a_columns", from_columns))  # [N, K, H, W]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        array = constant_of(bias)
        shape = constant("bias_shape", np.array([outputs, 1, 1], np.int64))
        column = (
            constant("bias", array.reshape(-1, 1, 1))
            if array is not None
            else put("Reshape", "bias_column", bias, shape)
        )
        y = put("Add", "biased", y, column)
    old = node.outputs[0]
    y.name, y.shape, y.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [old], [y])
    return (
        f"{name}: {inputs} to {outputs} channels at {height} × {width}, {q * q} products in place of "
        f"{(_TILE * _TAPS) ** 2} for {_TILE} × {_TILE} pixels"
    )
