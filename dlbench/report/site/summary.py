"""The report in Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dlbench.report import markdown
from dlbench.report.site.archive import Archive, Subject
from dlbench.report.site.figure import GIB
from dlbench.report.site.markup import UNKNOWN, digits

if TYPE_CHECKING:
    from dlbench.report.compare import Comparison

LONGEST = 40
"""Rows of a table: a pull request is no archive."""
HEADS = ("workload", "launches", "throughput", "IQR", "peak host memory", "quality")


def text(archive: Archive, compared: Mapping[tuple[int, int], Comparison]) -> str:
    """The first of the comparisons made, and what the newest setup reached."""
    made = next(iter(compared.values()), None)
    parts = [] if made is None else [markdown.comparison(made)]
    return "\n".join([*parts, *_reached(archive.setups[0].newest)]) + "\n"


def _reached(subject: Subject) -> Iterator[str]:
    yield f"# {markdown.escaped(subject.label)}: medians over launches"
    yield ""
    rows = []
    for group in subject.groups.values():
        speed, spread = group.median("throughput"), group.spread("throughput")
        memory, score = group.median("peak_host_rss"), group.headline
        quality = None if score is None else group.median(f"quality.{score}")
        rows.append(
            (
                group.label,
                len(group.launches),
                UNKNOWN if speed is None else f"{digits(speed)} {group.workload.unit}",
                UNKNOWN if spread is None else f"{100 * spread:.1f} %",
                UNKNOWN if memory is None else f"{memory / GIB:.2f} GiB",
                UNKNOWN if quality is None else f"{score} {digits(quality)}",
            )
        )
    yield from markdown.table(HEADS, rows[:LONGEST])
    if len(rows) > LONGEST:
        yield ""
        yield f"{len(rows) - LONGEST} more workloads are in the report."
