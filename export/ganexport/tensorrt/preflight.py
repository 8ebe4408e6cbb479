"""`preflight_from_onnx`: what TensorRT will say of a graph, without TensorRT and without a GPU.

Every node is held against the table of operators for the release and against the rules of known traps. That nothing is
found means that nothing is known to fail; that an engine builds and computes the right thing, only building it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ganexport.tensorrt.graph_nodes import STANDARD_DOMAINS, Graph, Model, Node, model_from_onnx
from ganexport.tensorrt.node_types import main_type, types_of
from ganexport.tensorrt.operator_support import CODES, SupportTable, Version, support_table, text_from_version
from ganexport.tensorrt.preflight_rules import OPERATORS_MD, RULES, Finding, Place
from ganruntime.spec import GeneratorSpec, TensorSpec

# Domains of TensorRT's own operators and plugins: whether they are there, only the installation says.
_TENSORRT_DOMAINS = ("trt.plugins", "TRT_PLUGIN", "trt")


@dataclass(frozen=True)
class OperatorRow:
    """One operator as the graph uses it: in how many nodes, with which dtypes, and the gravest finding on it."""

    operator: str
    nodes: int
    types: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Preflight:
    """What was found. `ok` where nothing is known to fail or to compute something else."""

    version: Version
    table_read: str
    opset: int
    operators: tuple[OperatorRow, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(f.stops for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "tensorrt": text_from_version(self.version),
            "table_read": self.table_read,
            "opset": self.opset,
            "ok": self.ok,
            "operators": [asdict(row) for row in self.operators],
            "findings": [asdict(finding) for finding in self.findings],
        }


def preflight_from_onnx(
    data: bytes, version: Version, name: str = "model.onnx", spec: GeneratorSpec | None = None
) -> Preflight:
    """Holds a graph against a TensorRT release.

    Args:
        data: the ONNX file's bytes.
        version: the release, as (11, 4).
        name: how the file is called, for errors.
        spec: what the graph takes and gives; with it, dimensions are held against those that vary.

    Raises:
        BundleIntegrityError: the file is no ONNX model.
    """
    model = model_from_onnx(data, name)
    table = support_table(version)
    findings = list(_of_model(model, table, spec))
    used: Counter[str] = Counter()
    types_used: dict[str, set[str]] = {}
    outer = types_of(model.graph)
    for graph in model.graphs():
        is_function = any(graph is body for body in model.functions.values())
        types = outer if graph is model.graph else types_of(graph, {} if is_function else outer)
        for node in graph.nodes:
            label = node.operator if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.operator}"
            used[label] += 1
            dtype = main_type(node, types)
            types_used.setdefault(label, set()).update({CODES.get(dtype, dtype)} if dtype else ())
            place = Place(node, graph, model, types, version)
            findings += _of_operator(place, table, dtype)
            for rule in RULES:
                findings += rule(place)
    rows = [
        OperatorRow(label, count, tuple(sorted(types_used[label])), _verdict(label, findings))
        for label, count in sorted(used.items())
    ]
    return Preflight(version, table.read, model.opset, tuple(rows), tuple(dict.fromkeys(findings)))


def _of_model(model: Model, table: SupportTable, spec: GeneratorSpec | None) -> Iterator[Finding]:
    def find(severity: str, rule: str, problem: str, remedy: str, source: str = OPERATORS_MD) -> Finding:
        return Finding(severity, rule, "the graph", "", problem, remedy, source)

    oldest, newest = table.opsets
    release = f"TensorRT {text_from_version(table.version)}"
    if model.opset < oldest:
        yield find(
            "fails", "opset", f"opset {model.opset}; {release} takes {oldest} to {newest}", "export with opset 18"
        )
    elif model.opset > newest:
        yield find(
            "caution",
            "opset",
            f"opset {model.opset}; {release} is documented up to {newest}",
            "export with opset 18, which every release takes",
        )
    if table.is_beyond_sources:
        yield find(
            "caution",
            "release",
            f"the table of operators was read up to TensorRT {table.newest} (on {table.read})",
            "what newer releases changed is not in it",
            "; ".join(table.sources),
        )
    yield from _of_inputs(model.graph, find)
    for tensor in () if spec is None else (*spec.inputs, *spec.outputs):
        yield from _of_free_sides(model.graph, tensor, find)


def _of_inputs(graph: Graph, find: Any) -> Iterator[Finding]:
    for side, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for name, (dtype, shape) in tensors.items():
            if side == "input" and shape and shape[0] is not None:
                yield find(
                    "fails",
                    "fixed-batch",
                    f"{side} {name!r} has a fixed batch of {shape[0]}, and there is no profile per bucket without one",
                    "export again: `ganexport to-onnx` makes the batch dynamic",
                    "pytorch/pytorch#148886",
                )
            if dtype and dtype not in CODES and dtype != "float64":
                yield find(
                    "fails",
                    "dtype",
                    f"{side} {name!r} is {dtype}, a type that TensorRT does not have",
                    "export it as float32",
                )


def _of_free_sides(graph: Graph, tensor: TensorSpec, find: Any) -> Iterator[Finding]:
    """A height or width that varies by the spec and is fixed in the graph: it would take no profile of another size."""
    side = "input" if tensor.name in graph.inputs else "output"
    _, shape = (graph.inputs if side == "input" else graph.outputs).get(tensor.name, ("", None))
    if shape is None or len(shape) != 1 + len(tensor.shape):
        return
    fixed = [d for d, free in zip(shape[1:], tensor.shape, strict=True) if free is None and d is not None]
    if fixed:
        yield find(
            "fails",
            "fixed-size",
            f"{side} {tensor.name!r} has a fixed height or width of {fixed[0]}, and by the spec it varies",
            "export again: `ganexport to-onnx` makes height and width dynamic where the spec leaves them open",
            "pytorch/pytorch#148886",
        )


def _of_operator(place: Place, table: SupportTable, dtype: str) -> Iterator[Finding]:
    node = place.node
    if node.domain not in STANDARD_DOMAINS:
        yield from _of_custom(place)
        return
    support = table.operator(node.operator)
    if support is None or not support.supported:
        since = None if support is None else support.since
        yield place.find(
            "fails",
            "operator",
            f"{place.release} does not take {node.operator}" + (f" (from {since} on)" if since else ""),
            (f"TensorRT {since} or later; or " if since else "")
            + "replace the module that makes this node, or serve with ONNX Runtime",
        )
        return
    if dtype == "float64":
        yield place.find(
            "caution", "float64", f"{node.operator} in float64, which TensorRT computes in float32", "export in float32"
        )
    elif dtype == "uint8" and node.operator not in ("Cast", "CastLike", "Constant"):
        yield from _of_uint8(place, node)
    elif dtype and support.types is not None and CODES.get(dtype, dtype) not in support.types:
        yield place.find(
            "fails",
            "dtype",
            f"{node.operator} of {dtype}; {place.release} takes {', '.join(sorted(support.types))}",
            "cast to a type that it takes around this node",
        )


def _of_uint8(place: Place, node: Node) -> Iterator[Finding]:
    yield place.find(
        "fails",
        "uint8",
        f"{node.operator} of uint8, which TensorRT has in inputs and outputs only",
        "cast to float32 before, or to uint8 after this node",
    )


def _of_custom(place: Place) -> Iterator[Finding]:
    node = place.node
    if (node.domain, node.operator) in place.model.functions:
        return  # its nodes are judged one by one
    known = node.domain in _TENSORRT_DOMAINS
    yield place.find(
        "caution" if known else "fails",
        "custom-operator",
        f"{node.domain}.{node.operator} is no ONNX operator: it needs a TensorRT plugin of that name",
        "see that the plugin is loaded where the engine is built and where it runs"
        if known
        else "replace the module that makes this node, or serve with ONNX Runtime",
    )


def _verdict(label: str, findings: list[Finding]) -> str:
    name = label.rpartition(".")[2]
    found = {f.severity for f in findings if f.operator == name}
    return next((s for s in ("fails", "wrong", "caution") if s in found), "supported")
