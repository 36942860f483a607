"""The page around an evaluation: its head, colours for light and dark, tables. Nothing is loaded from outside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #24252a; --dim: #6b6d76; --faint: #dedcd6; --bad: #b3261e; --best: #0b6e4f;
  --series-0: #2f6fdf; --series-1: #d9611c; --series-2: #0d8a6a; --series-3: #9c3fb5;
  --series-4: #b8860b; --series-5: #c2255c; --series-6: #4b5563; --series-7: #0b7fa5; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15161a; --card: #1d1f25; --ink: #e9e8e4; --dim: #9a9ca6; --faint: #363943; --bad: #ff8a80; --best: #6fd6a8;
  --series-0: #7fb0ff; --series-1: #ff9d66; --series-2: #4fd1a5; --series-3: #d48df0;
  --series-4: #e5bf52; --series-5: #ff7eaa; --series-6: #aab2c0; --series-7: #5cc7ea; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 12px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 22px 0 8px; }
p { margin: 0 0 10px; max-width: 76ch; }
.dim, figcaption, caption { color: var(--dim); }
.card { background: var(--card); border: 1px solid var(--faint); border-radius: 10px;
  padding: 16px 18px; margin: 0 0 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
caption { text-align: left; padding-bottom: 6px; font-size: 13px; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--faint); }
th { font-weight: 600; }
thead th { color: var(--dim); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
tbody tr:last-child > * { border-bottom: 0; }
td.best { color: var(--best); font-weight: 650; }
td.bad { color: var(--bad); }
.tag { color: var(--dim); font-weight: 400; font-size: 12px; margin-left: 6px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 8px; font-size: 13px; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); }
.trio { display: grid; grid-template-columns: 84px repeat(3, 1fr); gap: 8px; align-items: center; margin-bottom: 8px; }
.trio > span { font-size: 13px; white-space: nowrap; }
.trio img { width: 100%; height: 132px; display: block; border-radius: 5px; }
.trio.head { color: var(--dim); font-size: 13px; margin-bottom: 4px; }
details > summary { cursor: pointer; color: var(--dim); margin: 6px 0; }
footer { margin-top: 44px; color: var(--dim); font-size: 13px; }
@media print { .card { break-inside: avoid; } }
@media (max-width: 640px) { main { padding: 24px 14px; } .trio img { height: 84px; } }
"""

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: As HTML.
        style: A class of :data:`STYLE`, or empty.
    """

    text: str
    style: str = ""


def page(title: str, body: str) -> str:
    """A whole document; ``title`` is text, ``body`` HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]], *, caption: str = "") -> str:
    """A table that scrolls where it is too wide; all texts are HTML, the first column is the rows' names."""
    lines = [f"<caption>{caption}</caption>"] if caption else []
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{name}</th>' for name in head) + "</tr></thead><tbody>")
    for name, cells in rows:
        inside = "".join(f'<td class="{c.style}">{c.text}</td>' if c.style else f"<td>{c.text}</td>" for c in cells)
        lines.append(f'<tr><th scope="row">{name}</th>{inside}</tr>')
    return '<div class="scroll"><table>' + "\n".join(lines) + "</tbody></table></div>"
