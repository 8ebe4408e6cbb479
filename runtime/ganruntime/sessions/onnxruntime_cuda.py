"""How ONNX Runtime runs a batch on a GPU: buffers that stay where they are, and a CUDA graph for each of them.

A *lane* is one shape of a batch. It holds the device memory of its inputs and outputs, bound once, and page-locked
memory of the host beside it. The first run of a lane captures its kernels as a CUDA graph under an id of its own; from
then on a run is two copies and one launch. ONNX Runtime replays a graph with the addresses that it was captured with:
so nothing of a lane is ever bound anew, and its buffers live as long as the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.sessions.base import Arrays
from ganruntime.sessions.cuda_memory import CudaMemory, PinnedArray

if TYPE_CHECKING:
    import onnxruntime

Shapes = tuple[tuple[str, tuple[int, ...], str], ...]
_NO_GRAPH = "-1"  # ONNX Runtime's own number for a run that is not captured
_VARYING_LANES = 16  # where height and width vary: a service that sees every size holds no more of them


@dataclass
class _Buffer:
    """A tensor on the device, held by `value`, and its twin on the host."""

    value: Any
    pinned: PinnedArray


@dataclass
class _Lane:
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions
    inputs: dict[str, _Buffer]
    outputs: dict[str, _Buffer]


class DeviceRunner:
    """Runs batches of one `InferenceSession` on CUDA. Everything is called from the session's owner thread.

    graphs: whether the session was opened with CUDA graphs.
    """

    def __init__(self, session: onnxruntime.InferenceSession, index: int, *, graphs: bool) -> None:
        self._session, self._index, self._graphs = session, index, graphs
        self._memory = CudaMemory(index)
        self._lanes: dict[tuple[Shapes, Shapes], _Lane] = {}
        self._next_id = 1  # 0 is what a run without an id has, and would be captured as well

    def run(self, inputs: Arrays, out: Arrays) -> dict[str, NDArray[np.generic]]:
        """Runs one batch; what it gives is page-locked memory that the next batch of the same shape overwrites.

        Args:
            inputs: {name: array}, C-contiguous.
            out: {name: array}: their shapes and dtypes are those of the outputs; they are not written to.
        """
        lane = self._lane(inputs, out)
        for name, buffer in lane.inputs.items():
            np.copyto(buffer.pinned.array, inputs[name], casting="no")
            self._memory.copy_to_device(buffer.value.data_ptr(), buffer.pinned.array)
        # Returns when the GPU is done: ONNX Runtime synchronises, unless it is told not to.
        self._session.run_with_iobinding(lane.binding, lane.options)
        for buffer in lane.outputs.values():
            self._memory.copy_to_host(buffer.pinned.array, buffer.value.data_ptr())
        return {name: buffer.pinned.array for name, buffer in lane.outputs.items()}

    def close(self) -> None:
        """Frees every lane. Calling it twice is harmless."""
        for key in list(self._lanes):
            self._free(key)
        self._memory.close()

    def _lane(self, inputs: Arrays, out: Arrays) -> _Lane:
        key = (_shapes(inputs), _shapes(out))
        lane = self._lanes.get(key)
        if lane is None:
            if not self._graphs and len(self._lanes) >= _VARYING_LANES:
                self._free(next(iter(self._lanes)))
            lane = self._lanes[key] = self._new_lane(inputs, out)
        return lane

    def _new_lane(self, inputs: Arrays, out: Arrays) -> _Lane:
        import onnxruntime as ort

        lane = _Lane(self._session.io_binding(), ort.RunOptions(), {}, {})
        try:
            for name, array in inputs.items():
                lane.inputs[name] = self._buffer(array)
                lane.binding.bind_ortvalue_input(name, lane.inputs[name].value)
            for name, array in out.items():
                lane.outputs[name] = self._buffer(array)
                lane.binding.bind_ortvalue_output(name, lane.outputs[name].value)
        except BaseException:
            _free_pinned(lane)
            raise
        number = _NO_GRAPH
        if self._graphs:
            number, self._next_id = str(self._next_id), self._next_id + 1
        lane.options.add_run_config_entry("gpu_graph_id", number)
        return lane

    def _buffer(self, array: NDArray[np.generic]) -> _Buffer:
        import onnxruntime as ort

        value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, "cuda", self._index)
        return _Buffer(value, self._memory.pinned(array.shape, array.dtype))

    def _free(self, key: tuple[Shapes, Shapes]) -> None:
        _free_pinned(self._lanes.pop(key))


def _free_pinned(lane: _Lane) -> None:
    for buffer in (*lane.inputs.values(), *lane.outputs.values()):
        buffer.pinned.free()


def _shapes(arrays: Arrays) -> Shapes:
    return tuple((name, array.shape, array.dtype.str) for name, array in arrays.items())
