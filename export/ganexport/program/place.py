"""The place in a network where something happens: module, class, operation and line, followed while it runs."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent.parent)
_PYTHON = sysconfig.get_path("stdlib")


@dataclass(frozen=True)
class Place:
    """Where in a network something happened.

    path: the module's dotted path, empty for the network itself. class_name: its class.
    operation: the last torch function that was called there, empty where there was none.
    line: file and line of the network's own code, such as `models.py:41`; empty where it is not known.
    """

    path: str
    class_name: str
    operation: str = ""
    line: str = ""

    def __str__(self) -> str:
        parts = [f"{self.path!r} ({self.class_name})" if self.path else f"the network itself ({self.class_name})"]
        parts += [self.operation] if self.operation else []
        parts += [self.line] if self.line else []
        return ", ".join(parts)


Operation = Callable[..., Any]
OnCall = Callable[[Operation, tuple[Any, ...], dict[str, Any], Place], Any]


class Follower(TorchFunctionMode):
    """Follows a network while it runs: which module, which torch function, which line.

    Where the network raises, `place` stays where it was raised. A subclass may answer calls itself (`answer`).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._open: list[tuple[str, str]] = []
        self._operation = ""
        self._line = ""
        self._handles: list[Any] = []

    @property
    def place(self) -> Place:
        path, class_name = self._open[-1] if self._open else ("", type(self._network).__name__)
        return Place(path, class_name, self._operation, self._line)

    def answer(self, function: Operation, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What a call of a torch function gives; the function's own answer by default."""
        return function(*arguments, **keywords)

    def entered(self, arguments: tuple[Any, ...]) -> None:
        """Called with the network's arguments before it runs."""

    def moving(self) -> None:
        """Called before a module is entered or left, while `place` is still the one before."""

    def __enter__(self) -> Follower:
        for path, module in self._network.named_modules():
            name = (path, type(module).__name__)
            self._handles.append(module.register_forward_pre_hook(self._opening(name)))
            self._handles.append(module.register_forward_hook(self._closing))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)  # type: ignore[no-untyped-call]
        while self._handles:
            self._handles.pop().remove()

    def __torch_function__(
        self, func: Operation, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._open:
            name = resolve_name(func) or getattr(func, "__name__", "")
            if not _is_dull(name):
                self._operation, self._line = name, network_line()
            elif not self._operation:
                self._line = network_line()
        return self.answer(func, args, kwargs or {})

    def _opening(self, name: tuple[str, str]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if self._open and name[0]:
                self._operation, self._line = "", network_line()
                self.moving()
            self._open.append(name)
            self._operation, self._line = "", ""
            if not name[0]:
                self._open[:] = [name]  # a run that failed before has left its modules here
                self.entered(arguments)

        return hook

    def _closing(self, module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        self.moving()
        self._open.pop()
        self._operation, self._line = "", ""


def _is_dull(name: str) -> bool:
    """Whether a function only asks for a shape or sets a mode: nobody looks for it in a network."""
    last = name.rpartition(".")[2]
    return last in ("__get__", "__set__", "size", "dim", "stride") or (last.startswith("_") and last[1:2] != "_")


def place_of_failure(network: nn.Module, arguments: Sequence[torch.Tensor]) -> Place | None:
    """Where a network raises on these arguments; None where it does not."""
    follower = Follower(network)
    try:
        with torch.compiler.set_stance("force_eager"), torch.inference_mode(), follower:
            network(*arguments)
    except Exception:  # whatever a stranger's code raises
        return follower.place
    return None


def network_line() -> str:
    """File and line of the innermost frame of the network's own code; empty where there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_HERE) and file != __file__:
            break  # from here on it is who runs the network
        if not file.startswith((_TORCH, _HERE, "<")) and not _is_standard_library(file):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _is_standard_library(file: str) -> bool:
    return file.startswith(_PYTHON) and "site-packages" not in file


def place_of_node(node: torch.fx.Node) -> Place:
    """Where in the network a node of its program comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    path, class_name = "", ""
    for path, class_name in stack.values():  # noqa: B007  the last one is the innermost
        pass
    class_text = class_name if isinstance(class_name, str) else class_name.__name__
    return Place(path, class_text.rpartition(".")[2], str(node.target), _line_of_trace(node.meta.get("stack_trace")))


def _line_of_trace(trace: str | None) -> str:
    """The innermost line of a node's `stack_trace` that is not torch's own."""
    for line in reversed((trace or "").splitlines()):
        file, found, rest = line.strip().removeprefix('File "').partition('", line ')
        if found and not file.startswith(_TORCH):
            return f"{Path(file).name}:{rest.partition(',')[0]}"
    return ""


def node_of_failure(error: BaseException) -> torch.fx.Node | None:
    """The node that the exporter was at when it failed: it names it in pages of text, and holds it in its frames."""
    found: torch.fx.Node | None = None
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            node = trace.tb_frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and node.op == "call_function":
                found = node
            trace = trace.tb_next
        cause = cause.__cause__
    return found
