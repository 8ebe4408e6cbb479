"""Every generator through the exporter: constant weights, any batch, nothing random, and PyTorch's own values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.probes import probe_inputs
from gantrain.checkpoint import spec_from_generator
from gantrain.networks import NETWORKS, NetworkRecord, network_from_record

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["cat", "dog", "owl"]
SMALL = {"z_size": 5, "size": 8, "channels": 2, "width": 2, "max_width": 6}
BATCHES = (1, 2, 3, 7, 257)
GENERATORS = {
    "vector_generator": {"z_size": 6, "signs": 4, "widths": [7, 6], "frequencies": 3, "skip": 2.0, "scale": 3.0},
    "dcgan_generator": {**SMALL, "size": 16, "classes": CLASSES},
    "resnet_generator": {**SMALL, "classes": CLASSES},
    "r3gan_generator": {**SMALL, "cardinality": 2, "classes": CLASSES},
    # Of two planes both may be nearly 0, and pixel normalisation makes much of what rounding left of them.
    "progan_generator": {**SMALL, "width": 4, "max_width": 8, "classes": CLASSES},
    "stylegan2_generator": {**SMALL, "w_size": 7, "classes": CLASSES},
}


def lively(record: NetworkRecord, seed: int) -> nn.Module:
    """Random weights throughout: nothing is left at the 0 or the 1 where a graph could lose it unnoticed."""
    torch.manual_seed(seed)
    network = network_from_record(record)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.2 * torch.randn_like(tensor))
        for name, tensor in network.named_buffers():
            if name.endswith(("running_mean", "w_avg")):
                tensor.normal_(0.0, 0.3)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
    return network.eval()


def test_every_generator_is_exported_here() -> None:
    assert set(GENERATORS) | {"mlp_generator"} == {n for n in NETWORKS if n.endswith("_generator")}


@pytest.mark.parametrize("name", GENERATORS)
def test_graph_equals_the_network_at_every_batch(name: str) -> None:
    network = lively(NetworkRecord(name, GENERATORS[name]), seed=1)
    spec = spec_from_generator(network, name.replace("_", "-"))
    module = inference_copy(network, spec)
    model = onnx_from_generator(module, spec)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        inputs = probe_inputs(spec, 7, 100 * batch, batch)
        expected = eager_outputs(module, spec, inputs)
        given = session.run([t.name for t in spec.outputs], inputs)
        for tensor, values in zip(spec.outputs, given, strict=True):
            reference = expected[tensor.name]
            assert reference.std() > 0.02, "the network draws nothing that could differ"
            # float32 sums in another order, through some ten layers
            np.testing.assert_allclose(values, reference, rtol=0, atol=5e-5 * np.abs(reference).max())
    _require_constant_weights(onnx.load_from_string(model))


def _require_constant_weights(model: onnx.ModelProto) -> None:
    """Equalised rates and demodulation's sums of squares leave nothing to compute on constants alone."""
    constants = {i.name for i in model.graph.initializer}
    left = [n.op_type for n in model.graph.node if n.input and all(i in constants for i in n.input if i)]
    assert left == [], left
    assert not [n.op_type for n in model.graph.node if n.op_type.startswith("Random")]
