"""The trace of a network: torch's program with a dynamic batch, and a dynamic height and width where the spec leaves
them open, or the module, operation and line that forbid it."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ganexport.probes import probe_inputs
from ganexport.program.place import Follower, Operation, Place
from ganexport.program.size_conditions import (
    BATCH,
    SIDES,
    UnmetCondition,
    named_axes,
    require_conditions_met,
    symbolic_sizes,
)
from ganexport.proof_sizes import traced_size
from ganruntime.errors import ExportError
from ganruntime.sizes import spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

TRACE_SEED = 0x74726163  # "trac"
_NO_RANGE = "Cannot create Dim with inconsistent"
_REMEDY_OF_FIXED_SIZE = (
    "keep height and width out of Python conditions, of int() and of sizes in numbers: x.shape[-2:] and -1 stay "
    "symbols; or give fixed heights and widths in the spec"
)


def program_from_generator(module: nn.Module, spec: GeneratorSpec) -> torch.export.ExportedProgram:
    """The network as a program of torch operations in which the batch is a symbol, and what else the spec leaves open.

    Raises:
        ExportError: it cannot be traced, or fixes the batch, the height or the width; names the module, the operation
            and the line.
    """
    arguments = _example(spec)
    for least in (0, 2):
        try:
            return _traced(module, arguments, spec, least)
        except Exception as error:  # the exporter raises what the traced code and its own passes raise
            cause = error
        # Some of torch's own operations (LSTM, grid_sample) ask whether there is one row, and compute the same either
        # way: the gate runs a batch of one, and finds out where that is not so.
        if not _is_about_one_row(cause):
            break
    # Once more, followed: that costs time, and torch.cond cannot be traced so.
    follower = _SymbolFollower(module, spec)
    with contextlib.suppress(Exception), follower:
        _traced(module, arguments, spec, 0)
    if follower.narrowed is not None and _is_about_symbols(cause):
        place, what = follower.narrowed
        raise ExportError(
            f"{spec.name}: {what} in {place}",
            got=cause_of(cause),
            expected="a graph for every batch" + (", height and width" if varying_inputs(spec) else ""),
            remedy=_remedy_of_fixed_batch(place) if "batch" in what else _REMEDY_OF_FIXED_SIZE,
        ) from cause
    raise ExportError(
        f"{spec.name}: torch cannot trace {follower.place}",
        got=cause_of(cause),
        remedy="keep values of tensors out of Python conditions and loops (torch.where, masks), and use plain torch "
        "operations instead of extensions; GANEXPORT_DEBUG=1 shows the traceback",
    ) from cause


def failure_of_trace(module: nn.Module, spec: GeneratorSpec) -> Exception | None:
    """Why the network cannot be traced for all that the spec leaves open; None where it can."""
    try:
        _traced(module, _example(spec), spec, 0)
    except Exception as error:  # the exporter raises what the traced code and its own passes raise
        return None if _is_about_one_row(error) else error
    return None


def is_about_sizes(error: BaseException) -> bool:
    """Whether the trace went through, and holds for some heights or widths only."""
    return _is_about_symbols(error) and any(text in str(error) for text in (*SIDES, _NO_RANGE))


def _example(spec: GeneratorSpec) -> tuple[torch.Tensor, ...]:
    # A batch of 1 would be taken for a constant.
    example = probe_inputs(spec_at(spec, traced_size(spec)), TRACE_SEED, 0, 2)
    return tuple(torch.from_numpy(example[t.name]) for t in spec.inputs)


def _traced(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], spec: GeneratorSpec, least: int
) -> torch.export.ExportedProgram:
    # The patch lets the program hold for a batch of 1, as torch.onnx does it.
    with quiet(), torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            module,
            arguments,
            dynamic_shapes=_dynamic_shapes(module, spec, least),
            strict=False,  # strict tracing reads bytecode, and fails where plain Python is used
        )
    require_conditions_met(program, spec)
    return program


class _SymbolFollower(Follower):
    """Watches the symbols of batch, height and width, and remembers where one was first held to a number or a range."""

    def __init__(self, network: nn.Module, spec: GeneratorSpec) -> None:
        super().__init__(network)
        self._spec = spec
        self._symbols: list[tuple[str, torch.SymInt, Any]] = []
        self._guards = 0
        self._first_condition: tuple[Place, str] | None = None
        self._narrowed: tuple[Place, str] | None = None

    @property
    def narrowed(self) -> tuple[Place, str] | None:
        """Where, and what was held to what; a range says more than a condition that leaves one out."""
        return self._narrowed or self._first_condition

    def entered(self, arguments: tuple[Any, ...]) -> None:
        self._symbols, self._guards = [], 0
        self._narrowed = self._first_condition = None
        for tensor, told in zip(arguments, self._spec.inputs, strict=False):
            if not isinstance(tensor, torch.Tensor) or tensor.ndim != len(told.shape) + 1:
                continue
            for axis, name in named_axes(told).items():
                size = tensor.shape[axis]
                if isinstance(size, torch.SymInt):
                    self._symbols.append((name, size, _range_of(size)))

    def moving(self) -> None:
        self._look()

    def answer(self, function: Operation, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self._look()  # between two operations lie the network's own Python conditions
        result = super().answer(function, arguments, keywords)
        self._look()
        return result

    def _look(self) -> None:
        for name, size, before in self._symbols:
            now = _range_of(size)
            if now != before and self._narrowed is None:
                low, high = now
                what = (
                    f"the {name} is fixed to {low}" if low == high else f"the {name} is held between {low} and {high}"
                )
                self._narrowed = (self.place, what)
        guards = self._symbols[0][1].node.shape_env.guards if self._symbols else []
        for guard in guards[self._guards :]:
            for name, size, _ in self._symbols:
                symbol = next(iter(size.node.expr.free_symbols), None)
                if self._first_condition is None and symbol in guard.expr.free_symbols:
                    text = str(guard.expr).replace(str(symbol), name if size.node.expr == symbol else f"({name} / n)")
                    self._first_condition = (self.place, f"the graph is held to {text}")
        self._guards = len(guards)


def _is_about_symbols(error: BaseException) -> bool:
    """Whether the trace went through, and holds for some batches only."""
    # The last is how torch.export fails where no range is left that it could propose.
    return isinstance(error, UnmetCondition) or "Constraints violated" in str(error) or _NO_RANGE in str(error)


def _is_about_one_row(error: BaseException) -> bool:
    """Whether all that stands in the way of every batch is a question for a batch of one."""
    lines = [line for line in str(error).splitlines() if "satisfy the generated guard" in line]
    return (
        _is_about_symbols(error)
        and "specialized it to be a constant" not in str(error)
        and bool(lines)
        and all(line.rstrip(". ").endswith("!= 1") for line in lines)
    )


def _range_of(size: torch.SymInt) -> tuple[Any, Any]:
    """The values that the exporter still believes possible."""
    environment, expression = size.node.shape_env, size.node.expr
    found = environment.bound_sympy(environment.replace(expression))
    return found.lower, found.upper


def _remedy_of_fixed_batch(place: Place) -> str:
    if "conv" in place.operation:
        return (
            "the batch is a Python number here: take it from the tensor (x.shape[0], not int(x.shape[0]) and not a "
            "setting), and weights per sample are then rewritten; or scale the activations by the style, convolve them "
            "with the shared weight, and demodulate the output"
        )
    return "keep the batch out of Python conditions, of int() and of sizes in numbers: x.shape[0] and -1 stay symbols"


def _dimensions(tensor: TensorSpec, symbols: dict[str, Any]) -> dict[int, Any]:
    multiple = tensor.role.multiple if isinstance(tensor.role, Image) else 1
    return {
        axis: symbols[name] if name == BATCH or multiple == 1 else multiple * symbols[name]
        for axis, name in named_axes(tensor).items()
    }


def _dynamic_shapes(module: nn.Module, spec: GeneratorSpec, least: int) -> Any:
    """One entry per argument; what a *args takes goes together as one tuple."""
    symbols = {BATCH: torch.export.Dim(BATCH, min=least) if least else torch.export.Dim(BATCH)}
    for tensor in varying_inputs(spec)[:1]:
        assert isinstance(tensor.role, Image)
        steps = -(-tensor.role.minimum // tensor.role.multiple)
        symbols |= {side: torch.export.Dim(side, min=steps) for side in SIDES}
    shapes = tuple(_dimensions(t, symbols) for t in spec.inputs)
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        return shapes if named >= len(shapes) else (*shapes[:named], shapes[named:])
    return shapes


def symbol_names(program: torch.export.ExportedProgram, spec: GeneratorSpec) -> dict[str, str]:
    """The exporter's names of sizes that vary (`s77`), with those that a graph should have: `batch`, `height` and
    `width`, or `height_by_8` where the height is eight times as much."""
    names: dict[str, str] = {}
    for name, tensor, size in symbolic_sizes(program, spec):
        multiple = tensor.role.multiple if name != BATCH and isinstance(tensor.role, Image) else 1
        for symbol in size.node.expr.free_symbols:
            names[str(symbol)] = name if multiple == 1 else f"{name}_by_{multiple}"
    return names


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's prints, warnings and log lines away from the user; errors still come as exceptions."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        yield


def cause_of(error: BaseException) -> str:
    """The innermost cause in one line: the exporter wraps what went wrong in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    if len(lines) > 1 and lines[0].startswith("Constraints violated"):
        lines = lines[1:]  # the first line says only that there is more to say
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
