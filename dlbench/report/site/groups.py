"""The table of workloads on setups: one row for the launches that repeat each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlbench.report.site.archive import Archive, Family, Group
from dlbench.report.site.figure import GIB, setup_cell
from dlbench.report.site.markup import UNKNOWN, Cell, Column, number, percent, table

SCRIPTS = ("table.js",)


def group_table(archive: Archive, groups: Sequence[Group], caption: str, several: bool) -> str:
    """A row each; ``several`` setups are told apart in a column of their own."""
    columns = [
        Column("Workload", key="workload"),
        *([Column("Setup", choice=True, key="setup")] if several else []),
        Column("Code", key="code", whole=True),
        Column("Mode", choice=True, key="mode", whole=True),
        Column("Precision", choice=True, key="precision", whole=True),
        Column("Ranks × batch", choice=True, key="ranks", whole=True),
        Column("Launches", numeric=True, key="launches"),
        Column("Throughput", "samples/s", numeric=True, key="throughput"),
        Column("IQR", "%", numeric=True, key="iqr"),
        Column("Step", "ms", numeric=True, key="step"),
        Column("Peak host memory", "GiB", numeric=True, key="memory"),
        Column("Energy", "J/sample", numeric=True, key="energy"),
        Column("Quality", key="quality", numeric=True),
        Column("Flags", key="flags"),
        Column("Newest", key="newest", whole=True),
    ]
    rows = []
    for group in groups:
        setup, score = group.subject.setup, group.headline
        quality = None if score is None else group.median(f"quality.{score}")
        unit = "" if group.workload.unit == "samples/s" else group.workload.unit
        throughput = number(group.median("throughput"))
        rows.append(
            [
                family_cell(archive, group.workload.family),
                *([setup_cell(setup, setup.label)] if several else []),
                Cell(group.subject.code),
                Cell(group.workload.family.mode or UNKNOWN),
                Cell(group.workload.family.precision or UNKNOWN),
                Cell(group.workload.size),
                Cell(str(len(group.launches)), len(group.launches)),
                Cell(throughput.text, throughput.value, extra=unit),
                percent(group.spread("throughput")),
                number(group.median("median_step_s"), scale=1e3),
                number(group.median("peak_host_rss"), scale=1 / GIB),
                number(group.median("energy_per_sample_j")),
                Cell(
                    number(quality).text,
                    quality,
                    extra=(score or "").rpartition(".")[2].replace("_", " "),
                ),
                Cell(group.flags or UNKNOWN),
                day([group]),
            ]
        )
    return table(caption, columns, rows, filtered=True)


def family_cell(archive: Archive, family: Family) -> Cell:
    return Cell(family.id, href=f"workload-{archive.families[family]}.html")


def day(groups: Iterable[Group]) -> Cell:
    found = max((g.latest for g in groups if g.latest is not None), default=None)
    return Cell(UNKNOWN) if found is None else Cell(f"{found:%Y-%m-%d}", found.timestamp())
