"""PyTorch with what its documentation advises: channels-last memory, bfloat16 autocast, `torch.compile`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ganexport.benchmark.contender import EagerPyTorch
from ganexport.parity import FLOORS
from ganexport.probes import probe_inputs
from ganruntime.errors import BackendError
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from torch import nn


class ChannelsLast(EagerPyTorch):
    """Weights and images in NHWC order in memory, on a copy of the network."""

    name = "channels_last"
    label = "PyTorch, channels-last"
    is_reference = False
    includes = (
        "latents in host memory -> float outputs in host memory, in channels-last order as they come: module(z) of a "
        "copy in torch.channels_last, under inference_mode"
    )

    def _prepared(self, module: nn.Module) -> Any:
        copied: Any = copy.deepcopy(module)
        return copied.to(memory_format=self._torch.channels_last)

    def _input(self, tensor: Any) -> Any:
        return tensor.contiguous(memory_format=self._torch.channels_last) if tensor.dim() == 4 else tensor


class Bfloat16Autocast(EagerPyTorch):
    """`torch.autocast` in bfloat16: what the list of its operators says runs in that type."""

    name = "bf16_autocast"
    label = "PyTorch, bf16 autocast"
    precision = "bf16"
    floors = FLOORS["bf16"]
    is_reference = False
    includes = (
        "latents in host memory -> float32 outputs in host memory: module(z) under torch.autocast(bfloat16) and "
        "inference_mode"
    )

    def _mode(self) -> contextlib.AbstractContextManager[Any]:
        mode: contextlib.AbstractContextManager[Any] = self._torch.autocast(
            self._device.type, dtype=self._torch.bfloat16
        )
        return mode

    def _output(self, tensor: Any) -> Any:
        return tensor.float()  # NumPy has no bfloat16


class Compiled(EagerPyTorch):
    """`torch.compile` with its own defaults, a graph for each batch size. Compiling is not part of a time."""

    name = "torch_compile"
    label = "torch.compile"
    is_reference = False
    includes = (
        "latents in host memory -> float outputs in host memory: torch.compile(module, dynamic=False)(z) under "
        "inference_mode; compiling is not counted"
    )

    def __init__(
        self, module: nn.Module, spec: GeneratorSpec, device: str, threads: int, batches: Sequence[int]
    ) -> None:
        """Compiles for the first batch size, to know whether it can.

        Raises:
            BackendError: it cannot; most often there is no C++ compiler.
        """
        self._restore = contextlib.ExitStack()
        super().__init__(module, spec, device, threads)
        try:
            self.run(probe_inputs(spec, 0, 0, batches[0]))
        except Exception as error:
            self.close()
            raise BackendError(
                "torch.compile does not work here",
                got=_cause(error),
                remedy="install a C++ compiler that is found as g++ or by CXX",
            ) from error

    def _prepared(self, module: nn.Module) -> Any:
        torch = self._torch
        # Past this many batch sizes it would go back to eager mode without a word.
        limits = {"recompile_limit": 256, "fail_on_recompile_limit_hit": True}
        self._restore.enter_context(torch._dynamo.config.patch(limits))
        import torch._inductor.config as inductor

        # A pool of processes would live on beside the measurement.
        self._restore.enter_context(inductor.patch(compile_threads=1))
        return torch.compile(copy.deepcopy(module), dynamic=False)

    def close(self) -> None:
        self._restore.close()
        super().close()


def _cause(error: BaseException) -> str:
    """The line of a compiler's long message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
