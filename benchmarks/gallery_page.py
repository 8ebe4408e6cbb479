"""The page of the gallery: from its records to Markdown, below a line that the page's own words end with."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

MARK = "<!-- below this line: benchmarks/gallery.py -->"
_WIDTH = 120
# figure -> heading, decimals, whether it is a share
_COLUMNS = {
    "fid": ("FID ↓", 2, False),
    "precision": ("precision ↑", 2, False),
    "recall": ("recall ↑", 2, False),
    "density": ("density → 1", 2, False),
    "coverage": ("coverage ↑", 3, False),
    "conditional_accuracy": ("asked-for class ↑", 1, True),
    "modes_found": ("modes found ↑", 0, False),
    "high_quality": ("within 3σ ↑", 1, True),
    "on_curve": ("on a curve ↑", 1, True),
    "neighbour_ratio": ("neighbour ratio → 1", 2, False),
}
_NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")


def page_with(page: str, records: Sequence[dict[str, Any]]) -> str:
    """The page with the sections of these records in place of those below its mark."""
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise SystemExit(f"docs/gallery.md has no line {MARK}")
    lines = [head.rstrip(), "", MARK, ""]
    for data in dict.fromkeys(record["data"] for record in records):
        chosen = [record for record in records if record["data"] == data]
        lines += [f"## {data.capitalize()}", "", *_tables(chosen)]
        for record in chosen:
            lines += _section(record)
    return "\n".join(lines).rstrip() + "\n"


def _tables(records: Sequence[dict[str, Any]]) -> list[str]:
    """A table for each feature space: figures of two never stand in one."""
    lines = []
    for space in dict.fromkeys(_space(record) for record in records):
        chosen = [record for record in records if _space(record) == space]
        names = [name for name in _COLUMNS if any(_values(record, name) for record in chosen)]
        if space == "values":  # of toys: on a line or a point, a neighbour's ball says nothing
            names = [name for name in names if name not in _NEIGHBOURHOODS]
        judge = ", ".join(f"{name} {100 * share:.1f} %" for name, share in _judge(chosen).items())
        words = f"In the features `{space}`, against {chosen[0]['runs'][0]['real']}; {_samples(chosen[0])} generated."
        if judge:
            words += f" The judge's own accuracy on images that it was not fitted to: {judge}."
        lines += [
            *_paragraph(words),
            f"| | steps | CPU min | {' | '.join(_COLUMNS[name][0] for name in names)} |",
            f"|---|{'---|' * (len(names) + 2)}",
        ]
        for record in chosen:
            cells = [_cell(_values(record, name), *_COLUMNS[name][1:]) for name in names]
            seconds = [run["cpu_seconds"] for run in record["runs"] if run["cpu_seconds"] is not None]
            minutes = f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "–"
            head = f"[{record['name']}](#{record['name']})"
            lines.append(f"| {head} | {record['runs'][0]['steps']:,} | {minutes} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _section(record: dict[str, Any]) -> list[str]:
    name, runs = record["name"], record["runs"]
    variants = runs[0]["verify"]["variants"]
    worst = max(run["verify"]["variants"]["fp32"]["max_abs"] for run in runs)
    passed = all(run["verify"]["passed"] for run in runs)
    proof = variants["fp32"]
    seeds = f"seed {runs[0]['seed']}" if len(runs) == 1 else f"seeds {', '.join(str(run['seed']) for run in runs)}"
    lines = [f"### {name}", "", f"{record['shows']}", "", f"![{name}](gallery/{name}.png)", "", "```sh"]
    lines += [_wrapped(command) for command in runs[0]["commands"]]
    lines += ["```", ""]
    lines += _paragraph(
        f"{seeds.capitalize()}. `ganexport verify`: {'passed' if passed else 'FAILED'}, {proof['latents']:,} latents "
        f"in batches of {', '.join(map(str, proof['batches']))}, largest error {worst:.1g} (bound {proof['bound']:g}). "
        f"The record: [{name}.json](gallery/{name}.json)."
    )
    if record.get("neighbours"):
        lines += _paragraph("The generated images that are nearest to one of training, and what they are nearest to:")
        lines += [f"![nearest neighbours](gallery/{name}-neighbours.png)", ""]
    return lines


def _paragraph(words: str) -> list[str]:
    return [*textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False), ""]


def _wrapped(command: str) -> str:
    """A command on lines that a shell joins; an option and its value stay together."""
    parts: list[str] = []
    for word in command.split():
        if parts and parts[-1].startswith("--") and " " not in parts[-1] and not word.startswith("-"):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) + 3 > _WIDTH:
            lines.append(f"{line} \\")
            line = f"  {part}"
        else:
            line = f"{line} {part}" if line else part
    return "\n".join([*lines, line])


def _space(record: dict[str, Any]) -> str:
    return str(record["runs"][0]["figures"][0]["features"])


def _samples(record: dict[str, Any]) -> str:
    return f"{record['runs'][0]['figures'][0]['samples']:,}"


def _judge(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The judge's accuracy for what these were asked for; for all where nothing was asked for."""
    told: dict[str, float] = records[0]["runs"][0]["judge_accuracy"]
    asked = {record["runs"][0]["settings"]["label"] for record in records} - {""}
    return {name: share for name, share in told.items() if not asked or name in asked}


def _values(record: dict[str, Any], name: str) -> list[float]:
    return [figure["value"] for run in record["runs"] for figure in run["figures"] if figure["name"] == name]


def _cell(values: Sequence[float], decimals: int, share: bool) -> str:
    """A mean, with its standard error where there are several runs."""
    if not values:
        return "–"
    scale, unit = (100, " %") if share else (1, "")
    text = f"{scale * statistics.fmean(values):.{decimals}f}"
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        text += f" ± {scale * error:.{decimals + 1}f}"
    return text + unit
