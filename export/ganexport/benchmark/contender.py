"""Contenders: ways to make outputs of latents, each as a user would write it, on the same device and threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganexport.parity import Floors
from ganruntime.errors import DeviceError, MissingDependencyError
from ganruntime.sessions.devices import parse_device
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[np.generic]]
# Who stands behind a contender: PyTorch, a backend called by hand, or this project.
FAMILIES = ("pytorch", "plain", "ours")


class Contender(ABC):
    """One way to run the generator.

    Attributes:
        name: its key in JSON, and what `--contender` calls it.
        label: its name in tables and plots.
        includes: what a time of it is the time of.
        family: one of `FAMILIES`.
        precision: of its products.
        floors: what its outputs have to keep of the reference's; None where the bound of its precision holds.
        is_reference: whether ratios may be taken to it; the fastest such contender is the one.
        gives_pixels: whether it gives uint8 images [N, H, W, C], and not outputs in their own range.
    """

    name: str
    label: str
    includes: str
    family: str = "plain"
    precision: str = "fp32"
    floors: Floors | None = None
    is_reference: bool = False
    gives_pixels: bool = False

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """{input: [b, *shape]} in host memory to {output: [b, *shape]} in host memory."""

    @abstractmethod
    def setting(self) -> str:
        """What it runs with: versions, threads, batch sizes."""

    def close(self) -> None:  # noqa: B027 — most hold nothing
        """Frees what it holds."""


class EagerPyTorch(Contender):
    """The network as its authors wrote it: eval mode, `inference_mode`, one call a batch. Closing restores threads."""

    name = "eager"
    label = "eager PyTorch"
    family = "pytorch"
    is_reference = True
    includes = "latents in host memory -> float outputs in host memory: module(z) in eval mode under inference_mode"

    def __init__(self, module: nn.Module, spec: GeneratorSpec, device: str, threads: int) -> None:
        torch = import_torch()
        kind, index = parse_device(device)
        if kind == "cuda":
            if not torch.cuda.is_available() or index >= torch.cuda.device_count():
                raise DeviceError(
                    f"this PyTorch does not run on {device}",
                    got=f"torch {torch.__version__}, {torch.cuda.device_count()} GPU(s)",
                    remedy="install a CUDA build of torch, or --device cpu",
                )
            # Like with like: the others run fp32 as fp32, and PyTorch takes TF32 in convolutions by default.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self._torch = torch
        self._device = torch.device(kind, index) if kind == "cuda" else torch.device("cpu")
        self._threads_before = torch.get_num_threads()
        self._threads = threads
        self._inputs = [t.name for t in spec.inputs]
        self._outputs = [t.name for t in spec.outputs]
        self._module: Any = self._prepared(module.eval()).to(self._device)

    def _prepared(self, module: nn.Module) -> Any:
        """The module in this contender's form; a copy, unless nothing is changed."""
        return module

    def _input(self, tensor: Any) -> Any:
        return tensor

    def _output(self, tensor: Any) -> Any:
        return tensor

    def _mode(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def run(self, inputs: Arrays) -> Arrays:
        torch = self._torch
        if torch.get_num_threads() != self._threads:  # a setting of the process, and there may be two of us
            torch.set_num_threads(self._threads)
        with torch.inference_mode(), self._mode():
            given = (self._input(torch.from_numpy(inputs[name])).to(self._device) for name in self._inputs)
            result = self._module(*given)
        results = result if isinstance(result, (tuple, list)) else (result,)
        # .cpu() waits for the device: a time without it would be that of the launch.
        return {name: self._output(tensor).cpu().numpy() for name, tensor in zip(self._outputs, results, strict=True)}

    def setting(self) -> str:
        threads = f", {self._threads} thread(s)" if self._device.type == "cpu" else ", TF32 off"
        return f"torch {self._torch.__version__} on {self._device}{threads}"

    def close(self) -> None:
        self._torch.set_num_threads(self._threads_before)


class EagerPyTorchOneThread(EagerPyTorch):
    """The same with one thread. PyTorch's threads wait for each other by spinning, and where the cores are not all free
    one thread can be a hundred times faster than two: a ratio to the slower would flatter everybody else."""

    name = "eager_1_thread"
    label = "eager PyTorch, 1 thread"

    def __init__(self, module: nn.Module, spec: GeneratorSpec, device: str) -> None:
        super().__init__(module, spec, device, 1)


def close_all(contenders: Sequence[Contender]) -> None:
    """In the opposite order, so that each puts back what it found."""
    for contender in reversed(contenders):
        contender.close()


def import_torch() -> Any:
    """The module. Raises `MissingDependencyError` naming the extra."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "eager PyTorch is what is measured against, and torch is not installed",
            got=str(error),
            remedy='pip install "ganexport[export]"',
        ) from error
    return torch
