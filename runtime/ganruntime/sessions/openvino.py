"""OpenVINO on the CPU: every bucket compiled for its own shape, and cut into parts that run at once where asked.

What was asked for is what runs, or there is an error: no other device, no lower precision than the graph's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Variant
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, DeviceError, InputError, MissingDependencyError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.openvino_requests import run_at_once, run_in_this_thread
from ganruntime.sessions.signal_stack import signal_stack_kept
from ganruntime.spec import GeneratorSpec, TensorSpec

if TYPE_CHECKING:
    import openvino

# The type that a graph of a half precision is typed in: what OpenVINO calls it, and the CPU that computes in it.
_HALF = {"fp16": ("f16", "FP16"), "bf16": ("bf16", "BF16")}
_WHERE_IN_CPP = re.compile(r"(Exception from |Check '.*' failed at |FrontEnd API failed|Summary:|While validating )")


@dataclass(frozen=True)
class _Part:
    """Rows [start, start + rows) of a bucket, run by a request of its own."""

    start: int
    rows: int
    request: openvino.InferRequest


class OpenVinoSession(Session):
    """One compiled model for each shape, reading and writing the caller's arrays.

    With one stream a batch is one request on all threads: the shortest latency. With several it is cut into as many
    parts, which run at once on their share of the threads: often the highest throughput, for threads that work on
    images of their own do not wait for each other. The parts depend on the bucket alone, so that equal batches give
    equal bits.
    """

    backend: ClassVar[str] = "openvino"

    def __init__(
        self,
        spec: GeneratorSpec,
        variant: Variant,
        graph: bytes,
        *,
        device: str = "cpu",
        buckets: tuple[int, ...] = DEFAULT_BUCKETS,
        threads: int | None = None,
        streams: int = 1,
        where: str = "",
    ) -> None:
        """Compiles a graph for every bucket.

        Args:
            graph: the ONNX file's bytes, checked by whoever read them (`Bundle.graph`).
            device: `cpu`.
            threads: compute threads; by default as many as the process may use and OpenVINO counts cores.
            streams: parts of a batch that run at once, at most one a thread.
            where: what the graph is called in errors; the variant's file by default.

        Raises:
            MissingDependencyError: openvino is not installed.
            DeviceError: the device is not the CPU.
            InputError: more streams than threads, or more threads than OpenVINO finds cores for.
            BackendError: OpenVINO refuses the graph (an operator that it does not have is named), or would run it in
                another precision.
        """
        where = where or variant.file
        ov = import_openvino()
        kind, _ = parse_device(device)
        if kind != "cpu":
            raise DeviceError(
                "OpenVINO runs on the CPU here",
                got=device,
                expected="cpu",
                remedy="ask for another backend, or for --device cpu",
            )
        super().__init__(spec, variant, "cpu", buckets)
        self.threads = threads or usable_cores()
        self._threads_are_named = threads is not None
        self.streams = streams
        if not 1 <= streams <= self.threads:
            raise InputError("each stream needs a thread", got=f"{streams} streams", expected=f"1 to {self.threads}")
        self._version = str(ov.__version__).partition("-")[0]
        self._plans: dict[int, list[_Part]] = {}
        self._set_by: dict[int, object | None] = {}  # whose arrays the requests of a batch have now
        try:
            core = new_core()
            self.inference_precision = _inference_precision(core, variant.precision)
            model = core.read_model(graph)
        except RuntimeError as error:  # what all of OpenVINO's errors are
            raise _refused(where, error) from error
        self._require_tensors(model, where)
        compiled: dict[tuple[int, int], Any] = {}
        for bucket in buckets:
            sizes = _part_sizes(bucket, streams)
            for size in set(sizes):
                if (size, len(sizes)) not in compiled:
                    compiled[size, len(sizes)] = self._compiled(core, model, size, len(sizes), where)
            starts = np.cumsum([0, *sizes]).tolist()
            self._plans[bucket] = [
                _Part(start, size, compiled[size, len(sizes)].create_infer_request())
                for start, size in zip(starts, sizes, strict=False)
            ]

    def _compiled(self, core: openvino.Core, model: openvino.Model, batch: int, streams: int, where: str) -> Any:
        import openvino as ov

        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            # Pinned threads of several processes all sit on the same first cores.
            "ENABLE_CPU_PINNING": False,
            # Otherwise products with compressed weights quantise their activations as they come.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        known = _known_properties()
        shapes = {
            t.name: ov.PartialShape([batch, *(-1 if d is None else d for d in t.shape)])
            for t in self.spec.inputs
            if t.name in self._fed
        }
        fixed = model.clone()
        try:
            fixed.reshape(shapes)
            compiled = core.compile_model(fixed, "CPU", {k: v for k, v in settings.items() if k in known})
        except RuntimeError as error:
            raise _refused(f"{where} for batches of {batch}", error) from error
        found = compiled.get_property("INFERENCE_NUM_THREADS")
        if found < self.threads:  # OpenVINO takes the cores that it counts, and does not say so
            if self._threads_are_named:
                raise InputError(
                    "OpenVINO runs no more threads than there are cores",
                    got=f"threads={self.threads}",
                    expected=f"1 to {found}",
                )
            self.threads = found
        got = {
            "INFERENCE_PRECISION_HINT": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "NUM_STREAMS": compiled.get_property("NUM_STREAMS"),
            "EXECUTION_DEVICES": compiled.get_property("EXECUTION_DEVICES"),
        }
        expected = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "NUM_STREAMS": streams,
            "EXECUTION_DEVICES": ["CPU"],
        }
        if got != expected:
            raise BackendError(f"OpenVINO would run {where} in another way", got=got, expected=expected)
        for tensor in self.spec.outputs:
            shape = compiled.output(tensor.name).partial_shape
            wanted = ov.PartialShape([batch, *(-1 if d is None else d for d in tensor.shape)])
            if not shape.compatible(wanted):
                raise BackendError(
                    f"{where}: {tensor.name!r} has another shape than in its spec",
                    got=str(shape),
                    expected=[batch, *tensor.shape],
                )
        return compiled

    def _require_tensors(self, model: openvino.Model, where: str) -> None:
        """Names and dtypes as in the spec. Shapes are held against it when a batch is compiled."""
        for side, tensors, ports in (
            ("inputs", self.spec.inputs, model.inputs),
            ("outputs", self.spec.outputs, model.outputs),
        ):
            wanted = {t.name: t for t in tensors}
            found = {name: port for port in ports for name in port.get_names()}
            # OpenVINO drops an input that nothing reads, so one may be missing; none may be there beyond the spec's.
            fits = (
                all(wanted.keys() & port.get_names() for port in ports)
                if side == "inputs"
                else wanted.keys() <= found.keys()
            )
            if not fits:
                raise BackendError(
                    f"{where} has other {side} than its spec",
                    got=", ".join(sorted(found)) or "none",
                    expected=", ".join(sorted(wanted)),
                )
            for name in wanted.keys() & found.keys():
                _require_dtype(wanted[name], found[name], where)
            if side == "inputs":
                self._fed = [name for name in wanted if name in found]

    def run(self, inputs: Arrays, out: Arrays) -> None:
        self._run(inputs, out, None)

    def prepared(self, inputs: Arrays, out: Arrays) -> Callable[[], None]:
        if not all(inputs[name].flags.writeable for name in self._fed):
            # What may not be written to is copied when it is set, and would not be read again.
            return super().prepared(inputs, out)
        owner, batch = object(), len(next(iter(inputs.values())))
        parts = self._plans.get(batch, [])
        outputs = [out[t.name] for t in self.spec.outputs]
        if len(parts) != 1 or not all(array.size for array in outputs):
            return lambda: self._run(inputs, out, owner)
        run_again = run_in_this_thread(parts[0].request, outputs)

        def run() -> None:
            if self._set_by.get(batch) is not owner:
                self._run(inputs, out, owner)
                return
            try:
                run_again()
            except RuntimeError as error:
                raise _failure(error) from error

        return run

    def _run(self, inputs: Arrays, out: Arrays, owner: object | None) -> None:
        """Runs arrays; those of an owner are not set again where they were the last that this batch ran."""
        if not self._plans:
            raise BackendError("the session is closed")
        batch = len(next(iter(inputs.values())))
        if batch not in self._plans:
            raise BackendError("the batch is not a bucket", got=batch, expected=self.buckets)
        try:
            if owner is None or self._set_by.get(batch) is not owner:
                self._set_by[batch] = None  # should it fail halfway
                self._set_tensors(self._plans[batch], inputs, out)
                self._set_by[batch] = owner
            run_at_once([part.request for part in self._plans[batch]])
        except (RuntimeError, ValueError) as error:  # ValueError: an output that may not be written to
            raise _failure(error) from error

    def _set_tensors(self, parts: Iterable[_Part], inputs: Arrays, out: Arrays) -> None:
        import openvino as ov

        for part in parts:
            rows = slice(part.start, part.start + part.rows)
            for name in self._fed:
                array = inputs[name][rows]
                # OpenVINO only reads it, and refuses all the same to share what may not be written to: that is copied,
                # by OpenVINO, for a request does not keep an array of NumPy's.
                part.request.set_tensor(name, ov.Tensor(array, shared_memory=array.flags.writeable))
            for tensor in self.spec.outputs:
                # The caller's memory: OpenVINO writes there, and no copy follows.
                part.request.set_tensor(tensor.name, ov.Tensor(out[tensor.name][rows], shared_memory=True))

    def versions(self) -> dict[str, str]:
        return {"openvino": self._version, "numpy": np.__version__}

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "threads": self.threads,
            "streams": self.streams,
            "inference_precision": self.inference_precision,
        }

    def close(self) -> None:
        self._plans, self._set_by = {}, {}


def import_openvino() -> Any:
    """The module. Raises `MissingDependencyError` naming the extra."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "the backend openvino is not installed", got=str(error), remedy='pip install "ganexport[openvino]"'
        ) from error
    return openvino


def new_core() -> openvino.Core:
    """A core with the CPU plugin loaded; the signal handlers of this thread stay on the stack that they were on."""
    with signal_stack_kept():
        core = import_openvino().Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


@functools.cache
def _known_properties() -> frozenset[str]:
    """The settings that the CPU plugin has. Asked once: the answer (openvino 2026.4) is never freed, 5 KiB a time."""
    return frozenset(new_core().get_property("CPU", "SUPPORTED_PROPERTIES"))


def _inference_precision(core: openvino.Core, precision: str) -> str:
    """float32, unless the graph is typed in a half type and the CPU computes in it.

    OpenVINO would otherwise take bfloat16 for a float32 graph wherever the CPU has it.
    """
    hint, capability = _HALF.get(precision, ("f32", ""))
    return hint if capability in (*core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), "") else "f32"


def _part_sizes(bucket: int, streams: int) -> list[int]:
    """The bucket in as many parts as there are streams, as equal as can be, larger ones first; none is empty."""
    count = min(bucket, streams)
    least, more = divmod(bucket, count)
    return [least + 1] * more + [least] * (count - more)


def _require_dtype(tensor: TensorSpec, port: Any, where: str) -> None:
    found = port.get_element_type().to_dtype()
    if found != np.dtype(tensor.dtype):
        raise BackendError(
            f"{where}: {tensor.name!r} has another dtype than in its spec", got=str(found), expected=tensor.dtype
        )


def _refused(where: str, error: RuntimeError) -> BackendError:
    match = re.search(r"No conversion rule found for operations: (.*)", str(error))
    if match:
        return BackendError(f"OpenVINO does not have an operator of {where}", got=match[1].strip())
    return BackendError(f"OpenVINO refuses {where}", got=_cause(error))


def _failure(error: RuntimeError | ValueError) -> BackendError:
    return BackendError("OpenVINO failed on cpu", got=_cause(error))


def _cause(error: BaseException) -> str:
    """The first line that says what happened, after those that say where in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not _WHERE_IN_CPP.match(line)]
    return next(iter(telling or lines), type(error).__name__)[:400]
