"""What ends a launch on the terminal: its records as a table, and what was compared."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from dlbench.report.records import Record

HEADINGS = (
    *("workload", "ranks x batch", "samples/s", "median step", "first step", "peak a rank"),
    "quality",
)
SCORES = {
    "mIoU": ("training_size", "mean_iou_all_classes"),
    "RMSE": ("rmse",),
    "mean loss": ("mean_loss",),
}
"""Where in a record's quality the scores stand that the table shows."""


def records_table(records: Iterable[Record]) -> list[str]:
    """A line a record under a line of headings; "-" where something was not measured."""
    rows = [HEADINGS, *(_row(record) for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < place < len(HEADINGS) - 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(record: Record) -> tuple[str, ...]:
    workload, ranks = record.workload, record.ranks
    steps = record.slowest.step_s
    scores = (
        f"{name} {value:.4g}"
        for name, path in SCORES.items()
        if (value := _at(record.quality, path)) is not None
    )
    return (
        workload.id,
        f"{workload.ranks} x {'-' if workload.batch_per_rank is None else workload.batch_per_rank}",
        _shown(record.throughput, "{:.4g}"),
        f"{1e3 * statistics.median(steps):.4g} ms" if steps else "-",
        _shown(_largest(rank.first_step_s for rank in ranks), "{:.1f} s"),
        _shown(_largest(_peak(rank.peak_bytes) for rank in ranks), "{:.0f} MiB"),
        ", ".join(scores) or "-",
    )


def _at(value: Any, path: Sequence[str]) -> float | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _peak(peaks: dict[str, Any]) -> float | None:
    found = peaks.get("host_rss") or peaks.get("host_rss_hwm")
    return None if found is None else found / 2**20


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _shown(value: float | None, text: str) -> str:
    return "-" if value is None else text.format(value)


def ratio_lines(ratios: Sequence[dict[str, Any]]) -> list[str]:
    """A line a peer: what `attach_ratio` puts into the report."""
    peers, ours = (max(len(ratio[name]) for ratio in ratios) for name in ("peer", "ours"))
    lines = []
    for ratio in ratios:
        quartiles = "{:.2f} - {:.2f}".format(*ratio["quartiles"])
        line = f"{ratio['peer']:{peers}} / {ratio['ours']:{ours}} {ratio['median']:7.2f}"
        line += f" (quartiles {quartiles}, {ratio['pairs']} pairs)"
        if ratio["wanted"] is not None:
            verdict = "met" if ratio["median"] >= ratio["wanted"] else "MISSED"
            line += f", wanted >= {ratio['wanted']:g}: {verdict}"
        lines.append(line)
    return lines
