"""An evaluation for people, and for programs."""

from __future__ import annotations

from typing import Any

from ganexport.evaluation.evaluation import Evaluation
from ganexport.tables import table
from gantrain.metrics.table import Figure


def text_from_evaluation(found: Evaluation) -> str:
    request = found.request
    last = request.first + request.samples - 1
    lines = [
        f"{found.label}: {found.where}",
        f"generated  {request.samples:,} samples, seed {request.seed}, indices {request.first} to {last}",
        f"real       {found.real}",
    ]
    if found.accuracy:
        told = ", ".join(f"{name} {share:.1%}" for name, share in found.accuracy.items())
        lines.append(f"judge      tells of images it was not fitted to: {told}")
    rows = [[f.name, _value(f), f.better, _counts(f), f.features] for f in found.scores.figures]
    lines += ["", table(rows, ["figure", "value", "better", "real, made", "feature space"], frozenset({1, 3}))]
    for figure in found.scores.figures:
        if figure.parts and figure.name != "modes_found":
            parts = ", ".join(f"{name} {value:.3g}" for name, value in figure.parts.items())
            lines += ["", f"{figure.name}: {parts}"]
    for name, reason in found.scores.skipped.items():
        lines += ["", f"no {name}: {reason}"] if name == next(iter(found.scores.skipped)) else [f"no {name}: {reason}"]
    return "\n".join(lines)


def _counts(figure: Figure) -> str:
    real, made = figure.samples
    return f"{real:,}, {made:,}" if real else f"{made:,}"


def _value(figure: Figure) -> str:
    if figure.name == "modes_found":
        return f"{figure.value:.0f} of {figure.parts['modes']:.0f}"
    if figure.name == "dropped_classes":
        return f"{figure.value:.0f}"
    return f"{figure.value:.4g}" if abs(figure.value) >= 1e-3 or figure.value == 0 else f"{figure.value:.2e}"


def json_from_evaluation(found: Evaluation) -> dict[str, Any]:
    request = found.request
    return {
        "generator": found.label,
        "where": found.where,
        "data": found.data,
        "real": found.real,
        "seed": request.seed,
        "first": request.first,
        "samples": request.samples,
        "judge_accuracy": dict(found.accuracy),
        "figures": [
            {
                "name": f.name,
                "value": f.value,
                "features": f.features,
                "better": f.better,
                "real_samples": f.samples[0],
                "samples": f.samples[1],
                "parts": dict(f.parts),
            }
            for f in found.scores.figures
        ],
        "skipped": dict(found.scores.skipped),
        "nearest_to_train": [
            {
                "seed": request.seed,
                "index": pair.index,
                "distance_train": pair.distance_train,
                "distance_held_out": pair.distance_held_out,
            }
            for pair in found.pairs
        ],
    }
