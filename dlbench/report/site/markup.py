"""HTML by plain functions: whatever text they are given is escaped, links are relative."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

GENERATOR = "dlbench.report.site"
# Should a page's escaping ever fail, nothing but the folder's own files runs all the same.
# `file:` as well, since browsers differ in what 'self' means for a page opened from disk.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)
NAVIGATION = {
    "index.html": "Archive",
    "workloads.html": "Workloads",
    "compare.html": "Compare",
    "downloads.html": "Downloads",
}
UNKNOWN = "–"


@dataclass(frozen=True)
class Column:
    """A column's heading; ``key`` names it in addresses."""

    title: str
    unit: str = ""
    numeric: bool = False
    key: str = ""
    choice: bool = False
    """Whether the reader may filter by one of its values."""
    whole: bool = False
    """Whether its values are kept on one line; numbers always are."""


@dataclass(frozen=True)
class Cell:
    """Text, what to sort by where that is another value, and where it leads."""

    text: str
    value: float | str | None = None
    href: str | None = None
    extra: str = ""
    """Said after the text, in smaller type."""


def escape(value: object) -> str:
    """Text fit for HTML, in content and in quoted attributes."""
    return html.escape(str(value), quote=True)


def page(title: str, body: str, *, at: str, scripts: Iterable[str] = ()) -> str:
    """A whole document; ``at`` is the entry of the navigation that it belongs to."""
    links = "".join(
        f'<li><a href="{file}"{" aria-current=page" if file == at else ""}>{name}</a></li>'
        for file, name in NAVIGATION.items()
    )
    loaded = "".join(f'<script src="{name}" defer></script>' for name in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="{GENERATOR}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · dlbench</title>
<link rel="stylesheet" href="style.css">
<script src="theme.js"></script>{loaded}
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><p class="mark">dlbench <span>results</span></p>
<nav aria-label="Report"><ul>{links}</ul></nav>
<button id="theme" type="button" hidden>Theme: <span>system</span></button></header>
<main id="content" tabindex="-1">
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    filtered: bool = False,
    key: str = "",
) -> str:
    """A table with sortable columns; the first cell of each row is its heading.

    ``filtered`` adds the controls that narrow it down and keeps their state in the address.
    """
    # A column that says nothing is left out; the heading of the rows stays.
    kept = [n for n in range(len(columns)) if not n or any(row[n].text != UNKNOWN for row in rows)]
    columns, rows = [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]
    heads = "".join(_head(column) for column in columns)
    lines = [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="sortable{" filtered" if filtered else ""}"{_attribute("id", key)}>'
        f"<caption>{escape(caption)}</caption>",
        f"<thead><tr>{heads}</tr></thead><tbody>",
    ]
    for row in rows:
        cells = (
            _cell(column, cell, not n) for n, (column, cell) in enumerate(_pairs(columns, row))
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and what they are."""
    rows = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def details(summary: str, content: str) -> str:
    """What is shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def link(href: str, text: str) -> str:
    return f'<a href="{escape(href)}">{escape(text)}</a>'


def embedded(key: str, value: Any) -> str:
    """JSON for scripts; nothing in it can end the element or begin another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f'<script type="application/json" id="{escape(key)}">{text}</script>'


def number(value: float | None, *, scale: float = 1.0) -> Cell:
    """Four digits that count, thousands parted."""
    if value is None:
        return Cell(UNKNOWN)
    return Cell(digits(value * scale), value)


def percent(value: float | None, places: int = 1) -> Cell:
    return Cell(UNKNOWN) if value is None else Cell(f"{100 * value:.{places}f}", value)


def digits(value: float) -> str:
    """``value`` with about four digits, without an exponent where one can do without."""
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3e}"
    for limit, places in ((1000, 0), (100, 1), (10, 2), (1, 3), (0.001, 4)):
        if size >= limit:
            return f"{value:,.{places}f}"
    return f"{value:.3g}"


def _head(column: Column) -> str:
    unit = f' <span class="unit">{escape(column.unit)}</span>' if column.unit else ""
    kind = ' class="number"' if column.numeric else ""
    choice = " data-choice" if column.choice else ""
    return (
        f'<th scope="col"{kind}{_attribute("data-key", column.key)}{choice} aria-sort="none">'
        f'<button type="button">{escape(column.title)}{unit}</button></th>'
    )


def _cell(column: Column, cell: Cell, heading: bool) -> str:
    text = _breakable(cell.text)
    if cell.href is not None:
        text = f'<a href="{escape(cell.href)}">{text}</a>'
    if cell.extra:
        text += f" <small>{escape(cell.extra)}</small>"
    tag, scope = ("th", ' scope="row"') if heading else ("td", "")
    kind = ' class="number"' if column.numeric else ' class="whole"' if column.whole else ""
    value = "" if cell.value is None else _attribute("data-v", cell.value)
    return f"<{tag}{scope}{kind}{value}>{text}</{tag}>"


def _breakable(text: str) -> str:
    """Escaped text that may go on in a new line after what parts it."""
    return re.sub(r"([/_@])(?=\w\w)", r"\1<wbr>", escape(text))


def _pairs(columns: Sequence[Column], row: Sequence[Cell]) -> Iterable[tuple[Column, Cell]]:
    return zip(columns, row, strict=True)


def _attribute(name: str, value: object) -> str:
    return f' {name}="{escape(value)}"' if value != "" else ""
