"""What `ganexport to-trt` prints: for people, and with --json for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganexport.tables import size_text, table
from ganexport.tensorrt.into_bundle import NewEngine
from ganexport.tensorrt.operator_support import text_from_version
from ganexport.tensorrt.options import BuildOptions, text_from_buckets
from ganexport.tensorrt.preflight import Preflight
from ganexport.tensorrt.readback import ReadBack
from ganruntime.bundle import EngineRecord, Verdict
from ganruntime.errors import GanError
from ganruntime.sizes import size_option

_ORDER = {"fails": 0, "wrong": 1, "caution": 2}
_MEANING = {
    "fails": "cannot be built",
    "wrong": "builds, and computes something else",
    "caution": "has gone wrong before, or is not documented",
}


def text_from_preflights(source: str, preflights: Sequence[Preflight], profiles: Sequence[str]) -> str:
    """A table of the operators with a column for each release, then each finding with its remedy and its source.

    Args:
        source: which graph was checked.
        profiles: those that an engine would have.
    """
    first = preflights[0]
    releases = [f"TensorRT {text_from_version(p.version)}" for p in preflights]
    nodes = sum(row.nodes for row in first.operators)
    lines = [f"{source}: opset {first.opset}, {nodes} nodes (table of operators of {first.table_read})"]
    lines += [f"profiles: {', '.join(profiles)}", ""]
    rows = [
        [row.operator, str(row.nodes), " ".join(row.types) or "-", *(p.operators[i].verdict for p in preflights)]
        for i, row in enumerate(first.operators)
    ]
    lines.append(table(rows, ["operator", "nodes", "types", *releases], right=frozenset({1})))
    for preflight, release in zip(preflights, releases, strict=True):
        lines.append("")
        for finding in sorted(preflight.findings, key=lambda f: _ORDER[f.severity]):
            lines += [
                f"{release}: {finding.severity} ({_MEANING[finding.severity]}): {finding.node}",
                f"  {finding.problem}",
                f"  remedy: {finding.remedy}",
                f"  source: {finding.source}",
            ]
        stopping = sum(f.stops for f in preflight.findings)
        lines.append(
            f"{release}: nothing in this graph is known to fail; only building the engine shows that it runs"
            if preflight.ok
            else f"{release}: {stopping} {'thing' if stopping == 1 else 'things'} must change first"
        )
    return "\n".join(lines)


def json_from_preflights(source: str, preflights: Sequence[Preflight], profiles: Sequence[str]) -> dict[str, Any]:
    return {
        "graph": source,
        "profiles": list(profiles),
        "ok": all(p.ok for p in preflights),
        "targets": [p.to_json() for p in preflights],
    }


def text_from_engine(path: Path, engine: NewEngine, verb: str = "built") -> str:
    """What was built, what its layers got, how it was proven, and where it runs."""
    built, record = engine.built, engine.variant.engine
    counts = ", ".join(f"{count} {name}" for name, count in engine.readback.counts().items())
    lines = [
        f"engine    {path / engine.variant.file}  {size_text(engine.size_bytes)}",
        f"{verb:<9} in {built.seconds:.0f} s by TensorRT {built.tensorrt_version} on {built.gpu.name} "
        f"(compute capability {built.gpu.compute_capability}, driver {built.gpu.driver_version})",
        f"profiles  {', '.join(str(p) for p in built.profiles)}",
        f"layers    {counts}",
        f"{engine.variant.status:<9} {_proof(engine.finding.verdict)}",
    ]
    if record is not None:
        lines.append(f"runs on   {_places(record)}")
        if record.stripped:
            lines.append("weights   none of its own: it takes the graph's at every load")
    return "\n".join(lines)


def json_from_engine(path: Path, engine: NewEngine) -> dict[str, Any]:
    built, record, verdict = engine.built, engine.variant.engine, engine.finding.verdict
    return {
        "ok": True,
        "variant": engine.variant.name,
        "file": str(path / engine.variant.file),
        "size_bytes": engine.size_bytes,
        "seconds": built.seconds,
        "precision": built.options.precision,
        "profiles": [str(p) for p in built.profiles],
        "engine": None if record is None else vars(record),
        "status": engine.variant.status,
        "proof": vars(verdict)
        | {
            "versions": dict(verdict.versions),
            "batches": list(verdict.batches),
            "errors": dict(verdict.errors),
        },
        "warnings": list(built.warnings),
        "layers": _layers(engine.readback, built.options),
    }


def json_from_refused(readback: ReadBack, options: BuildOptions, error: GanError) -> dict[str, Any]:
    """Of an engine that was built and is not kept."""
    return {
        "ok": False,
        "error": str(error),
        "precision": options.precision,
        "layers": _layers(readback, options),
    }


def _layers(readback: ReadBack, options: BuildOptions) -> list[dict[str, Any]]:
    """Of each layer what it was asked and what it got; `differs` is empty where that is one."""
    return [layer.to_json() | {"differs": sorted(layer.differs(options.tf32))} for layer in readback.layers]


def _proof(verdict: Verdict) -> str:
    errors = verdict.errors
    sizes = f" and sizes {size_option(verdict.sizes)}" if verdict.sizes else ""
    largest = max(value for key, value in errors.items() if key.endswith("max_abs"))
    levels = [value for key, value in errors.items() if key.endswith("max_uint8")]
    return (
        f"{verdict.latents} latents at batches {text_from_buckets(set(verdict.batches))}{sizes}: "
        f"largest error {largest:.2g} (bound {verdict.bound:.2g}), {max(levels, default=0.0):.0f} pixel levels"
    )


def _places(record: EngineRecord) -> str:
    version = f"TensorRT {record.tensorrt}" + (" or later, below 12" if record.version_compatible else "")
    gpu = f"compute capability {record.compute_capability}"
    return (
        version
        + ", "
        + {"none": gpu, "same-cc": f"any GPU of {gpu}", "ampere+": "compute capability 8.0 or later"}[
            record.hardware_compatibility
        ]
    )
