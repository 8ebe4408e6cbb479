"""Results for people: tables and notes for a terminal, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ganexport.benchmark.environment import lines_from_environment
from ganexport.benchmark.result import (
    OFFLINE_HEADER,
    SERVER_HEADER,
    STREAM_HEADER,
    BenchResult,
    offline_rows,
    ratio_text,
    server_rows,
    stream_rows,
)
from ganexport.parity import PSNR_CAP_DB
from ganexport.tables import table

QUALITY_HEADER = ["quality", "precision", "PSNR dB", "largest error", "levels"]


def quality_rows(result: BenchResult) -> list[list[str]]:
    """contender, precision, PSNR of the worst sample, the largest error in the output's own units and in levels."""
    rows = []
    for name, about in result.contenders.items():
        errors = [by_name[name] for by_name in result.agreement.values() if name in by_name]
        psnr_db = result.psnr_db(name)
        if not errors or psnr_db is None:
            continue
        largest = [e["max_abs"] for e in errors if "max_abs" in e]
        rows.append(
            [
                about["label"],
                about["precision"],
                "identical" if psnr_db >= PSNR_CAP_DB else f"{psnr_db:.1f}",
                f"{max(largest):.1e}" if largest else "–",
                f"{max(e['max_uint8'] for e in errors):.0f}",
            ]
        )
    return rows


def best_lines(result: BenchResult) -> list[str]:
    """At each batch size the fastest of ours over the fastest plain way, to float outputs, by their medians."""
    lines = []
    for batch, by_name in result.offline.items():
        rates = {n: f.images_per_second.median for n, f in by_name.items() if not n.startswith("ganruntime_uint8")}
        ours = [n for n in rates if result.contenders[n]["family"] == "ours"]
        plain = [n for n in rates if result.contenders[n]["family"] != "ours"]
        if not ours or not plain:
            continue
        best, beside = max(ours, key=rates.__getitem__), max(plain, key=rates.__getitem__)
        ratio = by_name[best].times_as_fast(by_name[beside])
        lines.append(
            f"batch {batch}: {result.label(best)} is {ratio_text(ratio)} as fast as "
            f"{result.label(beside)}, the fastest that is not ours"
        )
    return lines


def notes(result: BenchResult) -> list[str]:
    """What one has to know to read the tables."""
    lines = [
        f"ratio: how many times as fast as eager PyTorch (with its faster number of threads), round by round, median "
        f"of {result.rounds} interleaved rounds; quartiles are over the rounds",
        *(f"{c['label']}: {c['includes']} ({c['setting']})" for c in result.contenders.values()),
        f"outputs: fp32 at most {result.largest_error:.1e} apart, checked before anything was timed",
    ]
    gains = ", ".join(f"{result.label(name)} {ratio_text(check.gain)}" for name, check in result.repeats.items())
    slow = [result.label(name) for name, check in result.repeats.items() if not check.passed]
    verdict = f"NOT within 10 %: {', '.join(slow)}" if slow else "within 10 % of different ones, so nothing is cached"
    lines.append(f"one latent over and over (MLPerf TEST04): {verdict} ({gains})")
    return lines


def server_notes(result: BenchResult) -> list[str]:
    """The same for the table of the server scenario."""
    if not result.server:
        return []
    return [
        f"server: Poisson arrivals of single latents; requests/s: the highest rate at which 99 % were answered within "
        f"{result.slo_ms:g} ms of their scheduled time, found by doubling and bisection to 5 %, and confirmed on "
        f"arrivals of its own, whose figures these are",
        "confidence: that of all requests at this rate at most 1 % are late, if they were late independently of each "
        "other (binomial, one-sided); they are late in bursts, so it is an upper end",
        *(f"{found.label}: {found.includes}" for found in result.server.values()),
    ]


def absent_lines(result: BenchResult) -> list[str]:
    """Who was not measured, and why."""
    return [
        f"{found.label}: {'FAILED' if found.failed else 'not measured'}: {found.why}"
        for found in result.absent.values()
    ]


def text_from_result(result: BenchResult) -> str:
    """Tables and what they mean, for a terminal."""
    parts = [
        table(offline_rows(result), OFFLINE_HEADER, frozenset({0, 2, 3, 4, 5})),
        "",
        table(stream_rows(result), STREAM_HEADER, frozenset({1, 2, 3, 4, 5})),
        "",
        table(quality_rows(result), QUALITY_HEADER, frozenset({2, 3, 4})),
        "",
    ]
    if result.server:
        parts += [table(server_rows(result), SERVER_HEADER, frozenset(range(1, 9))), ""]
    return "\n".join(
        [
            *parts,
            *best_lines(result),
            *absent_lines(result),
            *notes(result),
            *server_notes(result),
            *lines_from_environment(dict(result.environment)),
            result.neighbours.sentence(),
            *(f"FLAGGED: {flag}" for flag in result.flags),
        ]
    )


def markdown_from_result(result: BenchResult, pictures: Sequence[str] = ()) -> str:
    """A page that says everything `bench.json` says but the single trials.

    Args:
        pictures: names of PNG files beside the page.
    """
    lines = [f"# {result.generator}", ""]
    if result.flags or not result.neighbours.quiet:
        warnings = [*result.flags, *([] if result.neighbours.quiet else [result.neighbours.sentence()])]
        lines += [*(f"> **{warning}**" for warning in warnings), ""]
    lines += [
        f"Bundle `{result.bundle}` (manifest SHA-256 `{result.bundle_manifest_sha256[:16]}…`), checkpoint "
        f"`{result.checkpoint}`, on {result.device} with {result.threads} thread(s); {result.seconds:g} s for each "
        f"contender and batch size, in {result.rounds} interleaved rounds.",
        "",
        *(f"![{name}]({name})" for name in pictures),
        *([""] if pictures else []),
        "## Offline",
        "",
        *_markdown_table(offline_rows(result), OFFLINE_HEADER, {0, 2, 3, 4, 5}),
        "",
        *(f"- {line}" for line in best_lines(result)),
        "",
        "## Single stream",
        "",
        *_markdown_table(stream_rows(result), STREAM_HEADER, {1, 2, 3, 4, 5}),
        "",
    ]
    if result.server:
        lines += [
            f"## Server, p99 within {result.slo_ms:g} ms",
            "",
            *_markdown_table(server_rows(result), SERVER_HEADER, set(range(1, 9))),
            "",
            *(f"- {line}" for line in server_notes(result)),
            "",
        ]
    lines += ["## Quality", "", *_markdown_table(quality_rows(result), QUALITY_HEADER, {2, 3, 4}), ""]
    if result.absent:
        lines += ["## Not measured", "", *(f"- {line}" for line in absent_lines(result)), ""]
    lines += ["## How to read this", "", *(f"- {line}" for line in notes(result)), ""]
    lines += ["## Environment", "", *(f"- {line}" for line in lines_from_environment(dict(result.environment)))]
    lines += [f"- {result.neighbours.sentence()}", f"- {result.environment['time_utc']}"]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]], header: Sequence[str], right: set[int]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if i in right else "---" for i in range(len(header))) + "|"
    return [line(header), rule, *(line(row) for row in rows)]
