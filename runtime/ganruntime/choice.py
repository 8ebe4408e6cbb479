"""The choice of what runs: which backend, device and variant a load takes, and why.

What was named is what runs, or there is an error. What was left to `auto` is chosen in this order:

1. The device: a GPU where ONNX Runtime has one, or where TensorRT is installed and the bundle has a verified engine;
   else the CPU.
2. Backend, variant, threads and streams: those that `ganexport tune` measured to be the fastest on this machine, where
   the bundle has such a record and it fits what was named (`ganruntime.tuning`). Without one:
3. The backend: of those that are installed and run on that device, the first with a verdict of its own for that kind of
   device that holds; else the first with a variant that was verified elsewhere, and `why` says so. A device is never
   changed to suit a backend.
4. The variant: the first in the bundle's order of preference that was verified.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from ganruntime.buckets import DEFAULT_BUCKETS, checked_buckets
from ganruntime.bundle import Bundle, Variant, Verdict
from ganruntime.bundle.variant import REPEAT_GAP
from ganruntime.errors import BackendError, InputError, MissingDependencyError
from ganruntime.machine import backend_version
from ganruntime.sessions.base import Session
from ganruntime.sessions.devices import gpu_count, parse_device
from ganruntime.tuning import Asked, Tuned, tuned_for

# In the order of preference; `auto` goes down it, to the last but one: onnxruntime-tensorrt builds engines at its first
# load, for minutes, and is taken by name or by a tuning.
BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "onnxruntime-tensorrt")
BY_NAME = "onnxruntime-tensorrt"
_KINDS = {"onnxruntime": ("cpu", "cuda"), "openvino": ("cpu",), "tensorrt": ("cuda",), BY_NAME: ("cuda",)}
# What can be set of a backend on the CPU.
SETTINGS = {"onnxruntime": ("threads",), "openvino": ("threads", "streams")}
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "tensorrt": "trt"}
_MODULES = {BY_NAME: ("onnxruntime", "tensorrt")}


@dataclass(frozen=True)
class Choice:
    """What was chosen: `device_why`, `backend_why` and `tuning` are for people, and stand in `Generator.describe()`.

    threads, streams: those that were named, or those of a tuning; None where the session has its default.
    """

    backend: str
    device: str
    variant: Variant
    device_why: str
    backend_why: str
    threads: int | None = None
    streams: int | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)


def choose(
    bundle: Bundle,
    device: str,
    backend: str,
    precision: str,
    *,
    threads: int | None = None,
    streams: int | None = None,
    tuning: str = "throughput",
) -> Choice:
    """Decides what a load runs; imports a backend only to ask for its devices, and opens nothing.

    Args:
        tuning: the objective of a record that is taken: `throughput` or `latency`; `off` takes none.

    Raises:
        InputError: an argument names nothing that there is.
        MissingDependencyError: the backend, or with `auto` every one that runs on the device, is not installed.
        BackendError: nothing verified is there for `auto`, or the device is not one of the backend's.
    """
    if backend not in BACKENDS:
        raise InputError(f"{backend!r} is not a backend", expected=", ".join(BACKENDS))
    for name, count in (("threads", threads), ("streams", streams)):
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise InputError(f"{name} is not a count", got=repr(count), expected="an integer >= 1")
    if device != "auto":
        chosen, why = device, "asked for"
    else:
        chosen, why = chosen_device(bundle) if backend == "auto" else _device_of(backend)
    kind, _ = parse_device(chosen)
    asked = Asked(backend, precision, threads, streams)
    tuned = tuned_for(bundle, chosen, tuning, asked, backends_of(kind))
    if tuned.pick is not None:
        return _tuned_choice(bundle, chosen, why, backend, tuned)
    if backend != "auto":
        found = Choice(backend, chosen, _variant_of(bundle, backend, chosen, precision), why, "asked for")
    else:
        found = _best_backend(bundle, chosen, precision, why)
    return replace(found, threads=threads, streams=streams, tuning=tuned.about)


def _tuned_choice(bundle: Bundle, device: str, device_why: str, backend: str, tuned: Tuned) -> Choice:
    pick = tuned.pick
    assert pick is not None
    variant = _variant_of(bundle, pick.backend, device, pick.variant)
    why = "asked for" if backend != "auto" else tuned.why
    return Choice(pick.backend, device, variant, device_why, why, pick.threads, pick.streams, tuned.about)


def backends_of(kind: str) -> dict[str, bool]:
    """{backend: whether it is installed} of those that run on a kind of device, `cpu` or `cuda`."""
    return {name: installed(name) for name, kinds in _KINDS.items() if kind in kinds}


def candidates(bundle: Bundle, format: str, precision: str, backend: str | None = None) -> list[Variant]:
    """The variants that may be loaded, best first: the one of that name, else those of that precision, verified first.

    An unverified or failed one is never among them unless it is asked for by name or precision.

    Args:
        backend: for whom; its own verdicts then count before those of others.

    Raises:
        BackendError: `auto`, and none is verified.
        InputError: none has that name or precision.
    """
    variants = [v for v in bundle.manifest.variants if v.format == format]
    # Pixels are given to those who ask: by the variant's name, or with a view that has no other (`ganruntime.heads`).
    variants = [v for v in variants if v.output == "float" or v.name == precision] or variants
    statuses = {v.name: v.status_by(backend) for v in variants}
    listed = ", ".join(f"{v.name} ({statuses[v.name]})" for v in variants) or "none"
    if precision == "auto":
        verified = [v for v in variants if statuses[v.name] == "verified"]
        if not verified:
            remedy = f"ganexport verify {bundle.path}" if format == "onnx" else f"ganexport to-trt {bundle.path}"
            raise BackendError(f"{bundle.path} has no verified {format} variant", got=listed, remedy=remedy)
        return verified
    named = [v for v in variants if v.name == precision]
    named = named or sorted(
        (v for v in variants if v.precision == precision), key=lambda v: statuses[v.name] != "verified"
    )
    if not named:
        remedy = f"ganexport inspect {bundle.path}"
        raise InputError(f"{bundle.path} has no {format} variant {precision!r}", got=listed, remedy=remedy)
    return named


def installed(backend: str) -> bool:
    """Whether a backend's modules can be found; they are not imported."""
    return all(_is_found(module) for module in _MODULES.get(backend, (backend,)))


def _is_found(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return find_spec(module) is not None


def _device_of(backend: str) -> tuple[str, str]:
    if backend in ("tensorrt", BY_NAME):
        return "cuda:0", "engines run on the GPU"
    if backend == "openvino":
        return "cpu", "OpenVINO runs on the CPU here"
    from ganruntime.sessions.onnxruntime import best_device

    return best_device()


def chosen_device(bundle: Bundle) -> tuple[str, str]:
    """(device, why): what a load with nothing named runs on."""
    why = "no backend for a GPU is installed"
    if installed("onnxruntime"):
        device, why = _device_of("onnxruntime")
        if device != "cpu":
            return device, why
    if installed("tensorrt") and gpu_count() and _verified_there(bundle, "tensorrt", "cuda", "auto"):
        return "cuda:0", "a GPU answers, and the bundle has engines"
    return "cpu", why


def _best_backend(bundle: Bundle, device: str, precision: str, device_why: str) -> Choice:
    kind, _ = parse_device(device)
    able = [b for b in BACKENDS[1:] if kind in _KINDS[b] and b != BY_NAME]
    here = [b for b in able if installed(b)]
    if not here:
        names = able if kind == "cpu" else ["onnxruntime-gpu", *able[1:]]
        extras = " or ".join(f'"ganexport[{_extra(b, kind)}]"' for b in able)
        raise MissingDependencyError(
            f"no backend is installed that runs on {device}",
            expected=" or ".join(names),
            remedy=f"pip install {extras}",
        )
    reasons = [f"{b} is not installed" for b in able if b not in here]
    errors: list[Exception] = []

    def rank(backend: str) -> tuple[bool, bool]:
        # An onnxruntime built for the CPU is installed and is of no use on a GPU.
        useless = kind == "cuda" and backend == "onnxruntime" and _device_of(backend)[0] == "cpu"
        return useless, not _verified_there(bundle, backend, kind, precision)

    for backend in sorted(here, key=rank):
        try:
            variant = _variant_of(bundle, backend, device, precision)
        except (BackendError, InputError, MissingDependencyError) as error:
            errors.append(error)
            reasons.append(f"{backend} does not: {error.problem}")
            continue
        if _verified_there(bundle, backend, kind, variant.name):
            reasons.insert(0, f"it was verified on {kind} by {backend}{_other_version(variant, backend, kind)}")
        else:
            where = ", ".join(f"{v.backend} {v.device}" for v in variant.verdicts) or "nowhere"
            reasons.insert(0, f"the first installed that runs on {kind}; the variant was verified by: {where}")
        return Choice(backend, device, variant, device_why, "; ".join(reasons))
    raise errors[0]


def _verified_there(bundle: Bundle, backend: str, kind: str, precision: str) -> bool:
    """Whether the variant that this backend would take has a verdict by it, on such a device, that holds."""
    try:
        variant = candidates(bundle, format_of(backend), precision, backend)[0]
    except (BackendError, InputError):
        return False
    return bool(_held_there(variant, backend, kind))


def _other_version(variant: Variant, backend: str, kind: str) -> str:
    """A word on the version of the verdict, where another one is installed now."""
    own = _held_there(variant, backend, kind)
    try:
        here = backend_version(backend)
    except ImportError:
        return ""
    then = own[-1].versions.get(backend, here)
    return "" if then == here else f" {then}, and {here} is here"


def _variant_of(bundle: Bundle, backend: str, device: str, precision: str) -> Variant:
    variants = candidates(bundle, format_of(backend), precision, backend)
    if backend != "tensorrt":
        return _first_that_repeats(variants, backend, parse_device(device)[0])
    from ganruntime.sessions.cuda import gpu_from_index
    from ganruntime.sessions.tensorrt_environment import check_environment, first_that_fits, rebuild_command
    from ganruntime.sessions.tensorrt_library import require_tensorrt

    variant = first_that_fits(variants, device)
    if variant.engine is not None:
        gpu = gpu_from_index(parse_device(device)[1])
        rebuild = rebuild_command(variant, variant.engine, bundle)
        check_environment(variant.engine, variant, require_tensorrt(), gpu, rebuild)
    return variant


def _first_that_repeats(variants: list[Variant], backend: str, kind: str) -> Variant:
    """The first, or before it one of its precision that gave the same bits twice there, which is asked on GPUs alone.

    A GPU may add in another order each time, and (seed, index) is to mean the same image each time.
    """
    same = [v for v in variants if (v.precision, v.output) == (variants[0].precision, variants[0].output)]
    repeating = (v for v in same if any(w.errors.get(REPEAT_GAP) == 0.0 for w in _held_there(v, backend, kind)))
    return next(repeating, variants[0])


def _held_there(variant: Variant, backend: str, kind: str) -> list[Verdict]:
    """The verdicts that hold, by this backend on such a device."""
    return [v for v in variant.verdicts if v.passed and v.backend == backend and v.device.partition(":")[0] == kind]


def format_of(backend: str) -> str:
    """The format of the variants that a backend runs: `tensorrt` for engines, else `onnx`."""
    return "tensorrt" if backend == "tensorrt" else "onnx"


def _extra(backend: str, kind: str) -> str:
    return "gpu" if (backend, kind) == ("onnxruntime", "cuda") else _EXTRAS[backend]


def opened_session(
    bundle: Bundle,
    choice: Choice,
    *,
    buckets: Sequence[int] | None = None,
) -> Session:
    """The session of a choice, its buckets not warmed yet. Arguments and errors are those of `ganruntime.load`."""
    sizes = checked_buckets(buckets) if buckets is not None else None
    threads, streams = choice.threads, choice.streams
    if streams is not None and choice.backend != "openvino":
        raise InputError(f"{choice.backend} has no streams", got=f"streams={streams}", expected='backend="openvino"')
    if choice.backend == "tensorrt":
        from ganruntime.sessions.tensorrt import TensorRTSession

        return TensorRTSession(bundle, choice.variant, choice.device, sizes)
    graph, where = bundle.graph(choice.variant), str(bundle.path / choice.variant.file)
    common: dict[str, Any] = {
        "device": choice.device,
        "buckets": sizes or DEFAULT_BUCKETS,
        "threads": threads,
        "where": where,
    }
    if choice.backend == "openvino":
        from ganruntime.sessions.openvino import OpenVinoSession

        return OpenVinoSession(bundle.spec, choice.variant, graph, streams=streams or 1, **common)
    if choice.backend == BY_NAME:
        from ganruntime.sessions.onnxruntime_tensorrt import OnnxRuntimeTensorRTSession

        return OnnxRuntimeTensorRTSession(bundle.spec, choice.variant, graph, **common)
    from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(bundle.spec, choice.variant, graph, **common)
