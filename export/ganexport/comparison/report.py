"""The report of a comparison: figures for people, and for programs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from ganexport.comparison.comparison import Comparison, OutputComparison
from ganexport.comparison.side import BundleSide, Side
from ganexport.parity import PSNR_CAP_DB
from ganexport.tables import table
from ganruntime.spec import Image, Label, Latent, Noise, Scalar


def text_from_comparisons(comparisons: Sequence[Comparison], a: Side, b: Side) -> str:
    """The comparison of two sides, at each of its sizes where height and width vary."""
    found = comparisons[0]
    lines = [
        f"A  {found.label_a}: {found.where_a}",
        f"B  {found.label_b}: {found.where_b}",
        *(["images as levels of 255, for a side gives pixels"] if found.in_levels else []),
    ]
    for comparison in comparisons:
        if comparison.size is not None:
            lines += ["", comparison.size_label]
        lines += _at_one_size(comparison, a, b)
    return "\n".join(lines)


def _at_one_size(comparison: Comparison, a: Side, b: Side) -> list[str]:
    last = comparison.first + comparison.latents - 1
    lines = [
        f"{comparison.latents:,} latents, seed {comparison.seed}, indices {comparison.first} to {last}",
        "",
    ]
    columns = [_figures(output) for output in comparison.outputs]
    rows = [
        [name, *(column.get(name, "") for column in columns)] for name in dict.fromkeys(k for c in columns for k in c)
    ]
    header = ["", *(output.tensor.name for output in comparison.outputs)]
    lines.append(table(rows, header, frozenset(range(1, len(header)))))
    for output in comparison.outputs:
        lines += ["", *_worst(comparison, output)]
    return [*lines, *_draw_again(comparison, a, b)]


def _figures(output: OutputComparison) -> dict[str, str]:
    errors, quality = output.errors, output.quality
    figures = {
        "largest error": f"{errors.max_abs:.3g}",
        "mean error": f"{errors.mean_abs:.3g}",
        "worst PSNR": _decibels(errors.psnr_db),
        "mean PSNR": _decibels(quality.mean_psnr_db),
    }
    if quality.ssim is not None and quality.mean_ssim is not None:
        figures |= {"worst SSIM": f"{quality.ssim:.4f}", "mean SSIM": f"{quality.mean_ssim:.4f}"}
    if isinstance(output.tensor.role, Image):
        figures |= {
            "largest pixel difference": f"{errors.max_uint8:.0f} of 255",
            "pixel values that differ": f"{errors.share_uint8:.2%}",
        }
    figures |= {
        "spread of A over latents": f"{output.spread_a:.4g}",
        "spread of B": f"{output.spread_b:.4g}",
        "spread of B over A": f"{errors.diversity:.3f}",
    }
    if not errors.finite:
        figures["finite"] = "NO"
    return figures


def _decibels(value: float) -> str:
    return "equal" if value >= PSNR_CAP_DB else f"{value:.1f} dB"


def _worst(comparison: Comparison, output: OutputComparison) -> list[str]:
    cases = [case for case in output.worst if case.psnr_db < PSNR_CAP_DB]
    if not cases:
        return [f"{output.tensor.name}: equal for every latent"]
    rows = [[str(comparison.seed), str(case.index), _decibels(case.psnr_db), f"{case.max_abs:.3g}"] for case in cases]
    header = ["seed", "index", "PSNR", "largest error"]
    return [f"{output.tensor.name}, the worst:", table(rows, header, frozenset(range(4)))]


def _draw_again(comparison: Comparison, a: Side, b: Side) -> list[str]:
    """The commands that draw the worst case of the first image, from each bundle."""
    worst = next((o.worst[0] for o in comparison.outputs if isinstance(o.tensor.role, Image) and o.worst), None)
    drawn = all(isinstance(t.role, (Latent, Noise, Label, Scalar)) for t in a.spec.inputs)
    if worst is None or worst.psnr_db >= PSNR_CAP_DB or not drawn:
        return []
    words = ["-n", "1", "--seed", str(comparison.seed), "--first", str(worst.index)]
    lines = []
    for name, side in (("a", a), ("b", b)):
        if isinstance(side, BundleSide):
            backend = ["--backend", "tensorrt"] if side.variant.format == "tensorrt" else []
            command = ["ganexport", "generate", str(side.bundle.path), "--precision", side.variant.name, *backend]
            lines.append(f"draw {name.upper()} again: {shlex.join([*command, *words, '-o', f'{name}.png'])}")
    return ["", *lines] if lines else []


def json_from_comparisons(
    comparisons: Sequence[Comparison], problems: list[str], picture: str | None
) -> dict[str, Any]:
    """One object; where height and width vary, with a list `sizes` of what else there is, in place of it."""
    said = [_json(comparison) for comparison in comparisons]
    end = {"problems": problems, "picture": picture}
    if comparisons[0].size is None:
        return said[0] | end
    shared = ("a", "b", "seed", "first", "in_levels")
    return {
        **{key: said[0][key] for key in shared},
        "sizes": [
            {"size": comparison.size, **{key: value for key, value in one.items() if key not in shared}}
            for comparison, one in zip(comparisons, said, strict=True)
        ],
    } | end


def _json(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": {"name": comparison.label_a, "where": comparison.where_a},
        "b": {"name": comparison.label_b, "where": comparison.where_b},
        "seed": comparison.seed,
        "first": comparison.first,
        "latents": comparison.latents,
        "in_levels": comparison.in_levels,
        "outputs": {output.tensor.name: _output_json(comparison, output) for output in comparison.outputs},
    }


def _output_json(comparison: Comparison, output: OutputComparison) -> dict[str, Any]:
    errors, quality = output.errors, output.quality
    role = output.tensor.role
    return {
        "range": list(role.range) if isinstance(role, Image) else None,
        "max_abs": _finite(errors.max_abs),
        "mean_abs": _finite(errors.mean_abs),
        "psnr_db": errors.psnr_db,
        "mean_psnr_db": quality.mean_psnr_db,
        "ssim": quality.ssim,
        "mean_ssim": quality.mean_ssim,
        "max_uint8": int(errors.max_uint8) if isinstance(role, Image) else None,
        "share_uint8": errors.share_uint8 if isinstance(role, Image) else None,
        "spread_a": output.spread_a,
        "spread_b": output.spread_b,
        "diversity": errors.diversity,
        "finite": bool(errors.finite),
        "worst_error_index": errors.worst_sample,
        "worst": [
            {
                "seed": comparison.seed,
                "index": case.index,
                "psnr_db": case.psnr_db,
                "max_abs": _finite(case.max_abs),
            }
            for case in output.worst
        ],
    }


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
