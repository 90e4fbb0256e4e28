"""The launches of a frame in the order that pages tell of them: setups, their code, workloads."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dlbench.report import particulars

if TYPE_CHECKING:
    from datetime import datetime

    from dlbench.report.records import Record

HEADLINES = ("mean_iou", "rmse", "global_accuracy", "kappa", "loss")
"""The score that stands for a launch's quality: the first of these, as `tables.quality` names them,
that it has. Others, such as the loss before a training step, say nothing of how good it is."""
FLAGS = {
    "throttled": "clocks lowered",
    "foreign_processes": "others on the GPU",
    "busy": "other work ran",
}
"""Conditions of a rank (`dlbench.bench.conditions`) that a launch is marked with."""
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
    name: str
    """The file's path from the folder that all files share."""
    created: datetime | None
    values: dict[str, float]
    """Its numbers by the name of their column."""
    straggler: str | None
    """The slowest rank and why, where one stands out."""
    flags: tuple[str, ...] = ()
    """What casts doubt on it, of `FLAGS`."""
    record: Record | None = None
    """None of plain pytest-benchmark JSON."""

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

    @cached_property
    def differing(self) -> list[str]:
        """What is not the same in its launches, so that they are no repeats."""
        return particulars.differing([one.record for one in self.launches if one.record])

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

    @property
    def flags(self) -> str:
        """What casts doubt on some of its launches, and on how many."""
        met = Counter(flag for launch in self.launches for flag in launch.flags)
        told = [f"{flag} in {count}" for flag, count in met.items()]
        return ", ".join([*told, *(f"no repeats: {name} differs" for name in self.differing)])

    @cached_property
    def headline(self) -> str | None:
        """The name of the score that stands for its quality."""
        names = {name for launch in self.launches for name in launch.quality}
        return next((name for name in HEADLINES if name in names), None)

    @property
    def latest(self) -> datetime | None:
        return max((la.created for la in self.launches if la.created is not None), default=None)

    @property
    def age(self) -> float:
        """Seconds to sort by; what has no time comes first."""
        return seconds(self.latest)


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
        return files_of(self.groups.values())

    @property
    def latest(self) -> datetime | None:
        found = [group.latest for group in self.groups.values()]
        return max((when for when in found if when is not None), default=None)


def files_of(groups: Iterable[Group]) -> list[str]:
    """Where the groups' launches came from, each file once: it holds all workloads of a launch."""
    return list(dict.fromkeys(launch.file for group in groups for launch in group.launches))


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


def seconds(when: datetime | None) -> float:
    return when.timestamp() if when is not None else 0.0


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
