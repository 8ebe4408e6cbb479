"""New operations in a program, put before a node and told to be of its place."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node


class Emitter:
    """Puts operations into the graph before a node, as part of that node's place."""

    def __init__(self, at: Node) -> None:
        self._at = at
        self._mode = at.meta["val"].fake_mode

    def __call__(self, target: Any, *arguments: Any) -> Node:
        node = self._at.graph.call_function(target, arguments)
        node.meta |= {k: self._at.meta[k] for k in ("nn_module_stack", "stack_trace") if k in self._at.meta}
        with self._mode:
            node.meta["val"] = target(*torch.fx.node.map_arg(arguments, lambda n: n.meta["val"]))
        return node
