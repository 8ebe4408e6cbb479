#!/usr/bin/env python3
"""What each rung of a bundle costs and gives: size, latency at batches 1, 16 and 64, and quality against fp32.

    python benchmarks/precision.py                          the demo's digits and faces, trained first: ten minutes
    python benchmarks/precision.py digits.gan faces.gan     bundles that are there
    python benchmarks/precision.py --prepare digits.gan     trains and proves, and leaves the times for a quiet moment

A bundle is copied to runs/precision, and the copy given the rungs that it lacks, each proven over thousands of latents
(minutes; the next run finds them there). Every rung is run by every backend that is installed, in the runtime's own
sessions. Times are the median of interleaved rounds, and the ratio to the fp32 graph in the same backend is taken
within a round: above 1 is faster. Quality is that of the verdict in the bundle; before a time counts, each contender's
images are held against its floor again, over one batch. A rung that a backend cannot run has a reason and no time.

Writes results/precision-NAME.json, results/precision.md from all of those that are there, and the same tables into
docs/precision.md. With --output, one bundle's figures go there, and nothing else is written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import RESULTS, Report, parser, run

from ganexport.benchmark.rounds import interleaved, ratios
from ganexport.parity import FLOORS, bound_for, measure
from ganexport.precision.rungs import rungs_into_bundle
from ganexport.probes import probe_inputs
from ganexport.tables import size_text
from ganruntime.bundle import Bundle, Variant, Verdict, read_bundle
from ganruntime.choice import installed
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError
from ganruntime.files import write_atomically
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sizes import varying_inputs

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "runs" / "precision"  # ignored by git
PAGE, BEGIN, END = ROOT / "docs" / "precision.md", "<!-- benchmarks/precision.py -->", "<!-- end of it -->"
BATCHES, SEED = (1, 16, 64), 0x62656E63
DEMOS, RUNGS = ("digits", "faces"), ("fp16", "bf16", "int8")
ABOUT = (
    "Milliseconds a batch, and in brackets how many times as fast as the fp32 graph in the same backend. Quality is "
    "against fp32 over as many latents, in batches of 1, 2, 3, 64 and 257, by what stands beside it; of fp32, against "
    "PyTorch. Made by `benchmarks/precision.py`; the environment is in the JSON files."
)
Arrays = dict[str, NDArray[np.generic]]


def trained_bundle(data: str) -> Path:
    """The bundle of `ganexport demo`, made where it is not there yet."""
    folder = CACHE / "demo" / data
    bundle = folder / f"{data}.gan"
    if not (bundle / "manifest.json").is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ganexport", "demo", "--data", data, "-o", str(folder)]
        subprocess.run(command, check=True)
    return bundle


def with_rungs(bundle: Bundle, rungs: list[str], latents: int | None) -> Bundle:
    """A copy of the bundle that has the rungs; one that was made before is taken as it is."""
    present = [v.name for v in bundle.manifest.variants]
    missing = [rung for rung in rungs if rung not in present]
    if not missing:
        return bundle
    made_of = "-".join([bundle.path.stem, bundle.manifest_sha256[:12], *missing, str(latents or "all")])
    path = CACHE / f"{made_of}.gan"
    if not path.exists():
        # Under another name until it has its rungs: a copy that was interrupted is not taken for a whole one.
        partial = path.with_name(f"partial-{path.name}")
        shutil.rmtree(partial, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copytree(bundle.path, partial)
        rungs_into_bundle(partial, missing, latents=latents, say=lambda line: print(f"  {line}", flush=True))
        partial.replace(path)
    return read_bundle(path)


def opened(backend: str, bundle: Bundle, variant: Variant, threads: int) -> Session:
    graph = bundle.graph(variant)
    if backend == "openvino":
        from ganruntime.sessions.openvino import OpenVinoSession

        return OpenVinoSession(bundle.spec, variant, graph, buckets=BATCHES, threads=threads)
    from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(bundle.spec, variant, graph, device="cpu", buckets=BATCHES, threads=threads)


def run_once(session: Session, inputs: Arrays) -> Arrays:
    out = empty_outputs(session.spec, len(next(iter(inputs.values()))))
    session.run(inputs, out)
    return out


def measured(bundle: Bundle, backend: str, variants: list[Variant], options: Namespace) -> dict[str, Any]:
    """One backend: its versions, {rung: {batch: {"ms", "ratio"}}}, and why rungs were not run."""
    sessions: dict[str, Session] = {}
    refused: dict[str, str] = {}
    try:
        for variant in variants:
            try:
                sessions[variant.name] = opened(backend, bundle, variant, options.threads)
            except BackendError as error:
                refused[variant.name] = str(error.got or error.problem)[:300]
        for variant in variants:
            if variant.name in sessions and variant.name != "fp32":
                require_quality(bundle, backend, variant, sessions)
        times: dict[str, dict[str, Any]] = {name: {} for name in sessions}
        for batch in BATCHES:
            inputs = [probe_inputs(bundle.spec, SEED, batch * i, batch) for i in range(4)]
            calls = {name: _call(session, inputs, batch) for name, session in sessions.items()}
            slice_seconds = options.seconds / options.rounds
            timings = interleaved(calls, rounds=options.rounds, slice_seconds=slice_seconds, least_calls=2)
            base = timings["fp32"].medians()
            for name, timing in timings.items():
                own = timing.medians()
                times[name][str(batch)] = {"ms": 1e3 * float(np.median(own)), "ratio": ratios(base, own).to_json()}
        return {"versions": sessions["fp32"].versions(), "times": times, "not_run": refused}
    finally:
        for session in sessions.values():
            session.close()


def _call(session: Session, inputs: list[Arrays], batch: int) -> Any:
    out = empty_outputs(session.spec, batch)
    return lambda i: session.run(inputs[i % 4], out)


def require_quality(bundle: Bundle, backend: str, variant: Variant, sessions: dict[str, Session]) -> None:
    """Holds a batch to the rung's floor, or bound. Raises `SystemExit`: there are no times for other images."""
    inputs = probe_inputs(bundle.spec, SEED, 0, BATCHES[-1])
    expected, found = run_once(sessions["fp32"], inputs), run_once(sessions[variant.name], inputs)
    for tensor in bundle.spec.outputs:
        errors = measure(expected[tensor.name], found[tensor.name], tensor)
        floors = FLOORS.get(variant.precision)
        if floors is not None:
            recorded = [v.errors.get("floor_psnr_db", floors.psnr_db) for v in variant.verdicts]
            holds = errors.psnr_db >= min(recorded, default=floors.psnr_db)
        else:
            peak = float(np.abs(expected[tensor.name]).max())
            holds = errors.max_abs <= bound_for(variant.precision, "cpu", tensor, peak)
        if not holds or not errors.finite:
            raise SystemExit(
                f"{variant.name} on {backend}: {tensor.name} is {errors.psnr_db:.1f} dB from fp32; no times for that"
            )


def rung_of(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    worst = min(variant.verdicts, key=_psnr_of)
    figures = {key.rpartition(".")[2]: value for key, value in worst.errors.items()}
    report = bundle.manifest.reports.get("precision", {}).get(variant.name, {})
    return {
        "name": variant.name,
        "size_bytes": bundle.manifest.files[variant.file].size_bytes,
        "status": variant.status,
        "proven_by": worst.backend if worst.backend == "reference" else f"{worst.backend} {worst.device}",
        "latents": worst.latents,
        "quality": {k: figures[k] for k in ("psnr_db", "mean_psnr_db", "ssim", "max_uint8") if k in figures},
        "int8_share": report.get("int8_share") if isinstance(report, dict) else None,
    }


def _psnr_of(verdict: Verdict) -> float:
    return min((v for k, v in verdict.errors.items() if k.rpartition(".")[2] == "psnr_db"), default=float("inf"))


def measure_bundle(path: Path, options: Namespace) -> int:
    original = read_bundle(path)
    if varying_inputs(original.spec):
        raise SystemExit(f"{path}: height and width vary; this measures generators of one size")
    bundle = with_rungs(original, options.rungs, options.latents)
    name = path.stem
    report = Report(f"precision-{name}", options.output)
    chosen = [v for v in bundle.manifest.variants if v.name in ("fp32", *options.rungs) and v.format == "onnx"]
    backends = {b: measured(bundle, b, chosen, options) for b in ("onnxruntime", "openvino") if installed(b)}
    report.put("generator", name)
    report.put("bundle_sha256", original.manifest_sha256)
    report.put("threads", options.threads)
    report.put("rounds", options.rounds)
    report.put("backends", backends)
    report.put("rungs", [rung_of(bundle, variant) for variant in chosen])
    code = report.finish()
    written = options.output or RESULTS / f"precision-{name}.json"
    print(table_of(json.loads(written.read_text())))
    return int(code)


def table_of(data: dict[str, Any]) -> str:
    """One bundle's figures as a Markdown table."""
    backends = data["backends"]
    heads = [f"{b}, batch {n}" for b in backends for n in BATCHES]
    noise = (
        ""
        if data["neighbours"]["quiet"]
        else (f"; other processes took {data['neighbours']['share']:.0%} of the cores meanwhile")
    )
    lines = [
        f"### {data['generator']}, {data['threads']} thread(s){noise}",
        "",
        "| rung | size | " + " | ".join(heads) + " | worst PSNR | mean | worst SSIM | levels | latents, where |",
        "|---|---:|" + "---:|" * (len(heads) + 4) + "---|",
    ]
    for rung in data["rungs"]:
        cells = [cell for b in backends for cell in _times(rung["name"], backends[b])]
        quality = rung["quality"]
        shown = [
            f"{quality[key]:{form}}{unit}" if key in quality else ""
            for key, form, unit in (
                ("psnr_db", ".1f", " dB"),
                ("mean_psnr_db", ".1f", " dB"),
                ("ssim", ".4f", ""),
                ("max_uint8", ".0f", ""),
            )
        ]
        share = rung["int8_share"]
        label = rung["name"] if share is None else f"{rung['name']} ({share:.0%} of the multiplications)"
        proven = f"{rung['latents']:,}, {rung['proven_by']}"
        lines.append("| " + " | ".join([label, size_text(rung["size_bytes"]), *cells, *shown, proven]) + " |")
    for backend, found in backends.items():
        lines += [f"\n{name} is not run on {backend}: {why}" for name, why in found["not_run"].items()]
    return "\n".join(lines)


def _times(name: str, backend: dict[str, Any]) -> list[str]:
    times = backend["times"].get(name)
    if times is None:
        return ["–"] * len(BATCHES)
    found = [times[str(batch)] for batch in BATCHES]
    return [f"{t['ms']:.2f}" + ("" if name == "fp32" else f" ({t['ratio']['median']:.2f}×)") for t in found]


def write_tables() -> None:
    parts = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("precision-*.json"))]
    tables = [table_of(data) for data in parts]
    text = "\n\n".join(["# What precisions cost and give", ABOUT, *tables]) + "\n"
    write_atomically(RESULTS / "precision.md", text.encode())
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} has no place for the tables: {BEGIN} and {END}")
    page = f"{before}{BEGIN}\n\n" + "\n\n".join([ABOUT, *tables]) + f"\n\n{END}{after}"
    write_atomically(PAGE, page.encode())
    print(f"written: {RESULTS / 'precision.md'}, {PAGE}")


def main() -> int:
    options = parser(__doc__, rounds=7, seconds=1.4)
    options.add_argument("bundles", nargs="*", type=Path, metavar="NAME.gan", help="(default: the demo's)")
    options.add_argument("--rungs", nargs="+", default=list(RUNGS), help=f"(default: {' '.join(RUNGS)})")
    options.add_argument("--latents", type=int, help="of the proof of rungs that are made here (default: thousands)")
    options.add_argument("--threads", type=int, default=usable_cores(), help="compute threads (default %(default)s)")
    options.add_argument("--prepare", action="store_true", help="make what is measured, and measure nothing")
    chosen = options.parse_args()
    if chosen.output is not None and len(chosen.bundles) != 1:
        raise SystemExit("--output takes the figures of one bundle: name one")
    paths = chosen.bundles or [trained_bundle(data) for data in DEMOS]
    if chosen.prepare:
        for path in paths:
            print(f"ready: {with_rungs(read_bundle(path), chosen.rungs, chosen.latents).path}")
        return 0
    code = max(measure_bundle(path, chosen) for path in paths)
    if chosen.output is None:
        write_tables()
    return code


if __name__ == "__main__":
    run(main)
