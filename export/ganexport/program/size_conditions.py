"""Conditions on height and width that a trace has met, and whether every size meets them.

torch.export compares a program's conditions with the range that was asked for, but not where a dimension is a multiple
of a symbol: the condition `width <= 48` then ends the symbol's range at 24 without a word. So conditions are evaluated
here, from the smallest size to ones far larger than any example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sympy
import torch

from ganruntime.sizes import varying_inputs
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

BATCH = "batch"
SIDES = ("height", "width")
# Steps above the smallest size: a run, in which remainders of up to 8 steps show, and then ever larger ones.
_STEPS = (*range(9), 15, 24, 31, 63, 127, 511)
_PROPOSED_LEAST = re.compile(r"(?:height|width)\w* = Dim\('\w+', (?:max=\d+, )?min=(\d+)")


class UnmetCondition(Exception):
    """The program holds for some heights and widths only. least: the steps from which on it holds; 0 where none are."""

    def __init__(self, condition: str, least: int) -> None:
        super().__init__(f"the graph would hold for heights and widths with {condition} only")
        self.least = least


def least_steps(error: BaseException) -> int:
    """The smallest number of steps for which a trace would hold, as its error says; 0 where it does not."""
    if isinstance(error, UnmetCondition):
        return error.least
    return max((int(m) for m in _PROPOSED_LEAST.findall(str(error))), default=0)


def named_axes(tensor: TensorSpec) -> dict[int, str]:
    """The dimensions that vary, with the batch before the others: {0: batch, 2: height, 3: width}."""
    axes = {0: BATCH}
    if isinstance(tensor.role, Image):
        for axis, side in zip(tensor.role.height_and_width, SIDES, strict=True):
            if tensor.shape[axis] is None:
                axes[axis + 1] = side
    return axes


def symbolic_sizes(
    program: torch.export.ExportedProgram, spec: GeneratorSpec
) -> Iterator[tuple[str, TensorSpec, torch.SymInt]]:
    """The dimensions of the program's inputs that are symbols: (batch, height or width; the input; the symbol)."""
    own = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in own]
    for node, tensor in zip(nodes, spec.inputs, strict=True):
        for axis, name in named_axes(tensor).items():
            size = node.meta["val"].shape[axis]
            if isinstance(size, torch.SymInt):
                yield name, tensor, size


def require_conditions_met(program: torch.export.ExportedProgram, spec: GeneratorSpec) -> None:
    """Raises `UnmetCondition` where the trace holds for some heights and widths only."""
    if not varying_inputs(spec):
        return
    steps: dict[str, Any] = {}
    names: dict[Any, str] = {}
    environment: Any = None
    for name, tensor, size in symbolic_sizes(program, spec):
        environment = size.node.shape_env
        (symbol,) = size.node.expr.free_symbols
        steps[name] = symbol
        multiple = tensor.role.multiple if name != BATCH and isinstance(tensor.role, Image) else 1
        names[symbol] = name if multiple == 1 else f"{name}/{multiple}"
    if not all(side in steps for side in SIDES):
        return
    height, width = (steps[side] for side in SIDES)
    role = varying_inputs(spec)[0].role
    assert isinstance(role, Image)
    least = -(-role.minimum // role.multiple)
    conditions, meant = _conditions(environment, {height, width})
    for condition in conditions:
        replaced = condition.xreplace(meant)
        if not replaced.free_symbols or not replaced.free_symbols <= {height, width}:
            continue
        unmet = [more for more in _STEPS if not _is_met(replaced, height, width, least, more)]
        if unmet:
            after = [more for more in _STEPS if more > unmet[-1]]
            text = str(replaced.xreplace({s: sympy.Symbol(n) for s, n in names.items()}))
            raise UnmetCondition(text, least + after[0] if after and unmet[-1] < _STEPS[8] else 0)


def _conditions(environment: Any, symbols: set[Any]) -> tuple[list[Any], dict[Any, Any]]:
    """The conditions of a trace, and what the symbols mean of sizes that are multiples: {size: multiple · symbol}."""
    meant: dict[Any, Any] = {}
    conditions = []
    for guard in environment.guards:
        condition = guard.expr
        if isinstance(condition, sympy.Eq) and condition.lhs.is_Symbol and condition.rhs.free_symbols & symbols:
            meant.setdefault(condition.lhs, condition.rhs)
        conditions.append(condition)
    for symbol in symbols:
        meant.pop(symbol, None)
    return conditions, meant


def _is_met(condition: Any, height: Any, width: Any, least: int, more: int) -> bool:
    """At the smallest size but for so many steps in height, in width, and in both."""
    for taller, wider in ((more, 0), (0, more), (more, more)):
        values = {height: sympy.Integer(least + taller), width: sympy.Integer(least + wider)}
        if condition.xreplace(values) not in (True, sympy.true):
            return False
    return True
