"""A graph with every intermediate value as an output: what ranges, calibration and the search for a fault look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, InputError
from ganruntime.sessions.onnxruntime import import_onnxruntime

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
_MOST_BYTES = 256 << 20  # of intermediate values in memory at once


class TracedGraph:
    """Runs an ONNX file on the CPU as it is written, without any of ONNX Runtime's rewrites.

    Attributes:
        values: names of the values that `run` gives, in the order of the graph; neither constants nor inputs.
    """

    def __init__(self, graph: bytes, values: Sequence[str] | None = None) -> None:
        """Opens a graph.

        Args:
            values: what to look at; every value by default, the graph's own outputs included.

        Raises:
            InputError: a value is not one of the graph's.
            BackendError: ONNX Runtime refuses the graph.
        """
        model = onnx.load_model_from_string(graph)
        made = [name for node in model.graph.node for name in node.output if name]
        wanted = set(made if values is None else values)
        if wanted - set(made):
            raise InputError("the graph makes no such value", got=", ".join(sorted(wanted - set(made))[:5]))
        self.values = [name for name in made if name in wanted]
        self.inputs = [value.name for value in model.graph.input]
        del model.graph.output[:]
        # Without types: ONNX Runtime infers them, and Q/DQ and casts change them.
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.values)
        self._session = plain_session(model.SerializeToString())

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """{value: [n, …]} for {input: [n, *shape]}."""
        if not self.values:
            return {}
        results = self._session.run(self.values, {name: inputs[name] for name in self.inputs})
        return dict(zip(self.values, results, strict=True))

    def stream(self, inputs: Arrays, look: Callable[[dict[str, Array]], None]) -> None:
        """Calls `look` with the values of a few rows at a time, so that they fit the memory, until all rows ran."""
        count = len(next(iter(inputs.values())))
        first = self.run({name: array[:1] for name, array in inputs.items()})
        row_bytes = sum(array.nbytes for array in first.values())
        rows = max(1, min(64, _MOST_BYTES // max(row_bytes, 1)))
        for start in range(0, count, rows):
            look(self.run({name: array[start : start + rows] for name, array in inputs.items()}))


def plain_session(graph: bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU that runs the nodes as they are written.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: ONNX Runtime refuses the graph.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = usable_cores()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base below Exception
        raise BackendError("ONNX Runtime refuses the graph", got=str(error).strip().splitlines()[0][:400]) from error
