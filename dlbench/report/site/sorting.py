"""From a frame of launches to the archive that pages are made of."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from dlbench.report import tables
from dlbench.report.site.archive import (
    FLAGS,
    Archive,
    Family,
    Group,
    Launch,
    Setup,
    Subject,
    Workload,
    seconds,
    slugs,
)

if TYPE_CHECKING:
    from pandas import DataFrame


def archive(frame: DataFrame) -> Archive:
    """Sort the launches of `dlbench.report.tables.load` into setups, code and workloads."""
    setups: dict[Hashable, Setup] = {}
    subjects: dict[Hashable, Subject] = {}
    records = frame.to_dict("records")
    shared = os.path.commonpath(
        [os.path.dirname(os.path.abspath(file)) for file in set(frame.file)]
    )
    for position, row in enumerate(records):
        row = {str(name): value for name, value in row.items() if _known(value)}
        fingerprint = str(row.get("fingerprint", ""))
        name = str(row.get("setup", fingerprint))
        setup = setups.setdefault((name, fingerprint), Setup(name, fingerprint))
        code = _code(row)
        key = (name, fingerprint, code)
        if key not in subjects:
            subjects[key] = Subject(setup, code)
            setup.subjects.append(subjects[key])
        subject = subjects[key]
        subject.rows.append(position)
        workload = _workload(row)
        if workload not in subject.groups:
            subject.groups[workload] = Group(subject, workload, tables.label(records[position]))
        subject.groups[workload].launches.append(_launch(row, shared))
        setup.environment = setup.environment or row.get("environment", {})
    for setup in setups.values():
        setup.subjects.sort(key=lambda one: seconds(one.latest))
    for subject in subjects.values():
        for group in subject.groups.values():
            group.launches.sort(key=lambda launch: seconds(launch.created))
    ordered = sorted(setups.values(), key=lambda one: seconds(one.newest.latest), reverse=True)
    _name(ordered)
    return Archive(ordered)


def _name(setups: list[Setup]) -> None:
    """Give labels and slugs; a name that several fingerprints share is told with them."""
    names = [setup.name for setup in setups]
    for setup in setups:
        shared = names.count(setup.name) > 1
        setup.label = f"{setup.name} ({setup.fingerprint[:8]})" if shared else setup.name
    for setup, slug in zip(setups, slugs([setup.label for setup in setups]), strict=True):
        setup.slug = slug


def _workload(row: dict[str, Any]) -> Workload:
    def text(name: str) -> str | None:
        return str(row[name]) if name in row else None

    family = Family(
        id=text("workload") or "unnamed",
        model=text("model"),
        data=text("data"),
        precision=text("precision") or "",
        shape=text("shape"),
        mode=text("mode") or "",
    )
    counts = (int(row[n]) if n in row else None for n in ("ranks", "batch_per_rank"))
    return Workload(family, *counts)


def _launch(row: dict[str, Any], shared: str) -> Launch:
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    flags: list[str] = []
    if "record" in row:
        conditions = [rank.conditions for rank in row["record"].ranks]
        flags = [told for key, told in FLAGS.items() if any(one.get(key) for one in conditions)]
        numbers["wall_s"] = row["record"].slowest.wall_s
    created = row["created"].to_pydatetime() if "created" in row else None
    file = str(row["file"])
    return Launch(
        file,
        os.path.relpath(file, shared),
        created,
        numbers,
        row.get("straggler_cause"),
        tuple(flags),
        row.get("record"),
    )


def _code(row: dict[str, Any]) -> str:
    if "commit" in row:
        return str(row["commit"])[:7] + ("+" if row.get("dirty") else "")
    return str(row.get("version", "unknown"))


def _known(value: Any) -> bool:
    """Whether a cell has something: neither None nor pandas's NaN and NaT, which equal nothing."""
    return value is not None and bool(value == value)
