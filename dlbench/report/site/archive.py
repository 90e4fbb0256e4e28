"""The launches of a frame in the order that pages tell of them: setups, their code, workloads."""

from __future__ import annotations

import re
import statistics
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dlbench.report import tables

if TYPE_CHECKING:
    from datetime import datetime

    from pandas import DataFrame

HEADLINES = (
    *("mean_iou", "miou", "headline_mean_iou", "mean_iou_all_classes"),
    *("rmse", "global_accuracy", "kappa", "loss"),
)
"""The score that stands for a launch's quality: the first of these that it has."""
LONGEST = 30
"""Characters of a setup's name in a chart."""
LOWER_IS_BETTER = re.compile(r"(^|[._ ])(rmse|mae|loss|error)")


class Family(NamedTuple):
    """A workload but for its number of ranks and its batch; a page each."""

    id: str
    model: str | None
    data: str | None
    precision: str
    shape: str | None
    mode: str

    @property
    def label(self) -> str:
        told = self.id.split("/")
        further = (self.model, self.data, self.precision, self.shape, self.mode)
        return ", ".join([self.id, *(part for part in further if part and part not in told)])


class Workload(NamedTuple):
    """All that defines what a launch did."""

    family: Family
    ranks: int | None
    batch: int | None

    @property
    def size(self) -> str:
        """Ranks × batch per rank, as far as they are known."""
        if self.ranks is None:
            return "–"
        return f"{self.ranks} × {'–' if self.batch is None else self.batch}"

    @property
    def order(self) -> tuple[int, int]:
        """Few ranks before many."""
        return self.ranks or 0, self.batch or 0

    @property
    def unit(self) -> str:
        """Of its throughput: plain pytest-benchmark files know no samples."""
        return "calls/s" if self.ranks is None else "samples/s"


@dataclass(frozen=True)
class Launch:
    """One row of the frame: None where it has nothing."""

    file: str
    created: datetime | None
    values: dict[str, float]
    """Its numbers by the name of their column."""
    straggler: str | None
    """The slowest rank and why, where one stands out."""

    def get(self, name: str) -> float | None:
        return self.values.get(name)

    @cached_property
    def quality(self) -> dict[str, float]:
        """Its scores by name."""
        prefix = "quality."
        return {n.removeprefix(prefix): v for n, v in self.values.items() if n.startswith(prefix)}


@dataclass
class Group:
    """The launches of one workload on one setup with one state of the code: repeats."""

    subject: Subject
    workload: Workload
    label: str
    """All that defines the workload, as comparisons name it."""
    launches: list[Launch] = field(default_factory=list)

    def all(self, name: str) -> list[float]:
        """Every launch's value of a column, unknown ones left out."""
        return [value for launch in self.launches if (value := launch.get(name)) is not None]

    def median(self, name: str) -> float | None:
        found = self.all(name)
        return statistics.median(found) if found else None

    def spread(self, name: str) -> float | None:
        """Interquartile range ÷ median over launches; None with less than two."""
        found = self.all(name)
        if len(found) < 2:
            return None
        low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
        return (high - low) / middle if middle else None

    @cached_property
    def headline(self) -> str | None:
        """The name of the score that stands for its quality."""
        names = {name: None for launch in self.launches for name in launch.quality}
        for wanted in HEADLINES:
            for name in names:
                if name.rpartition(".")[2] == wanted:
                    return name
        return next(iter(names), None)

    @property
    def latest(self) -> datetime | None:
        return max((la.created for la in self.launches if la.created is not None), default=None)

    @property
    def age(self) -> float:
        """Seconds to sort by; what has no time comes first."""
        return _timed(self.latest)


@dataclass
class Subject:
    """What can be compared: a setup with one state of the code."""

    setup: Setup
    code: str
    """The commit, shortened, ``+`` behind it where there were changes; the version without git."""
    rows: list[int] = field(default_factory=list)
    """Its launches' positions in the frame."""
    groups: dict[Workload, Group] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.setup.label + ("" if len(self.setup.subjects) == 1 else f" @ {self.code}")

    @property
    def brief(self) -> str:
        """Its label, short enough for a chart; the table beneath has all of it."""
        name = self.setup.label
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        return short + ("" if len(self.setup.subjects) == 1 else f" @ {self.code}")

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return f"{self.setup.slug}@{re.sub('[^0-9A-Za-z.+-]', '-', self.code)}"

    @property
    def files(self) -> list[str]:
        """Where its launches came from, each file once."""
        launches = (launch for group in self.groups.values() for launch in group.launches)
        return list(dict.fromkeys(launch.file for launch in launches))

    @property
    def latest(self) -> datetime | None:
        found = [group.latest for group in self.groups.values()]
        return max((when for when in found if when is not None), default=None)


@dataclass
class Setup:
    """One name and fingerprint; its subjects in the order of time."""

    name: str
    fingerprint: str
    label: str = ""
    slug: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    subjects: list[Subject] = field(default_factory=list)

    @property
    def newest(self) -> Subject:
        return self.subjects[-1]


@dataclass
class Archive:
    """All launches; setups with the newest first, families by name."""

    setups: list[Setup]

    @cached_property
    def subjects(self) -> list[Subject]:
        return [subject for setup in self.setups for subject in reversed(setup.subjects)]

    @cached_property
    def groups(self) -> list[Group]:
        return [group for subject in self.subjects for group in subject.groups.values()]

    @cached_property
    def families(self) -> dict[Family, str]:
        """Each family's name in addresses."""
        found = sorted({group.workload.family for group in self.groups}, key=str)
        return dict(zip(found, slugs([family.label for family in found]), strict=True))


def archive(frame: DataFrame) -> Archive:
    """Sort the launches of `dlbench.report.tables.load` into setups, code and workloads."""
    setups: dict[Hashable, Setup] = {}
    subjects: dict[Hashable, Subject] = {}
    records = frame.to_dict("records")
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
        group = subject.groups[workload]
        group.launches.append(_launch(row))
        setup.environment = setup.environment or row.get("environment", {})
    for setup in setups.values():
        setup.subjects.sort(key=lambda one: _timed(one.latest))
    for subject in subjects.values():
        for group in subject.groups.values():
            group.launches.sort(key=lambda launch: _timed(launch.created))
    ordered = sorted(setups.values(), key=lambda one: _timed(one.newest.latest), reverse=True)
    _name(ordered)
    return Archive(ordered)


def slugs(labels: Iterable[str]) -> list[str]:
    """Names for files and addresses: a-z, 0-9 and hyphens, each different."""
    found: list[str] = []
    for label in labels:
        slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:60].strip("-") or "unnamed"
        number = 2
        while (candidate := slug if number == 2 else f"{slug}-{number - 1}") in found:
            number += 1
        found.append(candidate)
    return found


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


def _launch(row: dict[str, Any]) -> Launch:
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if "record" in row:
        numbers["wall_s"] = max(rank.wall_s for rank in row["record"].ranks)
    created = row["created"].to_pydatetime() if "created" in row else None
    return Launch(str(row["file"]), created, numbers, row.get("straggler_cause"))


def _code(row: dict[str, Any]) -> str:
    if "commit" in row:
        return str(row["commit"])[:7] + ("+" if row.get("dirty") else "")
    return str(row.get("version", "unknown"))


def _timed(when: datetime | None) -> float:
    return when.timestamp() if when is not None else 0.0


def _known(value: Any) -> bool:
    """Whether a cell has something: neither None nor pandas's NaN and NaT, which equal nothing."""
    return value is not None and bool(value == value)
