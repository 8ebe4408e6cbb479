"""The page of a run, `index.html` in its folder: where it stands, what is wrong, its curves, and what it drew.

Nothing in it comes from anywhere else, but for the sample sheets beside it. While the run goes on, a browser loads it
again every few seconds; the page of a run that was killed cannot know, and says by itself how old it is.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ganruntime.files import write_atomically
from gantrain import curves
from gantrain.curves import Curve, chart, number
from gantrain.diagnosis import Diagnosis, Finding
from gantrain.history import History
from gantrain.page_parts import card, code, figure, html_table, page, section, tiles
from gantrain.progress import duration
from gantrain.run_folder import RunRecord, checkpoint_of, sample_sheets

PAGE_FILE = "index.html"
REFRESH_SECONDS = 10
_EARLY = (0, 100, 300, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000)
_SHEETS = 12

# state -> what it is called, and the class of its colour
STATES = {
    "running": ("running", "warn"),
    "ended": ("ended", "good"),
    "interrupted": ("interrupted", "warn"),
    "failed": ("failed", "bad"),
}


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    state: a name of `STATES`. words: of an interruption or a failure, what came.
    step, steps: made, and asked for.
    best: step, name and value of the best score; None before the first.
    guess: D's score where it guesses, of losses that have such a value.
    """

    state: str
    step: int
    steps: int
    words: str = ""
    best: tuple[int, str, float] | None = None
    guess: float | None = None


def write_page(run: Path, record: RunRecord, standing: Standing, history: History, diagnosis: Diagnosis) -> None:
    """Writes index.html, whole or not at all. Raises `OutputError`."""
    html = html_of(run, record, standing, history, diagnosis, time.time())
    write_atomically(run / PAGE_FILE, html.encode())


def html_of(
    run: Path, record: RunRecord, standing: Standing, history: History, diagnosis: Diagnosis, now: float
) -> str:
    """The whole page as it is at `now`, in seconds since 1970."""
    title = f"{record.recipe} on {record.data.get('name', 'data')}"
    body = [
        _header(run, record, standing, history, title, now),
        _diagnosis(diagnosis),
        _curves(standing, history),
        _scores(standing, history),
        _sheets(run, standing),
        _settings(run, record, standing),
        f"<footer>{escape(str(run.resolve()))} · ganexport {escape(record.versions.get('ganexport', ''))}, torch "
        f"{escape(record.versions.get('torch', ''))} · written {_clock(now)}</footer>",
    ]
    running = standing.state == "running"
    return page(
        f"{title}: {standing.state}",
        "\n".join(body) + (_AGE if running else ""),
        style=curves.STYLE + _STYLE,
        refresh_seconds=REFRESH_SECONDS if running else None,
    )


def _header(run: Path, record: RunRecord, standing: Standing, history: History, title: str, now: float) -> str:
    word, kind = STATES[standing.state]
    last = history.last
    share = standing.step / max(1, standing.steps)
    timing: Mapping[str, Any] = last.get("timing", {})
    seconds = float(timing.get("seconds", 0.0))
    left = (standing.steps - standing.step) * seconds / standing.step if standing.step else 0.0
    times = f"{duration(seconds)} trained" + (
        f", about {duration(left)} left" if standing.state == "running" and standing.step else ""
    )
    age = f'<span id="age" data-written="{now:.0f}"></span>' if standing.state == "running" else ""
    items = [(f"{standing.step:,}", f"of {standing.steps:,} steps", "")]
    if last:
        items += [
            (_short(last.get("loss_d")), "loss of D", ""),
            (_short(last.get("loss_g")), "loss of G", ""),
            (_percent(last.get("d_accuracy")), "of its samples D tells rightly", ""),
            (_percent(last.get("diversity")), "of the data's variety in a batch", ""),
            (_short(timing.get("images_per_second")), "images a second", ""),
        ]
    if standing.best is not None:
        step, key, value = standing.best
        items.append((_short(value), f"best {key.partition('[')[0]}, at step {step:,}", "good"))
    words = f'<p class="words">{escape(standing.words)}</p>' if standing.words else ""
    return (
        f'<header><p class="kicker">{escape(run.resolve().name)} · seed {record.seed} · {escape(record.device)}</p>'
        f'<h1>{escape(title)} <span class="pill {kind}">{word}</span></h1>'
        f'<p class="sub">{times}{age}</p>{words}'
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}"><div style="width:{100 * share:.2f}%">'
        f"</div></div>{tiles(items)}</header>"
    )


def _diagnosis(diagnosis: Diagnosis) -> str:
    notes = "".join(_note(finding, "bad") for finding in diagnosis.now)
    if not notes:
        notes = '<div class="note good">Nothing in the log looks wrong.</div>'
    past = "".join(
        f"<li>step {finding.step:,} to {ended:,}: {escape(finding.title.lower())}. {escape(finding.what)}</li>"
        for finding, ended in diagnosis.past
    )
    if past:
        notes += f'<details><summary>What has passed</summary><div class="small"><ul>{past}</ul></div></details>'
    return section("diagnosis", "Diagnosis", "", notes)


def _note(finding: Finding, kind: str) -> str:
    remedies = "".join(f"<li>{_with_code(remedy)}</li>" for remedy in finding.remedies)
    return (
        f'<div class="note {kind}"><b>{escape(finding.title)}</b> (since step {finding.step:,}): {escape(finding.what)}'
        f"<p>What to try, in a new run:</p><ul>{remedies}</ul></div>"
    )


def _with_code(text: str) -> str:
    """Escaped text with settings set off as code."""
    words = escape(text).split(" ")
    parts, k = [], 0
    while k < len(words):
        if words[k] == "--set" and k + 1 < len(words):
            value = words[k + 1].rstrip(",.;")
            parts.append(f"<code>--set {value}</code>{words[k + 1][len(value) :]}")
            k += 2
        else:
            parts.append(words[k])
            k += 1
    return " ".join(parts)


def _curves(standing: Standing, history: History) -> str:
    def of(name: str, text: str) -> Curve:
        return Curve(text, *history.column(name))

    n = standing.steps
    guess = None if standing.guess is None else (standing.guess, "where D guesses")
    probabilities = [history.column(name)[1] for name in ("d_real", "d_fake")]
    shares = all(((v >= 0) & (v <= 1)).all() for v in probabilities)
    low, high = (0.0, 1.0) if shares else (None, None)
    charts = [
        ("Losses", chart([of("loss_d", "discriminator"), of("loss_g", "generator")], n)),
        (
            "Accuracy of the discriminator",
            chart([of("d_accuracy", "told rightly")], n, least=0.0, most=1.0, mark=(0.5, "guessing")),
        ),
        (
            "What the discriminator gives",
            chart([of("d_real", "D(x)"), of("d_fake", "D(G(z))")], n, least=low, most=high),
        ),
        ("Score of the discriminator: minus its loss", chart([of("d_score", "D score")], n, mark=guess)),
        (
            "Norms of the gradients",
            chart([of("gradient_d", "discriminator"), of("gradient_g", "generator")], n, logarithmic=True),
        ),
        (
            "Variety of a generated batch",
            chart([of("diversity", "share of the data's")], n, least=0.0, most=1.0, mark=(1.0, "as the data")),
        ),
    ]
    cards = "".join(card(svg, title) for title, svg in charts if svg)
    return section("curves", "Curves", "", f'<div class="two">{cards}</div>') if cards else ""


def _scores(standing: Standing, history: History) -> str:
    if not history.figures:
        return ""
    best_step = None if standing.best is None else standing.best[0]
    cards = []
    for key in history.figures:
        name = key.partition("[")[0].replace("_", " ")
        decides = standing.best is not None and key == standing.best[1]
        svg = chart(
            [Curve(name, *history.figure(key))],
            standing.steps,
            best_step=best_step if decides else None,
            dots=True,
            width=360,
        )
        if svg:
            cards.append(card(svg, name))
    space = next(iter(history.figures)).partition("[")[2].rstrip("]")
    words = (
        f"Of the averaged generator, on the same latents each time, in the feature space <code>{escape(space)}</code>. "
        "Figures of another space, or of other numbers of samples, do not compare."
    )
    if standing.best is not None:
        words += f" The best by {escape(standing.best[1].partition('[')[0])} is kept as <code>best/</code>."
    return section("metrics", "Metrics", words, f'<div class="three">{"".join(cards)}</div>')


def _sheets(run: Path, standing: Standing) -> str:
    sheets = {step: path for step, path in sample_sheets(run).items() if step <= standing.step}
    if not sheets:
        return ""
    last = max(sheets)
    shown = "".join(
        figure(_sheet(run, sheets[step]), f"step {step:,}") for step in _chosen(list(sheets)) if step != last
    )
    large = card(figure(_sheet(run, sheets[last]), f"step {last:,}: the first samples of the run's seed"))
    grid = f'<div class="sheets">{shown}</div>' if shown else ""
    return section("samples", "Samples", "The same latents each time, by the averaged generator.", large, grid)


def _sheet(run: Path, path: Path) -> str:
    name = path.relative_to(run).as_posix()
    return f'<a href="{name}"><img class="sheet" src="{name}" alt="samples of {path.stem}" loading="lazy"></a>'


def _chosen(steps: Sequence[int]) -> list[int]:
    """At most `_SHEETS` of the steps, those that everybody looks for among them, the others spread evenly."""
    if len(steps) <= _SHEETS:
        return list(steps)
    kept = {step for step in steps if step in _EARLY}
    kept = set(sorted(kept)[: _SHEETS - 1]) | {steps[-1]}
    others = [step for step in steps if step not in kept]
    room = _SHEETS - len(kept)
    kept |= {others[round((k + 1) * len(others) / (room + 1)) - 1] for k in range(room)}
    return sorted(kept)


def _settings(run: Path, record: RunRecord, standing: Standing) -> str:
    at = shlex.quote(str(run))
    words = [f"ganexport evaluate {at}", f"ganexport to-onnx {at} -o {shlex.quote(run.name)}.gan"]
    if standing.best is not None:
        words.append(f"ganexport to-onnx {at}/best -o {shlex.quote(run.name)}.gan    # step {standing.best[0]}")
    if standing.step < standing.steps or standing.state == "ended":
        more = "" if standing.state != "ended" else f" --steps {2 * standing.steps}"
        words.append(f"ganexport train {record.recipe} --out {at} --resume{more}")
    if not checkpoint_of(run).exists():
        words = words[-1:]
    rows = [(key, str(value)) for key, value in record.settings.items()]
    table = html_table(("setting", "value"), rows)
    return section(
        "run",
        "The run",
        "",
        card(code(words), "What to do with it"),
        f'<details><summary>Settings</summary><div class="card">{table}</div></details>',
    )


def _short(value: Any) -> str:
    return "–" if value is None else number(value)


def _percent(value: Any) -> str:
    return "–" if value is None else f"{value:.0%}"


def _clock(now: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now)).strip()


# The only script: it tells a run that goes on from one that was killed, by the age of the page.
_AGE = """
<script>
const age = document.getElementById("age");
const show = () => {
  const seconds = Date.now() / 1000 - Number(age.dataset.written);
  if (seconds > 120) {
    const minutes = Math.round(seconds / 60);
    age.textContent = ` · no news for ${minutes} minutes: slow, paused, or killed`;
    age.className = "old";
  }
};
show();
setInterval(show, 5000);
</script>
"""

_STYLE = """
.pill { display: inline-block; vertical-align: middle; margin-left: 8px; padding: 4px 12px; border-radius: 99px; }
.pill { font-size: 13px; line-height: 1.5; font-weight: 600; letter-spacing: 0; }
.pill.good { background: var(--good-soft); color: var(--good); }
.pill.bad { background: var(--bad-soft); color: var(--bad); }
.pill.warn { background: var(--warn-soft); color: var(--accent); }
.bar { height: 6px; margin-top: 20px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar div { height: 100%; border-radius: 3px; background: var(--accent); }
.words { color: var(--bad); margin: 10px 0 0; white-space: pre-wrap; }
.old { color: var(--bad); }
.tiles { margin-top: 20px; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); }
.note p { margin: 8px 0 0; } .note ul { margin: 4px 0 0; padding-left: 1.3em; } .note code { white-space: nowrap; }
.three { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); }
.three .card { margin-top: 0; padding: 16px 18px; }
.sheets { display: grid; gap: 16px; margin-top: 20px; }
.sheets { grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); }
.sheets figcaption { margin-top: 6px; }
img.sheet { width: 100%; border-radius: 6px; image-rendering: pixelated; }
.card img.sheet { width: auto; max-height: 640px; margin: 0 auto; }
"""
