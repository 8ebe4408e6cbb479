"""The graph whose images leave it as pixels, made of the float graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import onnx_ir as ir

from ganexport.passes.pipeline import count_nodes
from ganexport.passes.uint8_head import add_uint8_head
from ganruntime.spec import GeneratorSpec


def pixel_graph_from_float(graph: bytes, spec: GeneratorSpec) -> tuple[bytes, dict[str, Any]] | None:
    """The same graph with pixels for images, and the report of the pass; None where it gives no image in float32.

    Equal graphs give equal bytes.
    """
    source = onnx.load_model_from_string(graph)
    model = ir.from_proto(source)
    nodes = count_nodes(model)
    report = replace(add_uint8_head(model, spec), nodes_before=nodes, nodes_after=count_nodes(model))
    if not report.changed:
        return None
    made = ir.to_proto(model)
    # As the float graph has it: sorted, and whole.
    del made.metadata_props[:]
    made.metadata_props.extend(source.metadata_props)
    return made.SerializeToString(deterministic=True), report.to_json()
