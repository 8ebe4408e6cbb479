"""The summary of the standard set: for each generator and batch size the best of everybody; each aim, met or missed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from standard_cases import FLOOR_PSNR_DB, OBJECTIVES, OVER_PLAIN, UNTUNED, Case
from torch.utils.flop_counter import FlopCounterMode

from ganexport.benchmark.environment import lines_from_environment
from ganexport.benchmark.result import BenchResult
from ganexport.source import Source
from ganruntime.errors import BackendError

# Those that ours is to be faster than; eager PyTorch and its variants are what ratios are taken to.
_PLAIN = ("torch_compile", "torch_compile_scaled", "onnxruntime", "openvino")
_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def gigaflops(source: Source) -> float:
    """10⁹ operations of the network for one image as it is written, a multiplication and an addition being two;
    convolutions and matrix products alone. A grouped or a scaled convolution has as many."""
    counter = FlopCounterMode(display=False)
    (latent,) = source.spec.inputs
    with torch.inference_mode(), counter:
        source.module(torch.zeros(2, *latent.shape))
    return counter.get_total_flops() / 2 / 1e9


def record_from_result(
    case: Case, result: BenchResult, peaks: Mapping[str, float], commands: Sequence[str], flops: float
) -> dict[str, Any]:
    """What stands in standard.json of one generator."""
    rows = [row for batch in result.offline for row in _rows(result, batch)]
    return {
        "generator": case.name,
        "commands": list(commands),
        "time_utc": result.environment["time_utc"],
        "environment": lines_from_environment(dict(result.environment)),
        "peaks": dict(peaks),
        "gigaflops_per_image": flops,
        "rows": rows,
        "aims": _aims(case, result, rows),
        "tuning": tuning_rows(result),
        "failed": [a.label for a in result.absent.values() if a.failed],
        "flags": result.flags,
        "neighbours": {"share": result.neighbours.share, "quiet": result.neighbours.quiet},
    }


def _rows(result: BenchResult, batch: int) -> list[dict[str, Any]]:
    """One for each precision that ours was measured in: our fastest, and the fastest without this project that is as
    exact: of fp32 in fp32, and below it of all whose worst image keeps the floor."""
    by_name = result.offline[batch]
    rows = []
    for precision in _PRECISIONS:
        ours = _fastest(result, batch, [n for n in by_name if _is_ours(result, n, precision)])
        if ours is None:
            continue
        plain = _fastest(result, batch, [n for n in by_name if _is_plain(result, n, precision)])
        ms = by_name[ours].batch_ms.median
        rows.append(
            {
                "batch": batch,
                "precision": precision,
                "ours": ours,
                "ours_label": result.label(ours),
                "ours_ms": ms,
                "psnr_db": result.psnr_db(ours),
                "ratio": by_name[ours].ratio.median,
                "ratio_quartiles": [by_name[ours].ratio.low, by_name[ours].ratio.high],
                "plain": plain,
                "plain_label": plain and result.label(plain),
                "plain_ms": plain and by_name[plain].batch_ms.median,
                "over_plain": plain and by_name[ours].times_as_fast(by_name[plain]),
            }
        )
    return rows


def tuning_rows(result: BenchResult) -> list[dict[str, Any]]:
    """What `ganexport tune` picked for each objective, at the batch size that it is about, beside an untuned load."""
    rows = []
    for objective, batch in zip(OBJECTIVES, (max(result.offline), min(result.offline)), strict=True):
        by_name, name = result.offline[batch], f"ganruntime-tuned-{objective}"
        if name not in by_name or UNTUNED not in by_name:
            continue
        tuned, untuned = by_name[name], by_name[UNTUNED]
        rows.append(
            {
                "objective": objective,
                "batch": batch,
                "picked": result.contenders[name]["setting"],
                "psnr_db": result.psnr_db(name),
                "tuned_ms": tuned.batch_ms.median,
                "untuned_ms": untuned.batch_ms.median,
                "over_untuned": tuned.times_as_fast(untuned),
            }
        )
    return rows


def _is_ours(result: BenchResult, name: str, precision: str) -> bool:
    about = result.contenders[name]
    return about["family"] == "ours" and about["precision"] == precision


def _is_plain(result: BenchResult, name: str, precision: str) -> bool:
    if not name.startswith(_PLAIN):
        return False
    if result.contenders[name]["precision"] == "fp32":
        return True
    quality = result.psnr_db(name)
    return precision != "fp32" and quality is not None and quality >= FLOOR_PSNR_DB


def _fastest(result: BenchResult, batch: int, names: Sequence[str]) -> str | None:
    return min(names, key=lambda name: result.offline[batch][name].batch_ms.median, default=None)


def _aims(case: Case, result: BenchResult, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    aims = []
    for aim in case.aims:
        fitting = [r for r in rows if r["batch"] == aim.batch and aim.precision in (None, r["precision"])]
        held = [r for r in fitting if r["precision"] == "fp32" or (r["psnr_db"] or 0.0) >= FLOOR_PSNR_DB]
        best = max((r["ratio"] for r in held), default=0.0)
        what = f"batch {aim.batch}, {aim.precision or 'any precision'}: over eager PyTorch"
        aims.append({"what": what, "aim": aim.ratio, "reached": best, "met": best >= aim.ratio})
    for row in rows:
        if row["over_plain"] is None:
            raise BackendError(f"{case.name}: nothing without this project was measured at batch {row['batch']}")
        what = f"batch {row['batch']}, {row['precision']}: over {row['plain_label']}"
        reached = row["over_plain"]
        aims.append({"what": what, "aim": OVER_PLAIN, "reached": reached, "met": reached >= OVER_PLAIN})
    return aims


def _tuning_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(record.get("tuning") for record in records):
        return []
    lines = [
        "",
        "## Tuning",
        "",
        f"What `ganexport tune --floor psnr={FLOOR_PSNR_DB}` picked, and what `ganruntime.load` runs without it: "
        f"{UNTUNED.removeprefix('ganruntime:').replace('@', ' on ')}, all threads. Both were measured in the run "
        "of the table above, apart from the tuning itself.",
        "",
        "| generator | tuned for | picked | batch | ms a batch | untuned, ms | over untuned | worst PSNR |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for record in records:
        for row in record.get("tuning", ()):
            picked = re.sub(r" numpy [0-9.]+|, buckets .*", "", row["picked"])
            psnr = "" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB"
            lines.append(
                f"| {record['generator']} | {row['objective']} | {picked} | {row['batch']} | {row['tuned_ms']:.3g} | "
                f"{row['untuned_ms']:.3g} | {row['over_untuned']:.2f}× | {psnr} |"
            )
    return lines


def _peaks_in_words(peaks: Mapping[str, float]) -> str:
    if not peaks:
        return "The rate of PyTorch's own large matrix products was not measured. "
    rates = ", ".join(f"{name} {value:,.0f}" for name, value in peaks.items())
    return (
        "*At PyTorch's rate* is what the network's products as it is written would take at the rate of PyTorch's own "
        f"large matrix products here ({rates}, in 10⁹ operations a second): better kernels, or a form with fewer "
        "products, can be below it. "
    )


def markdown_from_records(records: Sequence[Mapping[str, Any]], suffix: str = "") -> str:
    """The page of all of them. suffix: of the files' names."""
    # A neighbour only ever makes a peak lower.
    peaks = {
        p: max(r["peaks"].get(p, 0.0) for r in records) for p in _PRECISIONS if any(p in r["peaks"] for r in records)
    }
    lines = ["# The standard set", ""]
    busy = [r["generator"] for r in records if not r["neighbours"]["quiet"]]
    if busy:
        lines += [f"> **Other processes took part of the cores while these were measured: {', '.join(busy)}.**", ""]
    lines += [
        "Ratios are over eager PyTorch as it is written, in the same interleaved run (of all threads and of one thread "
        "the faster); *best plain* is the fastest of torch.compile, ONNX Runtime and OpenVINO without this project "
        f"that is as exact: in fp32, or, for rows below it, with {FLOOR_PSNR_DB} dB in the worst image. "
        + _peaks_in_words(peaks)
        + "A page for each generator: "
        + ", ".join(f"[{r['generator']}](standard-{r['generator']}{suffix}.md)" for r in records)
        + ".",
        "",
        "| generator | batch | precision | ours | ms a batch | over eager | best plain | ms a batch | over plain | "
        "at PyTorch's rate, ms | worst PSNR |",
        "|---|---:|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for record in records:
        for row in record["rows"]:
            psnr = "" if row["precision"] == "fp32" or row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB"
            peak = peaks.get(row["precision"])
            bound = f"{1e3 * record['gigaflops_per_image'] * row['batch'] / peak:.3g}" if peak else ""
            ours = f"{row['ours_label']} | {row['ours_ms']:.3g} | {row['ratio']:.2f}×"
            plain = f"{row['plain_label'] or ''} | {row['plain_ms'] or 0:.3g} | {row['over_plain'] or 0:.2f}×"
            lines.append(
                f"| {record['generator']} | {row['batch']} | {row['precision']} | {ours} | {plain} | {bound} | {psnr} |"
            )
    lines += ["", "## Aims", "", "| generator | aim | reached | |", "|---|---|---:|---|"]
    for record in records:
        for aim in record["aims"]:
            verdict = "met" if aim["met"] else "**missed**"
            reached = f"{aim['reached']:.2f}×" if aim["reached"] else "not measured"
            lines.append(f"| {record['generator']} | {aim['what']}: {aim['aim']:g}× | {reached} | {verdict} |")
    lines += _tuning_lines(records)
    lines += ["", "## How the bundles were made", ""]
    for record in records:
        lines += ["```sh", *record["commands"], "```", ""]
    lines += ["## Environment", ""]
    times: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        times.setdefault(tuple(record["environment"]), []).append(f"{record['generator']} {record['time_utc']}")
    for environment, generators in times.items():
        lines += [*(f"- {line}" for line in environment), f"- {'; '.join(generators)}", ""]
    return "\n".join(lines).rstrip() + "\n"
