#!/usr/bin/env python3
"""What each rung of a bundle costs and gives: size, latency at batches 1, 16 and 64, and quality against fp32.

    ganexport precision NAME.gan fp16 bf16 int8
    python benchmarks/precision.py NAME.gan

Every ONNX variant is run by every backend here that takes it: ONNX Runtime as the runtime runs it, and OpenVINO where
it is installed. Times are the median of interleaved rounds, the ratio to the fp32 graph in the same backend and round.
Quality is that of the verdict in the bundle, over thousands of latents; before a time counts, each contender's images
are held against it again, over one batch. A rung that a backend here cannot run has a row that says so, and no time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import Report, exit_with, parser

from ganexport.benchmark.rounds import interleaved, ratios
from ganexport.parity import FLOORS, bound_for, measure
from ganexport.probes import probe_inputs
from ganexport.tables import size_text, table
from ganruntime.bundle import Bundle, Variant, read_bundle
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, GanError
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sessions.openvino import new_core

BATCHES, SEED = (1, 16, 64), 0x62656E63
Arrays = dict[str, NDArray[np.generic]]
Run = Callable[[Arrays], Arrays]


def onnxruntime_run(bundle: Bundle, variant: Variant, threads: int) -> Run:
    session = OnnxRuntimeSession(
        bundle.spec, variant, bundle.graph(variant), device="cpu", buckets=BATCHES, threads=threads
    )
    kept = {batch: empty_outputs(bundle.spec, batch) for batch in BATCHES}

    def run(inputs: Arrays) -> Arrays:
        out = kept[len(next(iter(inputs.values())))]
        session.run(inputs, out)
        return out

    return run


def openvino_run(bundle: Bundle, variant: Variant, threads: int) -> Run:
    """Raises `ImportError` where OpenVINO is not installed, and its own errors where it refuses the graph."""

    core = new_core()
    # Half graphs are to run as they are typed, and fp32 in fp32: OpenVINO may take bfloat16 where the CPU has it.
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if variant.precision == "fp32":
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(bundle.graph(variant)), "CPU", hints)
    names = [t.name for t in bundle.spec.outputs]

    def run(inputs: Arrays) -> Arrays:
        results = compiled(inputs)
        return {name: results[name] for name in names}

    return run


BACKENDS = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def main() -> int:
    options = parser(__doc__, rounds=9, seconds=3.0)
    options.add_argument("bundle", type=Path, metavar="NAME.gan")
    options.add_argument("--threads", type=int, default=usable_cores(), help="compute threads (default %(default)s)")
    chosen = options.parse_args()
    return measured(read_bundle(chosen.bundle), chosen)


def measured(bundle: Bundle, chosen: argparse.Namespace) -> int:
    report = Report("precision", chosen.output)
    rows, figures = [], []
    variants = [v for v in bundle.manifest.variants if v.format == "onnx" and v.output == "float"]
    for backend, opener in BACKENDS.items():
        runs: dict[str, Run] = {}
        refused: dict[str, str] = {}
        for variant in variants:
            try:
                runs[variant.name] = opener(bundle, variant, chosen.threads)
                check(bundle, variant, runs)
            except ImportError:
                refused[variant.name] = "not installed"
            except BackendError as error:
                refused[variant.name] = str(error.got or error.problem)
            except RuntimeError as error:  # OpenVINO's own
                refused[variant.name] = (str(error).strip().splitlines() or ["refused"])[0]
            if variant.name in refused:
                runs.pop(variant.name, None)
        times = timed(bundle, runs, chosen) if runs else {}
        for variant in variants:
            figure = figure_of(bundle, variant, backend, times.get(variant.name), refused.get(variant.name))
            figures.append(figure)
            rows.append(row_of(figure))
    print(
        f"{bundle.path}: {chosen.threads} thread(s), {chosen.rounds} interleaved rounds; ms a batch, × as fast as fp32"
    )
    header = ["rung", "backend", "size", *(f"batch {b}" for b in BATCHES), "worst PSNR", "mean", "SSIM", "levels"]
    print(table(rows, header, frozenset(range(2, 10))))
    print("quality: of the verdict with the lowest PSNR, against fp32; the fp32 row's is against its source network")
    report.put("bundle", bundle.path.name)
    report.put("threads", chosen.threads)
    report.put("rungs", figures)
    return report.finish()


def check(bundle: Bundle, variant: Variant, runs: dict[str, Run]) -> None:
    """A batch within the rung's floor or bound of fp32's. Raises `SystemExit`: there are no times for wrong images."""
    if "fp32" not in runs or variant.name == "fp32":
        return
    inputs = probe_inputs(bundle.spec, SEED, 0, BATCHES[-1])
    expected = {name: array.copy() for name, array in runs["fp32"](inputs).items()}
    found = runs[variant.name](inputs)
    for tensor in bundle.spec.outputs:
        errors = measure(expected[tensor.name], found[tensor.name], tensor)
        floors = FLOORS.get(variant.precision)
        if floors is not None:
            recorded = [v.errors.get("floor_psnr_db", floors.psnr_db) for v in variant.verdicts]
            holds = errors.psnr_db >= min(recorded, default=floors.psnr_db)
        else:
            holds = errors.max_abs <= bound_for(
                variant.precision, "cpu", tensor, float(np.abs(expected[tensor.name]).max())
            )
        if not holds or not errors.finite:
            raise SystemExit(
                f"{variant.name}: {tensor.name} is {errors.psnr_db:.1f} dB from fp32; there are no times for it"
            )


def timed(bundle: Bundle, runs: dict[str, Run], chosen: argparse.Namespace) -> dict[str, dict[int, Any]]:
    """{variant: {batch: (ms, ratio)}}."""
    found: dict[str, dict[int, Any]] = {name: {} for name in runs}
    for batch in BATCHES:
        inputs = [probe_inputs(bundle.spec, SEED, batch * i, batch) for i in range(4)]
        contenders = {name: lambda i, run=run, inputs=inputs: run(inputs[i % 4]) for name, run in runs.items()}
        slices = chosen.seconds / chosen.rounds
        timings = interleaved(contenders, rounds=chosen.rounds, slice_seconds=slices, least_calls=3)
        base = timings["fp32"].medians() if "fp32" in timings else None
        for name, timing in timings.items():
            own = timing.medians()
            found[name][batch] = (1e3 * float(np.median(own)), ratios(base, own) if base is not None else None)
    return found


def figure_of(
    bundle: Bundle, variant: Variant, backend: str, times: dict[int, Any] | None, refused: str | None
) -> dict[str, Any]:
    worst = min(variant.verdicts, key=lambda v: psnr_of(v.errors), default=None)
    quality = {} if worst is None else {key.rpartition(".")[2]: value for key, value in worst.errors.items()}
    return {
        "rung": variant.name,
        "backend": backend,
        "size_bytes": bundle.manifest.files[variant.file].size_bytes,
        "status": variant.status,
        "not_run": refused,
        "ms": {str(b): t[0] for b, t in (times or {}).items()},
        "times_as_fast_as_fp32": {str(b): t[1].to_json() for b, t in (times or {}).items() if t[1] is not None},
        "quality": {k: quality[k] for k in ("psnr_db", "mean_psnr_db", "ssim", "max_uint8") if k in quality},
        "verified_by": [f"{v.backend} {v.device}" for v in variant.verdicts],
    }


def psnr_of(errors: Mapping[str, float]) -> float:
    return min((v for k, v in errors.items() if k.rpartition(".")[2] == "psnr_db"), default=float("inf"))


def row_of(figure: dict[str, Any]) -> list[str]:
    quality, ms = figure["quality"], figure["ms"]
    if figure["not_run"]:
        times = ["not run", *[""] * (len(BATCHES) - 1)]
    else:
        ratio = {b: figure["times_as_fast_as_fp32"].get(b) for b in ms}
        times = [f"{ms[b]:.2f}" + (f" {r['median']:.2f}×" if (r := ratio[b]) else "") for b in ms]
    return [
        figure["rung"],
        figure["backend"],
        size_text(figure["size_bytes"]),
        *times,
        f"{quality['psnr_db']:.1f}" if "psnr_db" in quality else "",
        f"{quality['mean_psnr_db']:.1f}" if "mean_psnr_db" in quality else "",
        f"{quality['ssim']:.4f}" if "ssim" in quality else "",
        f"{quality['max_uint8']:.0f}" if "max_uint8" in quality else "",
    ]


if __name__ == "__main__":
    try:
        exit_with(main())
    except GanError as error:
        raise SystemExit(f"error: {error}") from error
