"""The line-up of a benchmark: who is measured, by name, and who cannot be, and why.

eager, eager_1_thread             the network as written; with one thread too, where there are several
channels-last, bf16-autocast, torch-compile
onnxruntime, onnxruntime:VARIANT  a bare InferenceSession.run
openvino, openvino:VARIANT        a bare compiled model
ganruntime, ganruntime_uint8      ours, to float outputs and to pixels; :VARIANT, @BACKEND and, for OpenVINO,
                                  /STREAMS may follow: ganruntime:int8@openvino/2
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ganexport.benchmark.contender import Contender, EagerPyTorch, EagerPyTorchOneThread, close_all
from ganexport.benchmark.plain_contenders import PlainOnnxRuntime, PlainOpenVino
from ganexport.benchmark.runtime_contenders import Runtime, RuntimeImages
from ganexport.benchmark.torch_contenders import Bfloat16Autocast, ChannelsLast, Compiled
from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import GanError, InputError
from ganruntime.generator import BACKENDS, Generator, candidates, load

if TYPE_CHECKING:
    from torch import nn

_OURS = ("ganruntime", "ganruntime_uint8")
_PLAIN = ("onnxruntime", "openvino")
_TORCH = ("eager", "eager_1_thread", "channels_last", "bf16_autocast", "torch_compile")
KINDS = (*_TORCH, *_PLAIN, *_OURS)
_PICK = re.compile(r"([a-z][a-z0-9_-]*)(?::([A-Za-z0-9._-]+))?(?:@([a-z]+)(?:/([1-9][0-9]*))?)?", re.ASCII)


@dataclass(frozen=True)
class Pick:
    """What a name asks for. variant, backend, streams: None for the run's own."""

    kind: str
    variant: str | None = None
    backend: str | None = None
    streams: int | None = None

    @property
    def suffix(self) -> str:
        """What follows the kind: `:int8@openvino/2`."""
        return (
            (f":{self.variant}" if self.variant else "")
            + (f"@{self.backend}" if self.backend else "")
            + (f"/{self.streams}" if self.streams else "")
        )

    @property
    def name(self) -> str:
        return self.kind + self.suffix


def pick_from_text(text: str) -> Pick:
    """Reads a contender's name. Raises `InputError` where it is none."""
    match = _PICK.fullmatch(text)
    kind = match[1].replace("-", "_") if match else ""
    if match is None or kind not in KINDS:
        raise InputError(
            f"{text!r} is not a contender",
            expected=", ".join(KINDS) + "; onnxruntime:VARIANT, openvino:VARIANT, ganruntime:VARIANT@BACKEND/STREAMS",
        )
    pick = Pick(kind, match[2], match[3], int(match[4]) if match[4] else None)
    if pick.variant and kind in _TORCH:
        raise InputError(f"{text!r}: PyTorch runs the network, not a variant", expected=kind)
    if pick.backend and kind not in _OURS:
        raise InputError(f"{text!r}: only ours runs on a backend of choice", expected=f"ganruntime@{pick.backend}")
    if pick.backend and pick.backend not in BACKENDS[1:]:
        raise InputError(f"{text!r}: {pick.backend!r} is not a backend", expected=", ".join(BACKENDS[1:]))
    return pick


@dataclass(frozen=True)
class Absent:
    """A contender without figures. failed: it ran and went wrong; otherwise it cannot run here."""

    label: str
    why: str
    failed: bool


@dataclass
class Lineup:
    """Who is measured, the reference first, and who is not."""

    contenders: list[Contender]
    absent: dict[str, Absent] = field(default_factory=dict)

    def drop(self, name: str, error: BaseException) -> None:
        """Takes out one that went wrong, and keeps the reason."""
        contender = next(c for c in self.contenders if c.name == name)
        self.absent[name] = Absent(contender.label, why_from_error(error), failed=True)
        self.contenders.remove(contender)
        contender.close()


def default_picks(bundle: Bundle, device: str, threads: int, backend: str) -> list[Pick]:
    """Eager PyTorch, ONNX Runtime (and OpenVINO, where ours runs on it) by hand, and ours."""
    kinds = ["eager", "eager_1_thread"] if device == "cpu" and threads > 1 else ["eager"]
    kinds += ["onnxruntime", *(["openvino"] if backend == "openvino" else []), "ganruntime"]
    if bundle.spec.latent is not None and bundle.spec.image is not None:
        kinds.append("ganruntime_uint8")
    return [Pick(kind) for kind in kinds]


def picks_for(
    bundle: Bundle, device: str, threads: int, backend: str, asked: Sequence[str], *, only: bool
) -> list[Pick]:
    """The defaults and what was asked for, each once; `only` leaves of the defaults what ratios are taken to.

    Raises:
        InputError: a name is none, or names a variant that the bundle does not have.
    """
    defaults = default_picks(bundle, device, threads, backend)
    wanted = [pick_from_text(text) for text in asked]
    kept = [p for p in defaults if not only or p.kind in ("eager", "eager_1_thread")]
    if device != "cpu" or threads == 1:  # it would be the same as `eager`
        wanted = [p for p in wanted if p.kind != "eager_1_thread"]
    for pick in wanted:
        if pick.variant:
            candidates(bundle, "tensorrt" if pick.backend == "tensorrt" else "onnx", pick.variant)
        if pick.kind == "ganruntime_uint8" and pick.kind not in [p.kind for p in defaults]:
            raise InputError("pixels are drawn of a latent", got=pick.name, expected="ganruntime, to float outputs")
    # Families together, in the order of KINDS; it begins with the reference.
    return sorted(dict.fromkeys([*kept, *wanted]), key=lambda pick: KINDS.index(pick.kind))


def lineup_for(
    bundle: Bundle,
    variant: Variant,
    module: nn.Module,
    picks: Sequence[Pick],
    *,
    device: str,
    threads: int,
    batches: Sequence[int],
    backend: str = "onnxruntime",
    usual_buckets: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Lineup:
    """Builds everybody. The runtime gets the measured batch sizes as buckets beside its usual ones, as a server that
    knows its batches would load it; any other batch would be padded or cut.

    Args:
        variant: what a pick without a variant runs.
        backend: what ours runs on where the pick does not say.

    Raises:
        MissingDependencyError, DeviceError, BackendError: a default contender cannot run here; there are no times
            without it. One that was asked for is absent instead, with the reason.
        InputError: a pick does not fit the bundle.
    """
    buckets = sorted({1, *(DEFAULT_BUCKETS if usual_buckets else ()), *batches})
    defaults = default_picks(bundle, device, threads, backend)
    generators: dict[str, Generator] = {}

    def generator_of(pick: Pick) -> Generator:
        if pick.suffix not in generators:
            chosen = pick.backend or backend
            name = pick.variant or ("auto" if chosen == "tensorrt" else variant.name)
            own = None if chosen == "tensorrt" else buckets  # an engine has its own
            used = None if chosen == "tensorrt" else threads
            generators[pick.suffix] = load(
                bundle, device, chosen, name, buckets=own, threads=used, streams=pick.streams
            )
        return generators[pick.suffix]

    def built(pick: Pick) -> Contender:
        of_pick = candidates(bundle, "onnx", pick.variant)[0] if pick.variant and pick.kind in _PLAIN else variant
        match pick.kind:
            case "eager":
                return EagerPyTorch(module, bundle.spec, device, threads)
            case "eager_1_thread":
                return EagerPyTorchOneThread(module, bundle.spec, device)
            case "channels_last":
                return ChannelsLast(module, bundle.spec, device, threads)
            case "bf16_autocast":
                return Bfloat16Autocast(module, bundle.spec, device, threads)
            case "torch_compile":
                return Compiled(module, bundle.spec, device, threads, batches)
            case "onnxruntime":
                return PlainOnnxRuntime(bundle, of_pick, device, threads, is_default=pick.variant is None)
            case "openvino":
                return PlainOpenVino(bundle, of_pick, device, threads, is_default=pick.variant is None)
            case "ganruntime":
                return Runtime(generator_of(pick), pick.suffix)
            case _:
                return RuntimeImages(generator_of(pick), pick.suffix)

    lineup = Lineup([])
    try:
        for pick in _in_order_of_errors(picks):
            say(f"preparing {pick.name}")
            try:
                lineup.contenders.append(built(pick))
            except InputError:
                raise
            except Exception as error:
                if pick in defaults:
                    raise
                lineup.absent[pick.name] = Absent(pick.name.replace("_", " "), why_from_error(error), failed=False)
    except BaseException:
        close_all(lineup.contenders)
        raise
    order = {pick.name: i for i, pick in enumerate(picks)}
    lineup.contenders.sort(key=lambda contender: order[contender.name])
    return lineup


def _in_order_of_errors(picks: Sequence[Pick]) -> list[Pick]:
    """Plain OpenVINO after ours, which says in plain words what OpenVINO refuses."""
    return sorted(picks, key=lambda pick: pick.kind == "openvino")


def why_from_error(error: BaseException) -> str:
    """An error in one line."""
    if not isinstance(error, GanError):
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:400]
    got = f" (got {error.got})" if error.got is not None else ""
    return f"{error.problem}{got}" + (f"; {error.remedy}" if error.remedy else "")
