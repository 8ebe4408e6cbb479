"""What must hold of an ONNX graph whatever network it comes from, and what must not be left in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnx

_RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def check_graph(model: onnx.ModelProto, spec: GeneratorSpec, opset: int) -> None:
    found_opset = {o.domain: o.version for o in model.opset_import}.get("")
    if found_opset != opset:
        # The exporter falls back to its own opset where a node cannot be converted.
        raise ExportError(
            f"{spec.name}: the graph cannot be written in the opset that was asked for",
            got=found_opset,
            expected=opset,
            remedy=f"--opset {found_opset}",
        )
    nodes = [n for part in parts_of(model) for n in part.node]
    random = [n for n in nodes if n.op_type in _RANDOM_OPS]
    if random:
        raise ExportError(
            f"{spec.name}: the graph draws random numbers",
            got=", ".join(f"{n.op_type} ({n.name})" for n in random[:4]),
            expected="images that are a function of their inputs",
            remedy="make the noise an input with the role 'noise', or a constant buffer",
        )
    used = {name for n in nodes for name in n.input} | {v.name for v in model.graph.output}
    for t in spec.inputs:
        if t.name not in used:
            raise ExportError(
                f"{spec.name}: the network does not use its input {t.name!r}",
                got=f"uses {', '.join(u.name for u in spec.inputs if u.name in used) or 'none'}",
                expected=", ".join(u.name for u in spec.inputs),
                remedy="take it out of the spec and of forward, or use it",
            )
    for side, values, tensors in (
        ("input", model.graph.input, spec.inputs),
        ("output", model.graph.output, spec.outputs),
    ):
        found = {v.name: v.type.tensor_type.shape.dim for v in values}
        for t in tensors:
            if t.name not in found:
                raise ExportError(
                    f"{spec.name}: the graph has no {side} {t.name!r}",
                    got=", ".join(found),
                    expected=", ".join(u.name for u in tensors),
                )
            dims = found[t.name]
            if not dims or not dims[0].dim_param:
                baked = dims[0].dim_value if dims else "a scalar"
                raise ExportError(
                    f"{spec.name}: the batch of {side} {t.name!r} is baked into the graph",
                    got=baked,
                    expected="a dynamic batch",
                    remedy="keep the batch out of groups, of reshapes with fixed sizes and of Python conditions",
                )
            for size, known in zip(dims[1:], t.shape, strict=False):
                if known is None and size.HasField("dim_value"):
                    raise ExportError(
                        f"{spec.name}: a height or width of {side} {t.name!r} is baked into the graph",
                        got=size.dim_value,
                        expected="a dynamic height and width",
                        remedy="keep them out of reshapes with fixed sizes and of Python conditions",
                    )


def parts_of(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, the graphs inside its nodes (branches and loop bodies), and the model's functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield part
        for attribute in (a for n in part.node for a in n.attribute):
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs


def strip_traces(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes on nodes and values: stack traces with paths of the machine it ran on."""
    for part in (model, *parts_of(model)):
        _clear_notes(part)
        for field in ("node", "initializer", "value_info"):
            for item in getattr(part, field, ()):
                _clear_notes(item)
        for field in ("input", "output"):
            for item in getattr(part, field, ()):
                if not isinstance(item, str):  # a function names its inputs only
                    _clear_notes(item)


def _clear_notes(item: Any) -> None:
    item.doc_string = ""
    del item.metadata_props[:]
