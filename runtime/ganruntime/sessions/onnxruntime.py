"""ONNX Runtime on the CPU or on CUDA. What was asked for is what runs, or there is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Variant
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, DeviceError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.onnxruntime_cuda import DeviceRunner
from ganruntime.sessions.onnxruntime_library import (
    CPU,
    CUDA,
    best_device,
    first_line,
    import_onnxruntime,
    preload_cuda,
)
from ganruntime.sessions.owner_thread import OwnerThread
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxRuntimeSession", "best_device", "import_onnxruntime", "parse_device"]

Provider = tuple[str, Mapping[str, str]]
_PROVIDERS = {"cpu": CPU, "cuda": CUDA}
CAPTURE_REFUSED = "graph capture"  # what ONNX Runtime's refusals of a CUDA graph have in common


class OnnxRuntimeSession(Session):
    """One `onnxruntime.InferenceSession`.

    On the CPU its outputs are bound to the caller's arrays. On CUDA every batch size has its own device memory, and is
    one CUDA graph where ONNX Runtime can capture the network (`ganruntime.sessions.onnxruntime_cuda`); everything is
    called from one thread.

    Attributes:
        cuda_graphs: on CUDA, `used`, or why not.
    """

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
        self._where = where or variant.file
        ort = import_onnxruntime()
        kind, self._index = parse_device(device)
        self._require_provider(ort, kind)
        super().__init__(spec, variant, "cpu" if kind == "cpu" else f"cuda:{self._index}", buckets)
        self.threads = threads or usable_cores()
        self.cuda_graphs = ""
        self._version = ort.__version__
        self._session: onnxruntime.InferenceSession | None = None
        self._owner: OwnerThread | None = None
        self._runner: DeviceRunner | None = None
        self._run_options: onnxruntime.RunOptions | None = None
        if kind == "cpu":
            self._run_options = _cpu_run_options(ort)
            self._session = self._opened(ort, graph, [(CPU, {})])
            return
        self._owner = OwnerThread("onnxruntime-cuda")
        try:
            self._owner.call(lambda: self._open_on_gpu(ort, graph))
        except BaseException:
            self.close()
            raise

    def _require_provider(self, ort: Any, kind: str) -> None:
        if _PROVIDERS[kind] not in ort.get_available_providers():
            raise DeviceError(
                f"this onnxruntime does not run on {kind}",
                got=", ".join(ort.get_available_providers()),
                expected=_PROVIDERS[kind],
                remedy='pip uninstall onnxruntime; pip install "ganexport[gpu]"' if kind == "cuda" else None,
            )

    def _open_on_gpu(self, ort: Any, graph: bytes) -> None:
        preload_cuda(ort)
        fixed = all(None not in t.shape for t in (*self.spec.inputs, *self.spec.outputs))
        self.cuda_graphs = "used" if fixed else "height and width vary"
        if fixed:
            try:
                self._session = self._opened(ort, graph, [(CUDA, self._cuda_options(graphs=True))])
            except DeviceError as error:
                if CAPTURE_REFUSED not in str(error.got):
                    raise
                # A network with control flow, for one. It runs all the same, and `describe` says how.
                self.cuda_graphs = f"ONNX Runtime refuses: {error.got}"
        if self._session is None:
            self._session = self._opened(ort, graph, [(CUDA, self._cuda_options(graphs=False))])
        self._runner = DeviceRunner(self._session, self._index, graphs=self.cuda_graphs == "used")

    def _cuda_options(self, *, graphs: bool) -> dict[str, str]:
        return {
            "device_id": str(self._index),
            # An fp32 graph is run in fp32: TF32 is a rung of its own, and ONNX Runtime would take it by default.
            "use_tf32": "1" if self.variant.precision == "tf32" else "0",
            "enable_cuda_graph": "1" if graphs else "0",
            # By default convolutions are timed at load, and the fastest is another one from load to load: other bits.
            "cudnn_conv_algo_search": "HEURISTIC",
            # By default the arena doubles; what buckets need is known after the warm-up (microsoft/onnxruntime#11118).
            "arena_extend_strategy": "kSameAsRequested",
        }

    def _opened(self, ort: Any, graph: bytes, providers: list[Provider]) -> onnxruntime.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is an error is raised
        first = providers[0][0]
        if first != CPU:
            # Without it a provider that fails to start leaves the whole graph on the CPU, without a word
            # (microsoft/onnxruntime#23372).
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = ort.InferenceSession(graph, options, providers=[(name, dict(of)) for name, of in providers])
        except Exception as error:  # ONNX Runtime's own exceptions share no base below Exception
            if first != CPU:
                raise DeviceError(
                    f"{self._where} does not run on {self.device}",
                    got=first_line(error),
                    remedy="--device cpu runs it on the CPU",
                ) from error
            raise BackendError(f"ONNX Runtime refuses {self._where}", got=first_line(error)) from error
        if session.get_providers()[0] != first:
            raise DeviceError(
                f"{self._where} does not run on {self.device}",
                got=", ".join(session.get_providers()),
                expected=first,
                remedy="check the driver, CUDA and cuDNN, or ask for the CPU with --device cpu",
            )
        self._require_names(session)
        return session

    def _require_names(self, session: onnxruntime.InferenceSession) -> None:
        for side, tensors, nodes in (
            ("inputs", self.spec.inputs, session.get_inputs()),
            ("outputs", self.spec.outputs, session.get_outputs()),
        ):
            expected, got = {t.name for t in tensors}, {n.name for n in nodes}
            if expected - got or (side == "inputs" and got - expected):
                raise BackendError(
                    f"{self._where} has other {side} than its spec",
                    got=", ".join(sorted(got)) or "none",
                    expected=", ".join(sorted(expected)),
                )

    def run(self, inputs: Arrays, out: Arrays) -> None:
        if self._session is None:
            raise BackendError("the session is closed")
        try:
            if self._owner is None:
                self._session.run_with_iobinding(self._bound(self._session, inputs, out), self._run_options)
            else:
                self._run_on_gpu(self._owner, inputs, out)
        except BackendError:
            raise
        except Exception as error:
            raise self._failure(error) from error

    def prepared(self, inputs: Arrays, out: Arrays) -> Callable[[], None]:
        if self._session is None or self._owner is not None:
            return super().prepared(inputs, out)
        binding = self._bound(self._session, inputs, out)

        options = self._run_options

        def run(arrays: tuple[Arrays, Arrays] = (inputs, out)) -> None:  # a binding keeps addresses, and not arrays
            if self._session is None:
                raise BackendError("the session is closed")
            try:
                self._session.run_with_iobinding(binding, options)
            except Exception as error:
                raise self._failure(error) from error

        return run

    def _failure(self, error: Exception) -> BackendError:
        return BackendError(f"ONNX Runtime failed on {self.device}", got=first_line(error))

    def _bound(self, session: onnxruntime.InferenceSession, inputs: Arrays, out: Arrays) -> onnxruntime.IOBinding:
        """On the CPU: the caller's memory, bound. ONNX Runtime reads and writes there, and no copy follows."""
        binding = session.io_binding()
        for tensor in self.spec.inputs:
            array = inputs[tensor.name]
            binding.bind_input(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for tensor in self.spec.outputs:
            array = out[tensor.name]
            binding.bind_output(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def _run_on_gpu(self, owner: OwnerThread, inputs: Arrays, out: Arrays) -> None:
        given = {t.name: inputs[t.name] for t in self.spec.inputs}
        wanted = {t.name: out[t.name] for t in self.spec.outputs}
        runner = self._runner_for(len(next(iter(given.values()))))
        for name, array in owner.call(lambda: runner.run(given, wanted)).items():
            # In this thread: one that is interrupted while it waits leaves nobody who writes to its caller's memory.
            np.copyto(out[name], array)

    def _runner_for(self, batch: int) -> DeviceRunner:
        assert self._runner is not None
        return self._runner

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": self._version, "numpy": np.__version__}

    def describe(self) -> dict[str, Any]:
        return super().describe() | (
            {"threads": self.threads} if self.device == "cpu" else {"cuda_graphs": self.cuda_graphs}
        )

    def close(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            # Its buffers and graphs are freed where they were made.
            owner.call(self._free_on_gpu)
            owner.close()
        self._session = None

    def _free_on_gpu(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()
        self._session = None


def _cpu_run_options(ort: Any) -> onnxruntime.RunOptions:
    """Made once: every run without options makes its own."""
    options = ort.RunOptions()
    # It is for GPUs; but onnxruntime 1.31 looks for it, and where it is missing catches its library's exception: 30 µs.
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options
