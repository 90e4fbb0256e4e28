"""Charts of what changes: throughput over numbers of ranks, and over states of the code."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlbench.report.site import charts
from dlbench.report.site.archive import Group, Launch, Setup
from dlbench.report.site.charts import Point, Series
from dlbench.report.site.figure import Figure, moment, setup_cell, when
from dlbench.report.site.markup import Cell, Column, digits, number, percent, table

WEAK = "weak scaling (the batch per rank stays)"
STRONG = "strong scaling (the batch over all ranks stays)"
SCALING = (
    "Efficiency on n ranks = T(n) / T(n₀) × n₀ / n. T is a launch's throughput: the samples of all "
    "ranks ÷ the wall time of the slowest; T(n₀) is the median over the launches on n₀ ranks, the "
    "fewest that were measured. Weak: the batch per rank is the same on every n; strong: the batch "
    "over all ranks is. Nothing is clamped, so that more than 100 % can be seen. Each dot is a "
    "launch, lines join medians."
)


class Curve(NamedTuple):
    """One setup's launches over numbers of ranks, weak or strong."""

    setup: Setup
    kind: str
    batch: int
    groups: list[Group]

    @property
    def label(self) -> str:
        told = f"{self.batch} per rank" if self.kind == WEAK else f"{self.batch} over all ranks"
        return f"{self.setup.label}, {self.kind.split(' (')[0]}, batch {told}"

    def efficiencies(self) -> Iterable[tuple[int, list[tuple[float, Launch]], float]]:
        """Ranks, every launch's efficiency, and their median."""
        base = self.groups[0]
        for group in self.groups:
            ranks = group.workload.ranks or 1
            per = (base.workload.ranks or 1) / ranks / (base.median("throughput") or 1.0)
            known = [(la.values.get("throughput"), la) for la in group.launches]
            values = [(value * per, la) for value, la in known if value is not None]
            yield ranks, values, (group.median("throughput") or 0.0) * per


def curves(groups: Iterable[Group]) -> list[Curve]:
    """What can be read as scaling: one setup and code, at least two numbers of ranks."""
    found: dict[tuple[int, str, int], Curve] = {}
    for group in groups:
        ranks, batch = group.workload.ranks, group.workload.batch
        if ranks is None or batch is None or not group.all("throughput"):
            continue
        for kind, fixed in ((WEAK, batch), (STRONG, batch * ranks)):
            key = (id(group.subject), kind, fixed)
            found.setdefault(key, Curve(group.subject.setup, kind, fixed, [])).groups.append(group)
    for curve in found.values():
        curve.groups.sort(key=lambda group: group.workload.ranks or 1)
    return [curve for curve in found.values() if len(curve.groups) > 1]


def scaling(groups: Sequence[Group]) -> Figure | None:
    found = curves(groups)
    if not found:
        return None
    series, rows = [], []
    for curve in found:
        points, line = [], []
        for ranks, values, middle in curve.efficiencies():
            points += [
                Point(math.log2(ranks), 100 * value, f"{100 * value:.1f} %, {moment(launch)}")
                for value, launch in values
            ]
            line.append((math.log2(ranks), 100 * middle))
            rows.append(
                [
                    setup_cell(curve.setup, curve.setup.label),
                    Cell(curve.kind.split(" ")[0]),
                    Cell(str(curve.batch), curve.batch),
                    Cell(str(ranks), ranks),
                    percent(middle),
                    Cell("  ".join(f"{100 * value:.1f}" for value, _ in values)),
                ]
            )
        series.append(Series(curve.label, points, line))
    columns = [
        Column("Setup"),
        Column("Scaling"),
        Column("Batch kept", numeric=True),
        Column("Ranks", numeric=True),
        Column("Efficiency, median", "%", numeric=True),
        Column("Every launch", "%", whole=True),
    ]
    drawn = series[: charts.SERIES]
    places = sorted({point.x for one in drawn for point in one.points})
    title = "Scaling over ranks"
    drawing = charts.plane(
        "scaling",
        title,
        f"Efficiency in per cent over the number of ranks, {len(drawn)} curves; 100 % is marked.",
        drawn,
        across="ranks, logarithmic",
        upwards="efficiency, %",
        ticks=[(at, f"{2**at:.0f}") for at in places],
        reference=100.0,
    )
    numbers = table(title, columns, rows)
    key = charts.legend([one.label for one in drawn])
    return Figure("scaling", title, SCALING + charts.left_out(len(series)), key + drawing, numbers)


def history(groups: Sequence[Group]) -> Figure | None:
    """Throughput over the states of the code, in the order of their newest launches."""
    by_line: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        if group.all("throughput") and group.latest is not None:
            by_line[group.subject.setup.label, group.workload.size].append(group)
    lines = {key: found[::-1] for key, found in by_line.items() if len(found) > 1}
    if not lines:
        return None
    drawn = dict([*lines.items()][: charts.SERIES])
    states: dict[str, str] = {}
    seen = (group for found in drawn.values() for group in found)
    for group in sorted(seen, key=lambda group: group.age):
        states.setdefault(group.subject.code, f"{group.latest:%m-%d}" if group.latest else "")
    places = {code: n for n, code in enumerate(states)}
    series = [
        Series(
            f"{label}, {size}",
            [
                Point(places[g.subject.code], v, f"{digits(v)}, {g.subject.code}, {moment(la)}")
                for g in found
                for la in g.launches
                if (v := la.get("throughput")) is not None
            ],
            [(places[g.subject.code], g.median("throughput") or 0.0) for g in found],
        )
        for (label, size), found in drawn.items()
    ]
    unit = groups[0].workload.unit
    title = "History"
    columns = [
        Column("Setup"),
        Column("Code", whole=True),
        Column("Ranks × batch", whole=True),
        Column("Newest launch", whole=True),
        Column("Launches", numeric=True),
        Column("Throughput, median", unit, numeric=True),
    ]
    rows = [
        [
            setup_cell(group.subject.setup, group.subject.setup.label),
            Cell(group.subject.code),
            Cell(size, group.workload.ranks),
            when(group.launches[-1]),
            Cell(str(len(group.launches))),
            number(group.median("throughput")),
        ]
        for (_, size), found in lines.items()
        for group in found
    ]
    every = max(1, -(-len(states) // 6))
    ticks = [
        (n, f"{code} {when}" if len(states) <= 4 else code)
        for n, (code, when) in enumerate(states.items())
        if n % every == 0
    ]
    drawing = charts.plane(
        "history",
        title,
        f"Throughput over {len(states)} states of the code, oldest first.",
        series,
        across="commit, oldest first (+ is: with changes)",
        upwards=unit,
        ticks=ticks,
    )
    note = "Throughput of each launch over the commits measured, lines join medians."
    note += charts.left_out(len(lines))
    key = charts.legend([one.label for one in series])
    return Figure("history", title, note, key + drawing, table(title, columns, rows))
