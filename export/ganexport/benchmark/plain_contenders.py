"""Backends called by hand: a bare loop over a bundle's graph, as their own documentation shows it."""

from __future__ import annotations

from typing import Any

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.parity import floors_of
from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import BackendError, DeviceError
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.onnxruntime import import_onnxruntime
from ganruntime.sessions.openvino import import_openvino, new_core


class PlainBackend(Contender):
    """What the two have in common: a variant, and the names that follow from it."""

    family = "plain"

    def __init__(self, variant: Variant, is_default: bool) -> None:
        """`is_default`: whether it goes by its plain name; otherwise the variant is part of it."""
        if not is_default:
            self.name = f"{self.name}:{variant.name}"
            self.label = f"{self.label}, {variant.name}"
        self.precision = variant.precision
        self.floors = floors_of(variant)
        self.gives_pixels = variant.output == "uint8"
        if self.gives_pixels:
            self.includes = self.includes.replace("float outputs", "uint8 images [N, H, W, C]")


class PlainOnnxRuntime(PlainBackend):
    """A bare `InferenceSession.run` over the bundle's own graph."""

    name = "onnxruntime"
    label = "plain ONNX Runtime"
    includes = "latents in host memory -> float outputs in host memory: InferenceSession.run"

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        device: str,
        threads: int,
        *,
        is_default: bool = True,
        graph: bytes | None = None,
    ) -> None:
        """graph: what is run in place of the variant's own."""
        super().__init__(variant, is_default)
        ort = import_onnxruntime()
        kind, index = parse_device(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            providers = [("CUDAExecutionProvider", {"device_id": str(index), "use_tf32": "0"})]
        self._session = ort.InferenceSession(graph or bundle.graph(variant), options, providers=providers)
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
        self._setting += f", variant {variant.name}"

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def setting(self) -> str:
        return self._setting


class PlainOpenVino(PlainBackend):
    """A bare compiled model over the bundle's own graph, one request on all threads. What is not quantised runs in
    float32: OpenVINO would take bfloat16 for it wherever the CPU has that."""

    name = "openvino"
    label = "plain OpenVINO"
    includes = "latents in host memory -> float outputs in host memory: a call of the compiled model"

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        device: str,
        threads: int,
        *,
        is_default: bool = True,
        graph: bytes | None = None,
        hint: str = "f32",
    ) -> None:
        """graph: what is run in place of the variant's own. hint: the precision that OpenVINO is told will do."""
        super().__init__(variant, is_default)
        ov = import_openvino()
        if parse_device(device)[0] != "cpu":
            raise DeviceError("OpenVINO runs on the CPU here", got=device, expected="cpu", remedy="--device cpu")
        core = new_core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint,
        }
        try:
            self._compiled = core.compile_model(core.read_model(graph or bundle.graph(variant)), "CPU", settings)
        except RuntimeError as error:  # what all of OpenVINO's errors are
            raise BackendError(
                f"OpenVINO refuses variant {variant.name}", got=str(error).strip().splitlines()[-1][:300]
            ) from error
        self._outputs = [t.name for t in bundle.spec.outputs]
        self._setting = (
            f"openvino {str(ov.__version__).partition('-')[0]} on {device}, {threads} thread(s), variant {variant.name}"
        )

    def run(self, inputs: Arrays) -> Arrays:
        results = self._compiled(inputs)
        return {name: results[name] for name in self._outputs}

    def setting(self) -> str:
        return self._setting
