"""Contenders of the standard set that `ganexport bench` has no name for: what a user can do without this project, on a
graph without its faster forms, and what `ganexport tune` chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from standard_cases import OBJECTIVES, UNTUNED, Case

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.benchmark.plain_contenders import PlainOnnxRuntime, PlainOpenVino
from ganexport.benchmark.runtime_contenders import Runtime
from ganexport.benchmark.torch_contenders import Compiled
from ganexport.parity import FLOORS, Floors
from ganexport.probes import probe_inputs
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.choice import choose
from ganruntime.errors import BackendError
from ganruntime.generator import load
from ganruntime.heads import bundle_with_output

_CALIBRATION_SEED, _CALIBRATION_BATCHES, _CALIBRATION_BATCH = 0x706C6169, 16, 8  # "plai"
# Whatever it draws is timed, and its quality is said beside it.
_ANY_QUALITY = Floors(psnr_db=0.0, ssim=-1.0, levels=255.0)


def extras_for(case: Case, bundle: Bundle, threads: int) -> dict[str, Callable[[], Contender]]:
    """{label: what makes it}."""
    plain = read_bundle(case.plain(bundle.path.parent))
    made: dict[str, Callable[[], Contender]] = {
        "plain ONNX Runtime": lambda: PlainOnnxRuntime(plain, plain.variant("fp32"), "cpu", threads),
        "plain OpenVINO": lambda: PlainOpenVino(plain, plain.variant("fp32"), "cpu", threads),
        "plain OpenVINO, bf16 hint": lambda: HintedOpenVino(plain, threads),
    }
    if not case.is_slow:
        made["plain OpenVINO, int8"] = lambda: QuantisedOpenVino(plain, threads)
        made["plain ONNX Runtime, int8"] = lambda: QuantisedOnnxRuntime(plain, threads)
    scaled = case.scaled
    if scaled is not None:
        made["torch.compile, scaled form"] = lambda: CompiledScaled(
            scaled(), bundle.spec, "cpu", threads, (*case.batches, 1)
        )
    if case.is_slow:
        return made
    require_untuned(bundle)
    for objective in OBJECTIVES:
        made[f"ganruntime, tuned for {objective}"] = lambda objective=objective: Tuned(bundle, case, objective)
    return made


def require_untuned(bundle: Bundle) -> None:
    """Raises `BackendError` where a load without a tuning would not run what the tunings are held against."""
    choice = choose(bundle_with_output(bundle, "auto"), "cpu", "auto", "auto", tuning="off")
    if f"ganruntime:{choice.variant.name}@{choice.backend}" != UNTUNED:
        raise BackendError(
            f"{bundle.spec.name}: an untuned load runs {choice.variant.name} on {choice.backend}", expected=UNTUNED
        )


class CompiledScaled(Compiled):
    """`torch.compile` of StyleGAN2 with the modulation written by hand in the scaled form."""

    name = "torch_compile_scaled"
    label = "torch.compile, scaled form"


class HintedOpenVino(PlainOpenVino):
    """OpenVINO told that bfloat16 will do, which it takes where it likes."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, bundle.variant("fp32"), "cpu", threads, hint="bf16")
        self.name, self.label, self.precision = "openvino_bf16_hint", "plain OpenVINO, bf16 hint", "bf16"
        self.floors = FLOORS["bf16"]
        self._setting += ", inference precision bf16"


class QuantisedOpenVino(PlainOpenVino):
    """OpenVINO over the graph that ONNX Runtime's static quantizer makes with its defaults and weights per channel."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, bundle.variant("fp32"), "cpu", threads, graph=quantised_graph(bundle).read_bytes())
        self.name, self.label, self.precision = "openvino_int8", "plain OpenVINO, int8", "int8"
        self.floors = _ANY_QUALITY
        self._setting += ", quantize_static of ONNX Runtime"


class QuantisedOnnxRuntime(PlainOnnxRuntime):
    """ONNX Runtime over the same graph."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, bundle.variant("fp32"), "cpu", threads, graph=quantised_graph(bundle).read_bytes())
        self.name, self.label, self.precision = "onnxruntime_int8", "plain ONNX Runtime, int8", "int8"
        self.floors = _ANY_QUALITY
        self._setting += ", quantize_static of ONNX Runtime"


class Tuned(Runtime):
    """What `ganruntime.load` takes by itself after `ganexport tune`."""

    def __init__(self, bundle: Bundle, case: Case, objective: str) -> None:
        buckets = sorted({1, *case.batches})
        super().__init__(load(bundle, "cpu", buckets=buckets, tuning=objective), f"-tuned-{objective}")
        self.label = f"ganruntime, tuned for {objective}"


def quantised_graph(bundle: Bundle) -> Path:
    """The int8 graph beside a plain bundle, made where it is not there yet."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    path = bundle.path.parent / f"{bundle.path.stem}.int8.onnx"
    if path.exists():
        return path

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Arrays] = iter(
                probe_inputs(bundle.spec, _CALIBRATION_SEED, i * _CALIBRATION_BATCH, _CALIBRATION_BATCH)
                for i in range(_CALIBRATION_BATCHES)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)  # type: ignore[return-value]

    source = path.with_suffix(".fp32.onnx")
    source.write_bytes(bundle.graph(bundle.variant("fp32")))
    quantize_static(source, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    source.unlink()
    return path
