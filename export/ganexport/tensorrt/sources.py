"""Which of a bundle's graphs an engine is built from."""

from __future__ import annotations

from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import InputError


def source_variant(bundle: Bundle, precision: str) -> Variant:
    """The graph of a precision, with values for images: the variant of that name where there are several.

    Raises:
        InputError: the bundle has no graph of that precision; it says which it has.
    """
    # TensorRT takes uint8 at its ends only, behind a Cast; engines of graphs that give pixels are not built yet.
    graphs = [v for v in bundle.manifest.variants if v.format == "onnx" and v.output == "float"]
    fitting = [v for v in graphs if v.precision == precision]
    if not fitting:
        rung = "int8-symmetric" if precision == "int8" else precision
        raise InputError(
            f"{bundle.path} has no {precision} graph to build an engine from",
            got=", ".join(f"{v.name} ({v.precision})" for v in graphs) or "engines only",
            remedy="ganexport to-onnx CHECKPOINT -o NAME.gan makes one"
            if precision == "fp32"
            else f"ganexport precision {bundle.path} {rung} makes one",
        )
    # TensorRT takes no zero point but 0, so of two int8 graphs the symmetric one.
    names = {v.name: v for v in fitting}
    return names.get(f"{precision}-symmetric") or names.get(precision) or fitting[0]
