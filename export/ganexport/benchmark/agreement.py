"""Agreement: before a time counts, every contender must draw what the reference draws, from the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.parity import ParityMeter, floors_of, verdict_from
from ganexport.source import Source
from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import CheckpointError, ParityError
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec


def require_origin(bundle: Bundle, source: Source, checkpoint: Path | str) -> None:
    """Raises `CheckpointError` unless the bundle was exported from this checkpoint: same tensors, same weights."""
    remedy = f"name the checkpoint that {bundle.path} was exported from, or export it again: ganexport to-onnx"
    if (source.spec.inputs, source.spec.outputs) != (bundle.spec.inputs, bundle.spec.outputs):
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint of {bundle.path}",
            got=_tensors_text(source.spec),
            expected=_tensors_text(bundle.spec),
            remedy=remedy,
        )
    report = bundle.manifest.reports.get("export", {})
    recorded = report.get("weights_sha256") if isinstance(report, Mapping) else None
    if recorded is not None and recorded != source.weights_sha256():
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint of {bundle.path}: its weights are others",
            got=f"weights with SHA-256 {source.weights_sha256()[:16]}…",
            expected=f"{str(recorded)[:16]}… as the bundle was exported from",
            remedy=remedy,
        )


def check_outputs(
    contenders: Sequence[Contender], spec: GeneratorSpec, pool: Sequence[Arrays], variant: Variant, device: str
) -> dict[str, dict[str, float]]:
    """Every contender over every batch of the pool, held against the first contender.

    Returns:
        {contender: {"max_abs": …, "max_uint8": …, "bound": …}}: the largest errors over all outputs, in the outputs'
        own units and in pixel levels; `bound` is that of the first output. Pixel contenders have `max_uint8` alone.

    Raises:
        ParityError: one draws something else. Its times would be those of another function.
    """
    reference, *others = contenders
    expected = [reference.run(inputs) for inputs in pool]
    found: dict[str, dict[str, float]] = {}
    for contender in others:
        if contender.gives_pixels:
            found[contender.name] = _compare_pixels(contender, spec, pool, expected, variant)
        else:
            found[contender.name] = _compare_floats(contender, reference, spec, pool, expected, variant, device)
    return found


def _compare_floats(
    contender: Contender,
    reference: Contender,
    spec: GeneratorSpec,
    pool: Sequence[Arrays],
    expected: Sequence[Arrays],
    variant: Variant,
    device: str,
) -> dict[str, float]:
    floors = floors_of(variant)
    meters = {t.name: ParityMeter(t, structure=floors is not None) for t in spec.outputs}
    first = 0
    for inputs, right in zip(pool, expected, strict=True):
        outputs = contender.run(inputs)
        for name, meter in meters.items():
            meter.add(right[name], outputs[name], first)
        first += len(next(iter(inputs.values())))
    verdict, problems = verdict_from(
        meters,
        precision=variant.precision,
        backend=contender.name,
        device=device,
        versions={},
        reference=reference.label,
        latents=first,
        batches=(len(next(iter(pool[0].values()))),),
        floors=floors,
    )
    if problems:
        raise _departure(contender, reference, "; ".join(problems), f"at most {verdict.bound:.3g} apart")
    all_errors = [meter.errors() for meter in meters.values()]
    return {
        "max_abs": max(e.max_abs for e in all_errors),
        "max_uint8": max(e.max_uint8 for e in all_errors),
        "bound": verdict.bound,
    }


def _compare_pixels(
    contender: Contender,
    spec: GeneratorSpec,
    pool: Sequence[Arrays],
    expected: Sequence[Arrays],
    variant: Variant,
) -> dict[str, float]:
    image, floors = spec.image, floors_of(variant)
    assert image is not None
    limit = 1.0 if floors is None else floors.levels
    largest = 0
    for inputs, right in zip(pool, expected, strict=True):
        pixels: Any = contender.run(inputs)[image.name]
        wanted = uint8_from_output(right[image.name], image)
        largest = max(largest, int(np.abs(pixels.astype(np.int16) - wanted).max()))
    if largest > limit:
        got, expected_text = f"pixels differ by up to {largest} levels", f"at most {limit:g} level(s) apart"
        raise _departure(contender, None, got, expected_text)
    return {"max_uint8": float(largest)}


def _departure(contender: Contender, reference: Contender | None, got: str, expected: str) -> ParityError:
    against = reference.label if reference is not None else "the reference"
    return ParityError(
        f"{contender.label} does not draw what {against} draws, so its times would mean nothing",
        got=got,
        expected=expected,
        remedy="ganexport verify NAME.gan --against CHECKPOINT says more",
    )


def _tensors_text(spec: GeneratorSpec) -> str:
    return ", ".join(f"{t.name} {list(t.shape)}" for t in (*spec.inputs, *spec.outputs))
