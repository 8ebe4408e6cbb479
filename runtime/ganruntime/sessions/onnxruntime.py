"""ONNX Runtime on the CPU or on CUDA. What was asked for is what runs, or there is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Variant
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, DeviceError, MissingDependencyError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sessions.devices import gpu_count, parse_device
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession(Session):
    """One `onnxruntime.InferenceSession`, its outputs bound to the caller's arrays."""

    backend: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        spec: GeneratorSpec,
        variant: Variant,
        graph: bytes,
        *,
        device: str = "cpu",
        buckets: tuple[int, ...] = DEFAULT_BUCKETS,
        threads: int | None = None,
        where: str = "",
    ) -> None:
        """Opens a graph.

        Args:
            graph: the ONNX file's bytes, checked by whoever read them (`Bundle.graph`).
            device: `cpu`, `cuda` or `cuda:N`.
            threads: compute threads on the CPU; by default as many as the process may use.
            where: what the graph is called in errors; the variant's file by default.

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            DeviceError: the device is not there, or part of the graph would not run on it.
            BackendError: ONNX Runtime refuses the graph.
        """
        where = where or variant.file
        ort = import_onnxruntime()
        kind, index = parse_device(device)
        provider = _PROVIDERS[kind]
        if provider not in ort.get_available_providers():
            raise DeviceError(
                f"this onnxruntime does not run on {kind}",
                got=", ".join(ort.get_available_providers()),
                expected=provider,
                remedy='pip uninstall onnxruntime; pip install "ganexport[gpu]"' if kind == "cuda" else None,
            )
        super().__init__(spec, variant, "cpu" if kind == "cpu" else f"cuda:{index}", buckets)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if kind == "cuda":
            # Without it a provider that fails to start leaves the whole graph on the CPU, without a word
            # (microsoft/onnxruntime#23372).
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # An fp32 graph is run in fp32: TF32 is a rung of its own, and ONNX Runtime would take it by default.
        tf32 = "1" if variant.precision == "tf32" else "0"
        provider_options = {"device_id": str(index), "use_tf32": tf32} if kind == "cuda" else {}
        try:
            self._session: onnxruntime.InferenceSession | None = ort.InferenceSession(
                graph, options, providers=[(provider, provider_options)]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base below Exception
            if kind == "cuda":
                raise DeviceError(
                    f"{where} does not run on {device}",
                    got=_first_line(error),
                    remedy="--device cpu runs it on the CPU",
                ) from error
            raise BackendError(f"ONNX Runtime refuses {where}", got=_first_line(error)) from error
        if self._session.get_providers()[0] != provider:
            raise DeviceError(
                f"{where} does not run on {device}",
                got=", ".join(self._session.get_providers()),
                expected=provider,
                remedy="check the driver, CUDA and cuDNN, or ask for the CPU with --device cpu",
            )
        self._require_names(where)
        self.threads = options.intra_op_num_threads
        self._version = ort.__version__

    def _require_names(self, where: str) -> None:
        assert self._session is not None
        for side, tensors, nodes in (
            ("inputs", self.spec.inputs, self._session.get_inputs()),
            ("outputs", self.spec.outputs, self._session.get_outputs()),
        ):
            expected, got = {t.name for t in tensors}, {n.name for n in nodes}
            if expected - got or (side == "inputs" and got - expected):
                raise BackendError(
                    f"{where} has other {side} than its spec",
                    got=", ".join(sorted(got)) or "none",
                    expected=", ".join(sorted(expected)),
                )

    def run(self, inputs: Arrays, out: Arrays) -> None:
        if self._session is None:
            raise BackendError("the session is closed")
        try:
            binding = self._session.io_binding()
            for tensor in self.spec.inputs:
                array = inputs[tensor.name]
                binding.bind_input(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for tensor in self.spec.outputs:
                array = out[tensor.name]
                # Bound to the caller's memory: ONNX Runtime writes there, and no copy follows.
                binding.bind_output(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {self.device}", got=_first_line(error)) from error

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": self._version, "numpy": np.__version__}

    def describe(self) -> dict[str, Any]:
        return super().describe() | ({"threads": self.threads} if self.device == "cpu" else {})

    def close(self) -> None:
        self._session = None


def import_onnxruntime() -> Any:
    """The module. Raises `MissingDependencyError` naming the extra."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the backend onnxruntime is not installed",
            got=str(error),
            remedy='pip install "ganexport[cpu]", or "ganexport[gpu]" with an NVIDIA GPU',
        ) from error
    return onnxruntime


def best_device() -> tuple[str, str]:
    """(device, why): CUDA where this onnxruntime has it and a GPU answers, else the CPU."""
    if _PROVIDERS["cuda"] not in import_onnxruntime().get_available_providers():
        return "cpu", "this onnxruntime is built for the CPU"
    count = gpu_count()
    return ("cuda:0", f"{count} GPU(s) answer") if count else ("cpu", "no GPU answers")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:400] if text else type(error).__name__
