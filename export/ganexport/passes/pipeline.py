"""The passes in order, and the proof of each: the graph before and after it, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.activation_first import activation_first
from ganexport.passes.dense_layout import dense_to_channels_last
from ganexport.passes.fold_affine import fold_affine
from ganexport.passes.fold_batchnorm import fold_batchnorm
from ganexport.passes.fold_constants import fold_constants
from ganexport.passes.fuse_clamp import fuse_clamp
from ganexport.passes.inline_functions import inline_functions
from ganexport.passes.latent_gemm import convtranspose_to_gemm
from ganexport.passes.narrow_subpixel import bf16_convtranspose_to_subpixel, narrow_convtranspose_to_subpixel
from ganexport.passes.prune import prune
from ganexport.passes.report import PassReport
from ganexport.passes.share_common import share_common
from ganexport.passes.simplify import simplify
from ganexport.passes.subpixel import convtranspose_to_subpixel
from ganexport.passes.winograd import conv_to_winograd
from ganruntime.errors import ExportError, InputError
from ganruntime.sessions.onnxruntime import import_onnxruntime

Arrays = Mapping[str, NDArray[np.generic]]

PASSES: dict[str, Callable[[ir.Model], PassReport]] = {
    "inline_functions": inline_functions,
    "fold_constants": fold_constants,
    "simplify": simplify,
    "prune": prune,
    "fold_batchnorm": fold_batchnorm,
    "fold_affine": fold_affine,
    "fuse_clamp": fuse_clamp,
    "convtranspose_to_gemm": convtranspose_to_gemm,
    "convtranspose_to_subpixel": convtranspose_to_subpixel,
    "narrow_convtranspose_to_subpixel": narrow_convtranspose_to_subpixel,
    "bf16_convtranspose_to_subpixel": bf16_convtranspose_to_subpixel,
    "activation_first": activation_first,
    "dense_to_channels_last": dense_to_channels_last,
    "conv_to_winograd": conv_to_winograd,
    "share_common": share_common,
}
# What pays everywhere, in an order in which each finds what the one before it made room for. The sub-pixel form pays
# on some backends only (benchmarks/README.md has the figures).
DEFAULT_PASSES = (
    "inline_functions",
    "fold_constants",
    "simplify",
    "prune",
    "fold_batchnorm",
    "fold_affine",
    "fuse_clamp",
    "convtranspose_to_gemm",
    "share_common",
    "prune",
)
# What pays with OpenVINO, and may cost elsewhere: the rung fp32-cpu has it.
CPU_PASSES = (
    "narrow_convtranspose_to_subpixel",
    "conv_to_winograd",
    "dense_to_channels_last",
    "activation_first",
)
# On a GPU ONNX Runtime's ConvTranspose adds in another order each time; convolutions do not (onnxruntime 1.31, H100).
CUDA_PASSES = ("convtranspose_to_subpixel",)
BF16_PASSES = ("bf16_convtranspose_to_subpixel", "activation_first")  # the same, for products in bfloat16
# A pass may change the order of float32 sums, and nothing else; as a share of the largest output.
BOUND = 1e-5


def run_passes(
    model: ir.Model, probes: Arrays | Sequence[Arrays], passes: Sequence[str] = DEFAULT_PASSES
) -> list[PassReport]:
    """Runs passes over a model, in place, and proves each one that changed something.

    Args:
        probes: {input name: [n, *shape]}, what the graph is run on before and after; or several of them, in the sizes
            that a graph takes whose height and width vary.
        passes: names from `PASSES`, in the order in which they run.

    Returns:
        A report per pass, with the largest change of any output.

    Raises:
        InputError: a name is not that of a pass.
        ExportError: a pass changed what the graph computes, or the graph does not run; names the pass.
    """
    require_known(passes)
    runs = [probes] if isinstance(probes, Mapping) else list(probes)
    before = _outputs(model, runs, "before any pass")
    reports = []
    for name in passes:
        nodes = count_nodes(model)
        report = replace(PASSES[name](model), nodes_before=nodes, nodes_after=count_nodes(model))
        if report.changed:
            after = _outputs(model, runs, f"after the pass {name}")
            # numpy's maximum, which keeps a NaN.
            change = float(np.max([_largest_change(b, a) for b, a in zip(before, after, strict=True)]))
            report = replace(report, max_abs_change=change)
            peak = max((float(np.abs(a).max()) for run in before for a in run.values() if a.size), default=1.0)
            if not change <= BOUND * max(peak, 1.0):
                raise ExportError(
                    f"the pass {name} changed what the graph computes",
                    got=f"a largest change of {change:.3g}; it did: {'; '.join(report.changed[:4])}",
                    expected=f"at most {BOUND * max(peak, 1.0):.1g}",
                    remedy="report it with the network; until then export with --without-pass " + name,
                )
            before = after
        reports.append(report)
    return reports


def require_known(passes: Sequence[str]) -> None:
    """Raises `InputError` with the passes that there are, where a name is not one of them."""
    for name in passes:
        if name not in PASSES:
            raise InputError(f"no pass is called {name!r}", expected=", ".join(PASSES))


def count_nodes(model: ir.Model) -> int:
    """Nodes of the graph, of the graphs inside of nodes, and of functions; constants are none."""
    nodes = [*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f.all_nodes())]
    return sum(node.op_type != "Constant" for node in nodes)


def _outputs(model: ir.Model, runs: Sequence[Arrays], when: str) -> list[dict[str, NDArray[np.generic]]]:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The runtime's own rewrites would hide what a pass did, or undo it.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    probes: Arrays = runs[0]
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        outputs = []
        for probes in runs:
            outputs.append(dict(zip(names, session.run(None, dict(probes)), strict=True)))
        return outputs
    except Exception as error:  # ONNX Runtime's own exceptions share no base below Exception
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in probes.items())
        raise ExportError(
            f"the graph does not run {when}",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0][:400],
            expected=f"a graph that takes {shapes}",
        ) from error


def _largest_change(before: Arrays, after: Arrays) -> float:
    """NaN where a value stopped being finite, or where names or shapes changed."""
    if before.keys() != after.keys() or any(before[k].shape != after[k].shape for k in before):
        return float("nan")
    gaps = [np.abs(before[k].astype(np.float64) - after[k].astype(np.float64)) for k in before]
    return max((float(g.max()) for g in gaps if g.size), default=0.0)
