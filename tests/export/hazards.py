"""How a hazard is tried: exported, optimised, and held against the network at batches that nobody traced."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.probes import probe_inputs
from ganruntime.spec import GeneratorSpec

BATCHES = (1, 2, 3, 7, 257)
# Two orders of the same float32 sums: 1e-6 of the peak in these small networks, and 1e-5 is the fp32 bound on the CPU.
BOUND = 1e-5


def exported(network: nn.Module, spec: GeneratorSpec) -> bytes:
    """The graph, after every output was held against the network's own at each batch."""
    twin = inference_copy(network, spec)
    graph = onnx_from_generator(twin, spec)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for seed, batch in enumerate(BATCHES):
        inputs = probe_inputs(spec, 4000 + seed, 0, batch)
        expected = eager_outputs(twin, spec, inputs)
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
        for tensor in spec.outputs:
            peak = float(np.abs(expected[tensor.name]).max())
            gap = float(np.abs(found[tensor.name] - expected[tensor.name]).max())
            assert found[tensor.name].shape == expected[tensor.name].shape
            assert gap <= BOUND * peak, f"{tensor.name} at batch {batch}: {gap:.3g} of a peak of {peak:.3g}"
            if batch > 1:
                spread = float(expected[tensor.name].std(axis=0).mean())
                assert spread > 1e-3 * peak  # an image that ignores its input proves nothing
    return graph


def operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]
