"""A comparison as Markdown, for a terminal and for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from dlbench.report import tables
from dlbench.report.compare import CANNOT_TELL, Comparison, Row
from dlbench.report.statistics import MOST

UNKNOWN = "–"
SPECIAL = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown or HTML would take for more than text; underscores within words are none."""


def escaped(text: object) -> str:
    """``text`` on one line, as Markdown shows it: no markup of its own, no terminal codes."""
    line = SPECIAL.sub(r"\\\g<0>", printable(text).replace("&", "&amp;"))
    # A backslash does not keep every reader of Markdown from taking a tag for one.
    return line.replace(r"\<", "&lt;").replace("@", "&#64;")


def printable(text: object) -> str:
    """``text`` on one line without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def comparison(made: Comparison, command: str | None = None) -> str:
    """The whole comparison; ``command`` brings `Comparison.wanted` launches of each setup."""
    lines = [f"# {escaped(made.candidate)} compared with {escaped(made.baseline)}", ""]
    lines += _summary(made)
    speed = [row for row in made.rows if row.measure == "throughput"]
    others = [row for row in made.rows if row.measure != "throughput"]
    for title, rows in (
        ("Throughput, per second", speed),
        ("Memory, energy, time to the first step", others),
        ("Quality", made.quality),
    ):
        if rows:
            lines += ["", f"## {title}", "", *_table(rows, made.alpha)]
    lines += _section("What the records name", (escaped(cause) for cause in made.causes))
    if made.differences:
        lines += ["", "## What differs between the environments, likeliest first", ""]
        lines += table(
            ("what", "baseline", "candidate", "relevance", "why it may matter"),
            [(d.what, d.before, d.after, d.relevance, d.note) for d in made.differences],
        )
    lines += _section("Only in the baseline", map(escaped, made.only_in_baseline))
    lines += _section("Only in the candidate", map(escaped, made.only_in_candidate))
    if made.wanted is not None:
        lines += ["", "## Launches that would tell more", ""]
        lines.append(f"{made.wanted} of each setup, launched in turn, may bring what is open.")
        lines += ["", "~~~~sh", command, "~~~~"] if command is not None else []
    lines += ["", "## Every launch", "", *_launches(speed)] if speed else []
    return "\n".join(lines) + "\n"


def launches(frame: pd.DataFrame) -> str:
    """One line a launch: how fast, how well split, how much memory."""
    rows = []
    for row in frame.to_dict("records"):
        split = [_percent(row[name]) for name in ("compute", "comm_wait", "input_wait")]
        step = row["median_step_s"]
        rows.append(
            (
                tables.label(row),
                row["setup"],
                f"{row['created']:%Y-%m-%d %H:%M}",
                _number(row["throughput"]),
                UNKNOWN if pd.isna(step) else f"{1e3 * step:.4g}",
                " / ".join(split),
                _amount("peak_host_rss", row.get("peak_host_rss")),
                row["straggler_cause"] or UNKNOWN,
            )
        )
    head = ("workload", "setup", "when", "per s", "step, ms", "compute / ranks / input")
    return "\n".join(table((*head, "host memory", "straggler"), rows)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table whose columns are aligned for a terminal, too."""
    cells = [[escaped(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def verdict(row: Row) -> str:
    """The verdict; where there is none, what is missing for one."""
    if row.verdict != CANNOT_TELL:
        return row.verdict
    shown = ""
    if row.detectable is not None:
        shown = f" (these launches show {row.detectable:.1%} or more)"
    if row.need is None:
        return f"{CANNOT_TELL}{shown}: {MOST} launches of each would not either"
    return f"{CANNOT_TELL}{shown}: run {row.need} more"


def _summary(made: Comparison) -> Iterator[str]:
    speed = [row for row in made.rows if row.measure == "throughput"]
    words = ("slower", "faster", "same", CANNOT_TELL)
    counts = {word: sum(row.verdict == word for row in speed) for word in words}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    yield f"{len(speed)} workloads: {told or 'no throughput on both sides'}."
    margin = f"{made.margin:.1%}"
    yield (
        f"A difference is told beyond {margin} at p ≤ {made.alpha:g}, corrected for the workloads "
        f"of a measure; 'same' if the whole interval lies within {margin}."
    )
    if made.beside:
        yield f"No verdict is on {made.beside} peers, bare kernels and controls measured beside."


def _table(rows: Sequence[Row], alpha: float) -> list[str]:
    measures = len({row.measure for row in rows}) > 1 or rows[0].measure != "throughput"
    head = ["workload", *(["measure"] if measures else []), "baseline", "candidate", "ratio"]
    head += [f"{1 - alpha:.0%} interval", "p", "verdict"]
    body = []
    for row in rows:
        name = [row.measure.removeprefix("quality.").replace("_", " ")] if measures else []
        sides = [_spread(row.measure, side) for side in (row.baseline, row.candidate)]
        bounds = f"{_number(row.low)} to {_number(row.high)}"
        told = [_number(row.ratio), bounds, f"{row.p:.2g}", verdict(row)]
        body.append([row.workload, *name, *sides, *told])
    return table(head, body)


def _launches(rows: Sequence[Row]) -> list[str]:
    body = [
        (row.workload, *(", ".join(map(_number, side)) for side in (row.baseline, row.candidate)))
        for row in rows
    ]
    return table(("throughput", "baseline", "candidate"), body)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"- {line}" for line in lines]
    return ["", f"## {title}", "", *found] if found else []


def _spread(measure: str, values: Sequence[float]) -> str:
    """Median, interquartile range and number of launches."""
    low, middle, high = np.percentile(values, (25, 50, 75)).tolist()
    count = f"n {len(values)}"
    if len(values) > 1 and middle:
        count = f"IQR {(high - low) / abs(middle):.1%}, {count}"
    return f"{_amount(measure, middle)} ({count})"


def _amount(measure: str, value: float | None) -> str:
    if value is None or pd.isna(value):
        return UNKNOWN
    return f"{value / 2**30:.3f} GiB" if measure.startswith("peak_") else _number(value)


def _number(value: float | None) -> str:
    return UNKNOWN if value is None or pd.isna(value) else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None or pd.isna(value) else f"{value:.1%}"
