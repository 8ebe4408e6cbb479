"""A weight per sample taken apart into the factors that it is a product of, as they stand in a traced program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

_aten = torch.ops.aten
# What leaves the elements in their order, whatever the shape.
_SAME_ORDER = {
    _aten.view.default,
    _aten.reshape.default,
    _aten._unsafe_view.default,
    _aten.contiguous.default,
    _aten.clone.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.flatten.using_ints,
    _aten.unflatten.int,
}


@dataclass(frozen=True)
class Factor:
    """A tensor that a weight is a product of, as axes [N, O, I, *kernel].

    axes: for each of these axes, the node's own axis from the right (0 is the last), or None where it has size 1.
    """

    node: Node | float
    reciprocal: bool
    axes: tuple[int | None, ...]
    sizes: tuple[Any, ...]


class NotSeparableError(Exception):
    """The weight is no product of what can be shared and what scales."""


def factors_of(node: Any, sizes: Sequence[Any], order: tuple[int, ...]) -> tuple[list[Factor], set[int]]:
    """Takes the product apart that has these sizes and these axes ([N, O, I, *kernel] by number) of its own.

    Also gives the kernel axes along which the product is flipped.
    """
    flips: set[int] = set()
    while True:
        if node.target in _SAME_ORDER:
            node = node.args[0]
            continue
        if node.target == _aten.flip.default:
            # Of a weight folded to [N·O, I, *kernel] too: its kernel axes are the last ones in either form.
            shape, missing = node.meta["val"].shape, len(sizes) - node.meta["val"].ndim
            axes = {d % len(shape) + missing for d in node.args[1]}
            if min(axes) < 3 or not same_sizes(shape[3 - missing :], sizes[3:]):
                raise NotSeparableError("a weight that is flipped along its channels")
            flips ^= {order[axis] for axis in axes}
            node = node.args[0]
            continue
        if not same_sizes(node.meta["val"].shape, sizes):
            raise NotSeparableError(f"a weight made by {_short(node)} of shape {_text(node.meta['val'].shape)}")
        if node.target in (_aten.transpose.int, _aten.permute.default):
            moved = list(range(len(sizes)))
            if node.target == _aten.permute.default:
                moved = [d % len(sizes) for d in node.args[1]]
            else:
                a, b = (d % len(sizes) for d in node.args[1:])
                moved[a], moved[b] = moved[b], moved[a]
            # This axis i is the source's axis moved[i].
            before = sorted(range(len(sizes)), key=lambda i: moved[i])
            sizes, order = [sizes[i] for i in before], tuple(order[i] for i in before)
            node = node.args[0]
            continue
        return _product(node, tuple(sizes), order, False), flips


def _product(node: Any, sizes: tuple[Any, ...], order: tuple[int, ...], reciprocal: bool) -> list[Factor]:
    if not isinstance(node, Node):
        return [Factor(float(node), reciprocal, (None,) * len(sizes), (1,) * len(sizes))]
    if node.target == _aten.mul.Tensor:
        return [f for a in node.args[:2] for f in _product(a, sizes, order, reciprocal)]
    if node.target == _aten.div.Tensor:
        return [
            *_product(node.args[0], sizes, order, reciprocal),
            *_product(node.args[1], sizes, order, not reciprocal),
        ]
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        raise NotSeparableError(f"a factor that is no tensor: {_short(node)}")
    own = [*([1] * (len(sizes) - value.ndim)), *value.shape]
    if value.ndim == len(sizes) and node.target in _SAME_ORDER and same_sizes(own, sizes):
        # A product that was written flat and folded back.
        source = node.args[0]
        assert isinstance(source, Node)
        if same_sizes(source.meta["val"].shape, sizes):
            return _product(source, sizes, order, reciprocal)
    axes: list[int | None] = [None] * len(sizes)
    canonical: list[Any] = [1] * len(sizes)
    for position, axis in enumerate(order):
        canonical[axis] = own[position]
        axes[axis] = len(sizes) - 1 - position if position >= len(sizes) - value.ndim else None
    return [Factor(node, reciprocal, tuple(axes), tuple(canonical))]


def sorted_factors(factors: list[Factor], sizes: tuple[Any, ...]) -> tuple[list[Factor], list[Factor], list[Factor]]:
    """Factors of the shared weight, of the input's scale, and of the output's."""
    shared, scales, gains = [], [], []
    for factor in factors:
        rows, outputs, inputs, *kernel = factor.sizes
        if isinstance(rows, int) and rows == 1:
            shared.append(factor)
        elif any(k != 1 for k in kernel) or (outputs != 1 and inputs != 1):
            assert isinstance(factor.node, Node)
            raise NotSeparableError(
                f"a factor made by {_short(factor.node)} that has the shape {_text(factor.sizes)} in [N, O, I, *kernel]"
            )
        elif outputs != 1:
            gains.append(factor)
        else:
            scales.append(factor)
    if not shared:
        raise NotSeparableError("no part of the weight that all samples share")
    return shared, scales, gains


def same_sizes(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return len(found) == len(expected) and all(_equal(a, b) for a, b in zip(found, expected, strict=True))


def _equal(a: Any, b: Any) -> bool:
    """Whether two sizes are the same for every batch: comparing symbols themselves would hold them to it."""
    one, other = (x.node.expr if isinstance(x, torch.SymInt) else x for x in (a, b))
    return bool(one == other)


def _short(node: Node) -> str:
    return str(node.target)


def _text(shape: Sequence[Any]) -> list[Any]:
    return ["N" if isinstance(d, torch.SymInt) else d for d in shape]
