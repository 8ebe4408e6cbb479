"""Modulated convolution written as a grouped one, rewritten to scaled activations and one shared weight.

StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, section 2.2) multiplies a
convolution's weight by a style per sample, and its published code runs the N weights of a batch as one convolution of
N groups: [1, N·I, H, W] with [N·O, I, k, k]. The batch is then in `groups`, which an ONNX graph holds as a number. With
weights w[n,o,i,k] = W[o,i,k] · s[n,i] · d[n,o] the same comes of the activations x · s, convolved with W, times d.

1. A convolution (transposed or not, of one to three dimensions) whose groups are the batch: its weight is taken apart
   into a product of factors. One that has no batch dimension belongs to W; one that varies with the batch and the input
   channel scales the input; one that varies with the batch and the output channel scales the output. A factor that does
   anything else is refused, with the module's name and the way to write it.
2. The sum of squares of such a weight over input channels and kernel (demodulation): the matrix product of s² and the
   sums of W² over the kernel. The weights per sample, [N, O, I, k, k], are then made nowhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from ganexport.program.emitter import Emitter
from ganexport.program.factors import Factor, NotSeparableError, factors_of, sorted_factors
from ganexport.program.place import place_of_node
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

_aten = torch.ops.aten
_CONVOLUTIONS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
}
_TRANSPOSED = {_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input}
_HOW = (
    "scale the activations by the style (x * s[:, :, None, None]), convolve them with the shared weight in one "
    "convolution, and multiply the output by the demodulation, rsqrt(s² @ sum(W², kernel) + eps)"
)


def rewrite_modulated(program: torch.export.ExportedProgram, spec: GeneratorSpec) -> list[str]:
    """Rewrites every convolution whose groups are the batch, in place.

    Returns:
        The places that were rewritten.

    Raises:
        ExportError: a convolution has the batch in its groups and a weight that does not come apart; names the module.
    """
    graph = program.graph_module.graph
    places: list[str] = []
    for node in list(graph.nodes):
        if node.target not in _CONVOLUTIONS | _TRANSPOSED:
            continue
        groups = _argument(node, "groups", 1)
        if not isinstance(groups, Node):
            continue
        try:
            _rewrite(node, groups)
        except NotSeparableError as error:
            raise ExportError(
                f"{spec.name}: the batch is in the groups of {place_of_node(node)}",
                got=str(error),
                expected="a weight that is W[o, i, k] · style[n, i] · demodulation[n, o]",
                remedy=_HOW,
            ) from error
        places.append(str(place_of_node(node)))
    if places:
        _rewrite_demodulation(graph)
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return places


def _argument(node: Node, name: str, default: Any) -> Any:
    for index, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)
    return default


def _rewrite(node: Node, groups: Node) -> None:
    transposed = node.target in _TRANSPOSED
    value, weight = node.args[0], _argument(node, "weight", None)
    assert isinstance(value, Node)
    assert isinstance(weight, Node)
    batch = groups.meta["val"]
    rows, per_group, *kernel = weight.meta["val"].shape
    first = _quotient(rows, batch)  # O of a convolution, I of a transposed one
    outputs, inputs = (per_group, first) if transposed else (first, per_group)
    # Own axes of the weight's five-dimensional form, as places in [N, O, I, *kernel].
    order: tuple[int, ...] = (0, 2, 1) if transposed else (0, 1, 2)
    order += tuple(range(3, 3 + len(kernel)))
    sizes = (batch, outputs, inputs, *kernel)
    factors, flips = factors_of(weight, tuple(sizes[a] for a in order), order)
    shared, scales, gains = sorted_factors(factors, sizes)
    with node.graph.inserting_before(node):
        emit = _Weights(node)
        spatial = [1] * len(kernel)
        kernel_weight = emit.product(shared, (0, 1, 2, *range(3, 3 + len(kernel))), sizes)  # [1 | O…, broadcast]
        kernel_weight = emit(_aten.expand.default, kernel_weight, [1, *sizes[1:]])
        kernel_weight = emit(_aten.reshape.default, kernel_weight, list(sizes[1:]))  # [O, I, *kernel]
        if flips:
            kernel_weight = emit(_aten.flip.default, kernel_weight, [axis - 1 for axis in sorted(flips)])
        if transposed:
            kernel_weight = emit(_aten.transpose.int, kernel_weight, 0, 1)  # [I, O, *kernel]
        size = [_size_of(emit, value, axis) for axis in range(2, 2 + len(kernel))]
        x = emit(_aten.reshape.default, value, [groups, inputs, *size])  # [N, I, *size]
        if scales:
            s = emit.product(scales, tuple(range(len(sizes))), sizes)
            s = emit(_aten.reshape.default, s, [groups, _flat(s), *spatial])  # [N, I or 1, 1, 1]
            x = emit(_aten.mul.Tensor, x, s)
        arguments = [*node.args, *[a.default_value for a in node.target._schema.arguments[len(node.args) :]]]  # type: ignore[union-attr]
        names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
        bias = arguments[names.index("bias")]
        for name, new in (("input", x), ("weight", kernel_weight), ("bias", None), ("groups", 1)):
            arguments[names.index(name)] = new
        y = emit(node.target, *arguments)  # [N, O, *size]
        if gains:
            d = emit.product(gains, tuple(range(len(sizes))), sizes)
            d = emit(_aten.reshape.default, d, [groups, _flat(d), *spatial])  # [N, O or 1, 1, 1]
            y = emit(_aten.mul.Tensor, y, d)
        if bias is not None:
            y = emit(_aten.add.Tensor, y, emit(_aten.reshape.default, bias, [groups, outputs, *spatial]))
        whole = [_size_of(emit, y, axis) for axis in range(2, 2 + len(kernel))]
        y = emit(_aten.reshape.default, y, [1, -1, *whole])  # as the network's own code takes it apart again
    node.replace_all_uses_with(y)
    node.graph.erase_node(node)


def _flat(node: Node) -> int:
    """Elements per sample."""
    return math.prod(node.meta["val"].shape[1:])


def _quotient(rows: Any, batch: Any) -> int:
    quotient = rows // batch
    number = quotient if isinstance(quotient, int) else quotient.node.maybe_as_int()
    if number is None:
        raise NotSeparableError(f"groups {batch}, which do not divide {rows} rows into a fixed number")
    return int(number)


def _size_of(emit: _Weights, node: Node, axis: int) -> Any:
    """A size as a number, or as a node where it varies."""
    size = node.meta["val"].shape[axis]
    return size if isinstance(size, int) else emit(_aten.sym_size.int, node, axis)


class _Weights(Emitter):
    """Puts products of factors into the graph."""

    def product(self, factors: list[Factor], order: tuple[int, ...], sizes: tuple[Any, ...]) -> Node:
        """The product of the factors, with axes [N, O, I, *kernel], broadcast as far as the factors are."""
        result: Node | float = 1.0
        for factor in factors:
            node = factor.node
            if isinstance(node, Node):
                node = self._with_axes(node, factor.axes)
            result = self._combined(result, node, factor.reciprocal)
        if not isinstance(result, Node):
            raise NotSeparableError("no part of the weight that all samples share")
        return result

    def _with_axes(self, node: Node, axes: tuple[int | None, ...]) -> Node:
        ndim = node.meta["val"].ndim
        own = [ndim - 1 - a for a in axes if a is not None]
        if own != sorted(own):
            node = self(_aten.permute.default, node, own)
        for position, axis in enumerate(axes):
            if axis is None:
                node = self(_aten.unsqueeze.default, node, position)
        return node

    def _combined(self, left: Node | float, right: Node | float, reciprocal: bool) -> Node | float:
        if not isinstance(left, Node) and not isinstance(right, Node):
            return left / right if reciprocal else left * right
        if not isinstance(left, Node):
            if reciprocal:
                right = self(_aten.reciprocal.default, right)
            return right if left == 1.0 else self(_aten.mul.Tensor, right, left)
        return self(_aten.div.Tensor if reciprocal else _aten.mul.Tensor, left, right)


def _rewrite_demodulation(graph: torch.fx.Graph) -> None:
    """Sums of squares of weights per sample, over input channels and kernel, as matrix products."""
    for node in list(graph.nodes):
        if node.target != _aten.sum.dim_IntList:
            continue
        weight = _squared(node.args[0])
        if weight is None or weight.meta["val"].ndim < 4:
            continue
        sizes = tuple(weight.meta["val"].shape)
        axes = sorted(d % len(sizes) for d in node.args[1])
        if axes != list(range(2, len(sizes))) or isinstance(sizes[0], int):
            continue
        order = tuple(range(len(sizes)))
        try:
            factors, _ = factors_of(weight, sizes, order)  # a flip changes no sum
            shared, scales, gains = sorted_factors(factors, sizes)
        except NotSeparableError:
            continue  # it is computed as it was written
        if gains or not scales:
            continue
        outputs, inputs = sizes[1:3]
        with graph.inserting_before(node):
            emit = _Weights(node)
            w = emit(_aten.expand.default, emit.product(shared, order, sizes), [1, *sizes[1:]])
            w = emit(_aten.reshape.default, w, [outputs, inputs, -1])  # [O, I, K]
            squares = emit(_aten.sum.dim_IntList, emit(_aten.mul.Tensor, w, w), [2])  # [O, I]
            s = emit.product(scales, order, sizes)
            s = emit(_aten.reshape.default, s, [-1, _flat(s)])  # [N, I or 1]
            s = emit(_aten.expand.default, s, [-1, inputs])
            total = emit(_aten.matmul.default, emit(_aten.mul.Tensor, s, s), emit(_aten.t.default, squares))  # [N, O]
            if len(node.args) > 2 and node.args[2]:
                total = emit(_aten.reshape.default, total, [-1, outputs, *[1] * (len(sizes) - 2)])
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def _squared(node: Any) -> Node | None:
    """x where the node is x², however it is written."""
    if not isinstance(node, Node):
        return None
    square = (node.target == _aten.pow.Tensor_Scalar and node.args[1] == 2) or node.target == _aten.square.default
    square = square or (node.target == _aten.mul.Tensor and node.args[0] is node.args[1])
    return node.args[0] if square and isinstance(node.args[0], Node) else None
