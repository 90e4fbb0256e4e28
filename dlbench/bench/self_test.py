"""A/A: launches of one setup under two names, which a trustworthy machine does not tell apart.

The coefficient of variation from launch to launch is what limits every comparison; the smallest
difference that can be detected follows from it and from the number of launches
(`dlbench.report.statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlbench.report import statistics

if TYPE_CHECKING:
    from dlbench.report.compare import Row

TRUSTED = ("same", "cannot tell")
"""The verdicts that two equal setups may get."""


def agrees(row: Row) -> bool:
    """Whether the comparison of a setup with itself came out as it should."""
    return row.verdict in TRUSTED


def text(rows: Sequence[Row]) -> str:
    """A table of a setup's comparison with itself, and in a sentence what the machine can detect,
    or why it cannot be trusted."""
    head = ("workload", "measure", "launches", "variation", "detects", "verdict")
    cells = []
    for row in rows:
        count = f"{len(row.baseline)} + {len(row.candidate)}"
        shares = percent(row.variation), percent(row.detectable)
        cells.append((row.workload, row.measure, count, *shares, row.verdict))
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
    return "\n".join([*lines, "", _conclusion(rows)])


def percent(share: float | None) -> str:
    """Two digits of a relative difference; "-" where it is unknown."""
    return "-" if share is None else f"{100 * share:.2g} %"


def _conclusion(rows: Sequence[Row]) -> str:
    if faults := [row for row in rows if not agrees(row)]:
        named = "; ".join(f"{row.measure} of {row.workload} '{row.verdict}'" for row in faults)
        return (
            f"FAULT of this machine, as both are one setup: {named}. Something changed between "
            "launches: other work, clocks, temperature, a neighbour. Do not compare setups here "
            "before it is found (a --cooldown may help, and --shuffle against a steady drift). By "
            "chance alone, at most one A/A in a hundred ends so, for each measure."
        )
    known = {
        row.workload: row.detectable
        for row in rows
        if row.measure == "throughput" and row.detectable is not None
    }
    if not known:
        compared = sum(row.measure == "throughput" for row in rows)
        return (
            f"These launches are too few to detect any difference in the speed of {compared} "
            f"workload(s): needed is --launches {statistics.least(compared)}."
        )
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        "The same setup twice came out as such. With as many launches, this machine detects "
        f"differences in throughput from {percent(known[least])} ({least}) to "
        f"{percent(known[most])} ({most}), nine times in ten; of smaller ones it often cannot tell."
    )
