"""The pieces of a self-contained HTML page: escaped text, figures, tables, and one style, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def figure(content: str, caption: str) -> str:
    """Content with a caption; the caption is HTML."""
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def card(content: str, title: str = "") -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{heading}{content}</div>'


def section(name: str, title: str, introduction: str, *content: str) -> str:
    """A section with an anchor; the introduction is HTML."""
    lead = f'<p class="lead">{introduction}</p>' if introduction else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{"".join(content)}</section>'


def tiles(items: Sequence[tuple[str, str, str]]) -> str:
    """Figures at a glance: (figure, what it is, a class such as `good`)."""
    cells = "".join(
        f'<div class="tile {kind}"><strong>{escape(value)}</strong><span>{escape(label)}</span></div>'
        for value, label, kind in items
    )
    return f'<div class="tiles">{cells}</div>'


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """A table that scrolls in itself where the page is narrow; cells are text."""

    def cells(tag: str, row: Sequence[str]) -> str:
        parts = []
        for i, cell in enumerate(row):
            kind = ' class="number"' if i in right else ""
            parts.append(f"<{tag}{kind}>{escape(cell)}</{tag}>")
        return "".join(parts)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def code(lines: Sequence[str]) -> str:
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"


def page(title: str, body: str, *, style: str = "", refresh_seconds: int | None = None) -> str:
    """The whole document: nothing in it comes from anywhere else.

    Args:
        style: CSS of this page alone, after that of all.
        refresh_seconds: after which a browser loads the page again; None for never.
    """
    refresh = "" if refresh_seconds is None else f'<meta http-equiv="refresh" content="{refresh_seconds}">\n'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{refresh}<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


# One accent, two greys, a scale of spaces of 4 px. Dark colours stand where the light ones do, and nowhere else.
_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --text: #1f2430; --faint: #5d6778; --line: #e4e7ec; --code: #f0f2f5;
  --accent: #c4601a; --good: #17703f; --bad: #b42318; --good-soft: #e6f4ec; --bad-soft: #fdecea; --warn-soft: #fdf3e7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1116; --card: #171a21; --text: #e6e9ef; --faint: #9aa3b2; --line: #2a2f3a; --code: #1f232c;
    --accent: #f0924c; --good: #6fcf97; --bad: #ff8a80; --good-soft: #16281f; --bad-soft: #331b1a; --warn-soft: #2d2318;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text); -webkit-text-size-adjust: 100%;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 56px 24px 72px; }
header p.kicker { margin: 0 0 4px; color: var(--accent); font-weight: 600; font-size: 14px; letter-spacing: .02em; }
h1 { margin: 0 0 8px; font-size: clamp(28px, 5vw, 40px); line-height: 1.15; }
h1 { letter-spacing: -.02em; font-weight: 700; text-wrap: balance; }
header p.sub { margin: 0; color: var(--faint); max-width: 68ch; }
section { margin-top: 56px; }
h2 { margin: 0 0 4px; font-size: 23px; line-height: 1.3; letter-spacing: -.01em; }
h3 { margin: 0 0 12px; font-size: 15px; font-weight: 600; }
p.lead { margin: 0 0 20px; color: var(--faint); max-width: 72ch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 20px 24px; margin-top: 20px; }
.two { display: grid; gap: 20px; margin-top: 20px; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.two .card { margin-top: 0; }
.card > :last-child { margin-bottom: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin-top: 28px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 15px; }
.tile strong { display: block; font-size: 22px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile strong { white-space: nowrap; }
.tile span { display: block; margin-top: 2px; color: var(--faint); font-size: 13px; line-height: 1.4; }
.tile.good strong { color: var(--good); } .tile.bad strong { color: var(--bad); }
.note { border-radius: 12px; padding: 14px 18px; margin-top: 20px; font-size: 15px; }
.note.good { background: var(--good-soft); } .note.bad { background: var(--bad-soft); }
.note.warn { background: var(--warn-soft); }
figure { margin: 0; }
figcaption { margin-top: 12px; color: var(--faint); font-size: 14px; line-height: 1.55; max-width: 76ch; }
img { display: block; max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
img.plot { width: 100%; border-radius: 4px; }
.row { display: grid; grid-template-columns: 5.5em 1fr; align-items: center; gap: 6px 14px; }
.row + .row { margin-top: 8px; }
.row span { color: var(--faint); font-size: 13px; text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 0 -4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 8px 12px 8px 4px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
ul.checks { list-style: none; margin: 0; padding: 0; }
ul.checks li { display: grid; grid-template-columns: 1.6em 1fr auto; gap: 0 8px; padding: 8px 0; }
ul.checks li { border-bottom: 1px solid var(--line); }
ul.checks li:last-child { border-bottom: 0; }
ul.checks b { font-weight: 700; } ul.checks .good b { color: var(--good); } ul.checks .bad b { color: var(--bad); }
ul.checks span:last-child { color: var(--faint); font-variant-numeric: tabular-nums; text-align: right; }
pre { margin: 0; padding: 14px 16px; background: var(--code); border-radius: 8px; overflow-x: auto; }
code { font: 13px/1.65 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
details { margin-top: 16px; } summary { cursor: pointer; color: var(--faint); font-size: 14px; }
details > * + * { margin-top: 12px; }
.small, .small p, .small li { font-size: 14px; color: var(--faint); } .small ul { margin: 0; padding-left: 1.2em; }
footer { margin-top: 64px; padding-top: 20px; border-top: 1px solid var(--line); color: var(--faint); font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 32px 16px 48px; } section { margin-top: 44px; }
  .card { padding: 16px; border-radius: 10px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tile strong { font-size: 20px; }
  img.plot { width: 640px; max-width: none; }
  .row { grid-template-columns: 1fr; } .row span { text-align: left; } .row + .row { margin-top: 14px; }
  ul.checks li { grid-template-columns: 1.6em 1fr; } ul.checks span:last-child { grid-column: 2; text-align: left; }
}
"""
