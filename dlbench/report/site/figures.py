"""The charts of a family of workloads, each with its numbers as a table beneath it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from dlbench.report.site import charts, trends
from dlbench.report.site.archive import LOWER_IS_BETTER, Group, Subject, Workload
from dlbench.report.site.charts import Point, Series
from dlbench.report.site.figure import GIB, Figure, moment, setup_cell, when
from dlbench.report.site.markup import Cell, Column, digits, escape, number, percent, table

DRAWN = 24
"""Rows of a chart at most: the newest setups; tables have all."""
PARTS = {
    "compute": "compute",
    "comm_wait": "exposed communication",
    "input_wait": "input wait",
}


def all_of(groups: Sequence[Group]) -> list[Figure]:
    """The figures that a family's groups, newest subjects first, have numbers for."""
    states: dict[int, Subject] = {}
    for group in groups:
        states.setdefault(id(group.subject.setup), group.subject)
    newest = [group for group in groups if states[id(group.subject.setup)] is group.subject]
    makers: list[Callable[[], Figure | None]] = [
        partial(_throughput, newest),
        partial(trends.scaling, newest),
        partial(_split, newest),
        *(partial(_memory, newest, kind) for kind in _kinds(newest)),
        partial(_quality, newest),
        partial(trends.history, groups),
    ]
    return [figure for make in makers if (figure := make()) is not None]


def _throughput(groups: Sequence[Group]) -> Figure | None:
    unit = groups[0].workload.unit
    note = (
        f"Each dot is a launch, the line their median. In {unit}: the samples of all ranks ÷ the "
        "wall time of the slowest rank. The axis need not begin at 0."
    )
    if unit == "calls/s":
        note = "Each dot is a launch: 1 ÷ the median time of a call. The axis need not begin at 0."
    return _launches("throughput", "Throughput", note, unit, "throughput", groups, 1.0)


def _memory(groups: Sequence[Group], kind: str) -> Figure | None:
    name = kind.removeprefix("peak_").replace("_", " ")
    note = "The largest of all ranks' peaks. The axis need not begin at 0."
    key = f"memory-{name.replace(' ', '-')}"
    return _launches(key, f"Peak memory, {name}", note, "GiB", kind, groups, 1 / GIB)


def _launches(
    key: str, title: str, note: str, unit: str, name: str, groups: Sequence[Group], scale: float
) -> Figure | None:
    measured = [group for group in groups if group.all(name)]
    if not measured:
        return None
    # A scale for each number of ranks: what a setup changes is small beside what ranks change.
    panels: dict[Workload, list[Group]] = {}
    for group in sorted(measured, key=lambda group: group.workload.order):
        panels.setdefault(group.workload, []).append(group)
    drawing = ""
    for number_of, (workload, alike) in enumerate(panels.items()):
        rows = [
            charts.Row(
                group.subject.brief,
                [
                    (value * scale, f"{digits(value * scale)} {unit}, {moment(launch)}")
                    for launch in group.launches
                    if (value := launch.get(name)) is not None
                ],
            )
            for group in alike[:DRAWN]
        ]
        highest = max(alike, key=lambda group: group.median(name) or 0)
        described = (
            f"{title} of {len(rows)} setups. The highest median is "
            f"{digits((highest.median(name) or 0) * scale)} {unit}, of {highest.subject.label}."
        )
        heading = "" if workload.ranks is None else f"Ranks × batch {workload.size}"
        drawing += f"<h3>{escape(heading)}</h3>" if heading else ""
        drawing += charts.strips(f"{key}-{number_of}", f"{title} {heading}", described, unit, rows)
    columns = [
        Column("Setup"),
        Column("Ranks × batch", whole=True),
        Column("Launches", numeric=True),
        Column("Median", unit, numeric=True),
        Column("IQR", "%", numeric=True),
        Column("Every launch", unit, whole=True),
    ]
    cells = [
        [
            setup_cell(group.subject.setup, group.subject.label),
            Cell(group.workload.size, group.workload.ranks),
            Cell(str(len(group.all(name)))),
            number(group.median(name), scale=scale),
            percent(group.spread(name)),
            Cell("  ".join(digits(value * scale) for value in group.all(name))),
        ]
        for group in measured
    ]
    longest = max(panels.values(), key=len)
    return Figure(key, title, note + _cut(longest), drawing, table(title, columns, cells))


def _split(groups: Sequence[Group]) -> Figure | None:
    measured = [group for group in groups if group.all("compute")]
    measured.sort(key=lambda group: group.workload.order)
    if not measured:
        return None
    rows = [(_label(g), [g.median(name) for name in PARTS]) for g in measured[:DRAWN]]
    title = "Where a step's time goes"
    note = (
        "Shares of the slowest rank's wall time, each the median over launches. Communication "
        "counts as far as it is exposed: the step waits for other ranks with nothing else to do."
    )
    columns = [
        Column("Setup"),
        Column("Ranks × batch", whole=True),
        Column("Step, median", "ms", numeric=True),
        *(Column(name, "%", numeric=True) for name in PARTS.values()),
        Column("Straggler"),
    ]
    cells = [
        [
            setup_cell(group.subject.setup, group.subject.label),
            Cell(group.workload.size, group.workload.ranks),
            number(group.median("median_step_s"), scale=1e3),
            *(percent(group.median(name)) for name in PARTS),
            Cell(next((la.straggler for la in group.launches if la.straggler), None) or "none"),
        ]
        for group in measured
    ]
    drawing = charts.bars(
        "split", title, f"{', '.join(PARTS.values())} of {len(rows)} combinations.", rows
    )
    key = charts.legend([*PARTS.values()], "parts")
    return Figure(
        "split", title, note + _cut(measured), key + drawing, table(title, columns, cells)
    )


def _quality(groups: Sequence[Group]) -> Figure | None:
    names = [group.headline for group in groups if group.headline is not None]
    if not names:
        return None
    name = names[0]
    by_setup: dict[str, list[Point]] = defaultdict(list)
    rows = []
    for group in groups:
        for launch in group.launches:
            score, wall = launch.quality.get(name), launch.get("wall_s")
            if score is None or wall is None:
                continue
            tip = f"{digits(score)} after {digits(wall)} s, {moment(launch)}"
            by_setup[group.subject.setup.label].append(Point(wall, score, tip))
            rows.append(
                [
                    setup_cell(group.subject.setup, group.subject.label),
                    Cell(group.workload.size, group.workload.ranks),
                    when(launch),
                    number(wall),
                    number(score),
                ]
            )
    if not rows:
        return None
    better = "lower" if LOWER_IS_BETTER.search(name) else "higher"
    title = f"Quality against time: {name}"
    note = (
        "Each dot is a launch: the score that it reached, over the wall time of its measured steps "
        f"on the slowest rank. For this score {better} is better.{charts.left_out(len(by_setup))}"
    )
    columns = [
        Column("Setup"),
        Column("Ranks × batch", whole=True),
        Column("Launch", "UTC", whole=True),
        Column("Time", "s", numeric=True),
        Column(name, numeric=True),
    ]
    drawn = [Series(label, points) for label, points in by_setup.items()][: charts.SERIES]
    drawing = charts.plane(
        "quality",
        title,
        f"{name} over time of {len(rows)} launches; {better} is better.",
        drawn,
        across="wall time of the measured steps, s",
        upwards=name,
    )
    key = charts.legend([one.label for one in drawn])
    return Figure("quality", title, note, key + drawing, table(title, columns, rows))


def _kinds(groups: Iterable[Group]) -> list[str]:
    names = {name for group in groups for launch in group.launches for name in launch.values}
    # The kernel's own mark of the same memory; the downloads have it.
    doubled = {"peak_host_rss_hwm"} if "peak_host_rss" in names else set()
    return sorted(name for name in names - doubled if name.startswith("peak_"))


def _label(group: Group) -> str:
    size = group.workload.size
    return group.subject.brief + ("" if group.workload.ranks is None else f", {size}")


def _cut(groups: Sequence[Group]) -> str:
    return f" Shown are the newest {DRAWN} of {len(groups)}." if len(groups) > DRAWN else ""
