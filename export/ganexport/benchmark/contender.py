"""Contenders: ways to make outputs of latents, each as a user would write it, on the same device and threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import DeviceError, MissingDependencyError
from ganruntime.generator import Generator, load
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.onnxruntime import import_onnxruntime
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[np.generic]]


class Contender(ABC):
    """One way to run the generator.

    Attributes:
        name: its key in JSON.
        label: its name in tables and plots.
        includes: what a time of it is the time of.
        is_reference: whether ratios may be taken to it; the fastest such contender is the one.
        gives_pixels: whether it gives uint8 images [N, H, W, C], and not outputs in their own range.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    includes: ClassVar[str]
    is_reference: ClassVar[bool] = False
    gives_pixels: ClassVar[bool] = False

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
        self._module = module.eval().to(self._device)
        self._inputs = [t.name for t in spec.inputs]
        self._outputs = [t.name for t in spec.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        torch = self._torch
        if torch.get_num_threads() != self._threads:  # a setting of the process, and there may be two of us
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            result = self._module(*(torch.from_numpy(inputs[name]).to(self._device) for name in self._inputs))
        results = result if isinstance(result, (tuple, list)) else (result,)
        # .cpu() waits for the device: a time without it would be that of the launch.
        return {name: tensor.cpu().numpy() for name, tensor in zip(self._outputs, results, strict=True)}

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


class PlainOnnxRuntime(Contender):
    """A bare `InferenceSession.run` over the bundle's own graph."""

    name = "onnxruntime"
    label = "plain ONNX Runtime"
    includes = "latents in host memory -> float outputs in host memory: InferenceSession.run"

    def __init__(self, bundle: Bundle, variant: Variant, device: str, threads: int) -> None:
        ort = import_onnxruntime()
        kind, index = parse_device(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            providers = [("CUDAExecutionProvider", {"device_id": str(index), "use_tf32": "0"})]
        self._session = ort.InferenceSession(bundle.graph(variant), options, providers=providers)
        if kind == "cuda" and self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise DeviceError(
                f"this ONNX Runtime does not run on {device}",
                got=", ".join(self._session.get_providers()),
                expected="CUDAExecutionProvider",
                remedy='pip uninstall onnxruntime; pip install "ganexport[gpu]", or --device cpu',
            )
        self._outputs = [t.name for t in bundle.spec.outputs]
        self._setting = f"onnxruntime {ort.__version__} on {device}" + (
            f", {threads} thread(s)" if kind == "cpu" else ", TF32 off"
        )

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def setting(self) -> str:
        return self._setting


class Runtime(Contender):
    """Ours, as an embedding program calls it: `Generator.outputs`, checks and batch buckets included."""

    name = "ganruntime"
    label = "ganruntime"
    includes = "latents in host memory -> float outputs in host memory: Generator.outputs, with its checks and buckets"

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def run(self, inputs: Arrays) -> Arrays:
        return self._generator.outputs(inputs)

    def setting(self) -> str:
        about = self._generator.describe()
        versions = " ".join(f"{name} {version}" for name, version in about["versions"].items())
        threads = f", {about['threads']} thread(s)" if "threads" in about else ""
        return f"{versions} on {about['device']}{threads}, variant {about['variant']}, buckets {about['buckets']}"


class RuntimeImages(Runtime):
    """Ours to the end: pixels of latents."""

    name = "ganruntime_uint8"
    label = "ganruntime, to uint8"
    includes = "latents in host memory -> uint8 images [N, H, W, C] in host memory: Generator(latents)"
    gives_pixels = True

    def run(self, inputs: Arrays) -> Arrays:
        spec = self._generator.spec
        assert spec.latent is not None
        assert spec.image is not None
        others: dict[str, Any] = {name: array for name, array in inputs.items() if name != spec.latent.name}
        return {spec.image.name: self._generator(inputs[spec.latent.name], **others)}


def contenders_for(
    bundle: Bundle, variant: Variant, module: nn.Module, *, device: str, threads: int, batches: Sequence[int]
) -> list[Contender]:
    """Everybody, eager PyTorch first; on several threads of a CPU it comes with one thread as well.

    The runtime gets the measured batch sizes as buckets beside its usual ones, as a server that knows its batches would
    load it; any other batch would be padded or cut.

    Raises:
        MissingDependencyError, DeviceError, BackendError: a contender cannot run here; there are no times without it.
    """
    buckets = sorted({*DEFAULT_BUCKETS, *batches})
    made: list[Contender] = []
    try:
        made.append(EagerPyTorch(module, bundle.spec, device, threads))
        if device == "cpu" and threads > 1:
            made.append(EagerPyTorchOneThread(module, bundle.spec, device))
        made.append(PlainOnnxRuntime(bundle, variant, device, threads))
        generator = load(bundle, device, "onnxruntime", variant.name, buckets=buckets, threads=threads)
    except BaseException:
        close_all(made)
        raise
    made.append(Runtime(generator))
    if bundle.spec.latent is not None and bundle.spec.image is not None:
        made.append(RuntimeImages(generator))
    return made


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
