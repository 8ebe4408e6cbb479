"""The trace of a network: torch's program with a dynamic batch, or the module, operation and line that forbid one."""

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
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

BATCH = "batch"
TRACE_SEED = 0x74726163  # "trac"


def program_from_generator(module: nn.Module, spec: GeneratorSpec) -> torch.export.ExportedProgram:
    """The network as a program of torch operations in which the batch is a symbol.

    Raises:
        ExportError: it cannot be traced, or fixes the batch; names the module, the operation and the line.
    """
    example = probe_inputs(spec, TRACE_SEED, 0, 2)  # a batch of 1 would be taken for a constant
    arguments = tuple(torch.from_numpy(example[t.name]) for t in spec.inputs)
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
    follower = _SymbolFollower(module)
    with contextlib.suppress(Exception), follower:
        _traced(module, arguments, spec, 0)
    if follower.narrowed is not None and _is_about_symbols(cause):
        place, what = follower.narrowed
        raise ExportError(
            f"{spec.name}: {what} in {place}",
            got=cause_of(cause),
            expected="a graph for every batch",
            remedy=_remedy_of_fixed_batch(place),
        ) from cause
    raise ExportError(
        f"{spec.name}: torch cannot trace {follower.place}",
        got=cause_of(cause),
        remedy="keep values of tensors out of Python conditions and loops (torch.where, masks), and use plain torch "
        "operations instead of extensions; GANEXPORT_DEBUG=1 shows the traceback",
    ) from cause


def _traced(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], spec: GeneratorSpec, least: int
) -> torch.export.ExportedProgram:
    # The patch lets the program hold for a batch of 1, as torch.onnx does it.
    with quiet(), torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            module,
            arguments,
            dynamic_shapes=_dynamic_shapes(module, spec, least),
            strict=False,  # strict tracing reads bytecode, and fails where plain Python is used
        )


class _SymbolFollower(Follower):
    """Watches the batch's symbol, and remembers where it was first held to a number or a range."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._symbols: list[tuple[torch.SymInt, Any]] = []
        self._guards = 0
        self._first_condition: tuple[Place, str] | None = None
        self._narrowed: tuple[Place, str] | None = None

    @property
    def narrowed(self) -> tuple[Place, str] | None:
        """Where, and what the batch was held to; a range says more than a condition that leaves one out."""
        return self._narrowed or self._first_condition

    def entered(self, arguments: tuple[Any, ...]) -> None:
        self._symbols, self._guards = [], 0
        self._narrowed = self._first_condition = None
        for tensor in arguments:
            size = tensor.shape[0] if isinstance(tensor, torch.Tensor) and tensor.ndim else None
            if isinstance(size, torch.SymInt):
                self._symbols.append((size, _range_of(size)))

    def moving(self) -> None:
        self._look()

    def answer(self, function: Operation, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self._look()  # between two operations lie the network's own Python conditions
        result = super().answer(function, arguments, keywords)
        self._look()
        return result

    def _look(self) -> None:
        for size, before in self._symbols:
            now = _range_of(size)
            if now != before and self._narrowed is None:
                low, high = now
                what = f"the batch is fixed to {low}" if low == high else f"the batch is held between {low} and {high}"
                self._narrowed = (self.place, what)
            guards = size.node.shape_env.guards
            for guard in guards[self._guards :]:
                if self._first_condition is None and size.node.expr in guard.expr.free_symbols:
                    text = str(guard.expr).replace(str(size.node.expr), BATCH)
                    self._first_condition = (self.place, f"the graph is held to {text}")
            self._guards = len(guards)


def _is_about_symbols(error: BaseException) -> bool:
    """Whether the trace went through, and holds for some batches only."""
    return "Constraints violated" in str(error)


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


def _dynamic_shapes(module: nn.Module, spec: GeneratorSpec, least: int) -> Any:
    """One entry per argument; what a *args takes goes together as one tuple."""
    batch = torch.export.Dim(BATCH, min=least) if least else torch.export.Dim(BATCH)
    shapes = tuple({0: batch} for _ in spec.inputs)
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        return shapes if named >= len(shapes) else (*shapes[:named], shapes[named:])
    return shapes


def symbol_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """The exporter's names of sizes that vary (`s77`), with those that a graph should have (`batch`)."""
    own = set(program.graph_signature.user_inputs)
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in own]
    return {str(node.meta["val"].shape[0]): BATCH for node in inputs}


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
