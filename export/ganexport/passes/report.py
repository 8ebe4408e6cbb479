"""What a pass says of itself: what it changed, and what it refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """A node that the pass looked at and left as it is."""

    node: str
    reason: str


@dataclass
class PassReport:
    """The outcome of one pass over one graph.

    Attributes:
        name: the pass, as in `ganexport.passes.PASSES`.
        changed: one line per change, in the order of the graph.
        refused: what would have been this pass's business, and could not be done exactly.
        max_abs_change: largest change of any output over the probes, where the pass was proven.
        nodes_before, nodes_after: how many nodes the graph has; those of graphs inside of nodes, too.
    """

    name: str
    changed: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    max_abs_change: float = 0.0
    nodes_before: int = 0
    nodes_after: int = 0

    def refuse(self, node: str, reason: str) -> None:
        self.refused.append(Refusal(node, reason))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "changed": list(self.changed),
            "max_abs_change": self.max_abs_change,
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "refused": [{"node": r.node, "reason": r.reason} for r in self.refused],
        }
