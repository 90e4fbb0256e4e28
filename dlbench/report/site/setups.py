"""A page a setup: what it is, its workloads and launches; and the table of all setups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlbench.report.site import markup
from dlbench.report.site.archive import Archive, Group, Setup, files_of
from dlbench.report.site.figure import GIB, setup_cell, when
from dlbench.report.site.groups import SCRIPTS, day, family_cell, group_table
from dlbench.report.site.markup import UNKNOWN, Cell, Column, number, percent, table


def setup_table(setups: Sequence[Setup]) -> str:
    columns = [
        Column("Setup"),
        Column("Processor"),
        Column("GPU"),
        Column("Memory", "GiB", numeric=True),
        Column("TensorFlow"),
        Column("Workloads", numeric=True),
        Column("Launches", numeric=True),
        Column("States of the code", numeric=True),
        Column("Newest launch", whole=True),
    ]
    rows = []
    for setup in setups:
        known = dict(_machine(setup))
        groups = [group for subject in setup.subjects for group in subject.groups.values()]
        count = len({group.workload for group in groups})
        launches = len(files_of(groups))
        memory = _number(setup.environment.get("memory_bytes"))
        rows.append(
            [
                setup_cell(setup, setup.label),
                Cell(known["Processor"]),
                Cell(known["GPU"]),
                Cell(UNKNOWN) if memory is None else Cell(f"{memory / GIB:.1f}", memory),
                Cell(known["TensorFlow"]),
                Cell(f"{count:,}", count),
                Cell(f"{launches:,}", launches),
                Cell(f"{len(setup.subjects):,}", len(setup.subjects)),
                day(setup.newest.groups.values()),
            ]
        )
    return table("Setups, newest first", columns, rows)


def pages(archive: Archive) -> Iterator[tuple[str, str]]:
    """The name and text of each setup's page."""
    for setup in archive.setups:
        groups = [g for subject in reversed(setup.subjects) for g in subject.groups.values()]
        repeats = group_table(archive, groups, "Workloads, newest code first", False)
        body = (
            f"{markup.facts(_machine(setup))}"
            f"<h2>Workloads</h2>{repeats}"
            f"<h2>Launches</h2>{_launches(archive, groups)}"
            "<h2>Environment</h2><p>As it was loaded when the measurement was taken.</p>"
            f"{_environment(setup.environment)}"
        )
        name = f"setup-{setup.slug}.html"
        yield name, markup.page(setup.label, body, at="index.html", scripts=SCRIPTS)


def _launches(archive: Archive, groups: Iterable[Group]) -> str:
    columns = [
        Column("Workload"),
        Column("Code", whole=True),
        Column("Ranks × batch", whole=True),
        Column("Launch", "UTC", whole=True),
        Column("Throughput", "samples/s", numeric=True),
        Column("Step", "ms", numeric=True),
        Column("Step p95", "ms", numeric=True),
        Column("First step", "s", numeric=True),
        Column("Input wait", "%", numeric=True),
        Column("Exposed communication", "%", numeric=True),
        Column("Peak host memory", "GiB", numeric=True),
        Column("Energy", "J/sample", numeric=True),
        Column("Straggler"),
        Column("Flags"),
        Column("File"),
    ]
    rows = [
        [
            family_cell(archive, group.workload.family),
            Cell(group.subject.code),
            Cell(group.workload.size),
            when(launch),
            number(launch.get("throughput")),
            number(launch.get("median_step_s"), scale=1e3),
            number(launch.get("p95_step_s"), scale=1e3),
            number(launch.get("first_step_s")),
            percent(launch.get("input_wait")),
            percent(launch.get("comm_wait")),
            number(launch.get("peak_host_rss"), scale=1 / GIB),
            number(launch.get("energy_per_sample_j")),
            Cell(launch.straggler or UNKNOWN),
            Cell(", ".join(launch.flags) or UNKNOWN),
            Cell(launch.name),
        ]
        for group in groups
        for launch in group.launches
    ]
    return table("Every launch", columns, rows)


def _machine(setup: Setup) -> list[tuple[str, str]]:
    """What one wants to know first; a dash where the environment is another program's."""
    found = setup.environment
    cpu, gpu = _mapping(found.get("cpu")), _mapping(found.get("gpu"))
    system = _mapping(found.get("platform"))
    devices = gpu.get("devices")
    names = [str(_mapping(d).get("name")) for d in devices] if isinstance(devices, list) else []
    counted = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    if names and gpu.get("driver"):
        counted.append(f"driver {gpu['driver']}")
    cores = cpu.get("cores_usable") or cpu.get("count")
    model = cpu.get("model") or cpu.get("brand_raw") or UNKNOWN
    tensorflow = _mapping(found.get("tensorflow"))
    return [
        ("Fingerprint", setup.fingerprint or UNKNOWN),
        ("Processor", f"{cores} cores of {model}" if cores else str(model)),
        ("GPU", ", ".join(counted) or UNKNOWN),
        ("TensorFlow", str(tensorflow.get("version") or UNKNOWN)),
        ("System", str(system.get("distribution") or found.get("system") or UNKNOWN)),
    ]


def _environment(environment: Mapping[str, Any]) -> str:
    columns = [Column("Part"), Column("Setting"), Column("Value")]
    rows = [
        [Cell(path[0]), Cell(".".join(path[1:]) or path[0]), Cell(value)]
        for path, value in _leaves((), environment)
    ]
    return table("Environment", columns, rows)


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves((*path, str(name)), part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for number_of, part in enumerate(value):
            yield from _leaves((*path, str(number_of)), part)
    elif isinstance(value, list):
        yield path, " ".join(map(str, value)) or UNKNOWN
    elif path:
        yield path, UNKNOWN if value is None or value == {} else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
