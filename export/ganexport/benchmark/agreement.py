"""Agreement: before a time counts, every contender must draw what the reference draws, from the same inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.parity import PSNR_CAP_DB, Floors, ParityMeter, verdict_from
from ganruntime.errors import ParityError
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec


def check_outputs(
    contenders: Sequence[Contender], spec: GeneratorSpec, pool: Sequence[Arrays], device: str
) -> tuple[dict[str, dict[str, float]], dict[str, Exception]]:
    """Every contender over every batch of the pool, held against the first one: fp32 to the bound of its device, lower
    precisions to their floors.

    Returns:
        {contender: {"max_abs": …, "max_uint8": …, "bound": …, "psnr_db": …}}: the largest errors over all outputs, in
        the outputs' own units and in pixel levels, and the PSNR of the worst sample; `bound` is that of the first
        output. Pixel contenders have neither `max_abs` nor `bound`. And {contender: error} for those that draw
        something else, or cannot run: their times would be those of another function.
    """
    reference, *others = contenders
    expected = [reference.run(inputs) for inputs in pool]
    found: dict[str, dict[str, float]] = {}
    failures: dict[str, Exception] = {}
    for contender in others:
        try:
            if contender.gives_pixels:
                found[contender.name] = _compare_pixels(contender, spec, pool, expected)
            else:
                found[contender.name] = _compare_floats(contender, reference, spec, pool, expected, device)
        except Exception as error:
            failures[contender.name] = error
    return found, failures


def check_served(
    submit: Callable[[Arrays], Future[NDArray[Any]]],
    label: str,
    floors: Floors | None,
    spec: GeneratorSpec,
    pool: Sequence[Arrays],
    expected: Sequence[Arrays],
) -> dict[str, float]:
    """The same for a server: all requests of the pool at once, so that they share batches, and each has to get the
    image of its own latent. Figures as for a pixel contender. Raises `ParityError`."""
    assert spec.image is not None
    futures = [submit(inputs) for inputs in pool]
    images = [future.result() for future in futures]
    wanted = [uint8_from_output(right[spec.image.name], spec.image) for right in expected]
    return _checked_pixels(images, wanted, floors, label)


def _compare_floats(
    contender: Contender,
    reference: Contender,
    spec: GeneratorSpec,
    pool: Sequence[Arrays],
    expected: Sequence[Arrays],
    device: str,
) -> dict[str, float]:
    floors = contender.floors
    meters = {t.name: ParityMeter(t, structure=floors is not None) for t in spec.outputs}
    first = 0
    for inputs, right in zip(pool, expected, strict=True):
        outputs = contender.run(inputs)
        for name, meter in meters.items():
            meter.add(right[name], outputs[name], first)
        first += len(next(iter(inputs.values())))
    verdict, problems = verdict_from(
        meters,
        precision=contender.precision,
        backend=contender.name,
        device=device,
        versions={},
        reference=reference.label,
        latents=first,
        batches=(len(next(iter(pool[0].values()))),),
        floors=floors,
    )
    if problems:
        expected_text = (
            f"at most {verdict.bound:.3g} apart" if floors is None else f"PSNR of at least {floors.psnr_db:g} dB"
        )
        raise _departure(contender.label, "; ".join(problems), expected_text)
    all_errors = [meter.errors() for meter in meters.values()]
    return {
        "max_abs": max(e.max_abs for e in all_errors),
        "max_uint8": max(e.max_uint8 for e in all_errors),
        "bound": verdict.bound,
        "psnr_db": min(e.psnr_db for e in all_errors),
    }


def _compare_pixels(
    contender: Contender, spec: GeneratorSpec, pool: Sequence[Arrays], expected: Sequence[Arrays]
) -> dict[str, float]:
    image = spec.image
    assert image is not None
    images = [contender.run(inputs)[image.name] for inputs in pool]
    wanted = [uint8_from_output(right[image.name], image) for right in expected]
    return _checked_pixels(images, wanted, contender.floors, contender.label)


def _checked_pixels(
    images: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]], floors: Floors | None, label: str
) -> dict[str, float]:
    limit = 1.0 if floors is None else floors.levels
    largest, psnr_db = 0, PSNR_CAP_DB
    for found, right in zip(images, wanted, strict=True):
        if found.shape != right.shape:
            raise _departure(label, f"images {list(found.shape)}", f"{list(right.shape)}")
        gaps = found.astype(np.int16) - right  # [n, H, W, C]
        largest = max(largest, int(np.abs(gaps).max()))
        worst_mse = float(np.square(gaps.astype(np.float64)).mean(axis=(1, 2, 3)).max())
        if worst_mse > 0:
            psnr_db = min(psnr_db, 10 * math.log10(255.0**2 / worst_mse))
    if largest > limit:
        raise _departure(label, f"pixels differ by up to {largest} levels", f"at most {limit:g} level(s) apart")
    if floors is not None and psnr_db < floors.psnr_db:
        raise _departure(label, f"PSNR {psnr_db:.1f} dB of the worst image", f"at least {floors.psnr_db:g} dB")
    return {"max_uint8": float(largest), "psnr_db": psnr_db}


def _departure(label: str, got: str, expected: str) -> ParityError:
    return ParityError(
        f"{label} does not draw what eager PyTorch draws, so its times would mean nothing",
        got=got,
        expected=expected,
        remedy="ganexport verify NAME.gan --against CHECKPOINT says more",
    )
