"""Legends: which class each integer code of a label raster stands for."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from dlbench.data.dataset import IGNORE, ClassInfo

MOST_CLASSES = IGNORE
"""Indices are uint8, and `IGNORE` is none."""


@dataclass(frozen=True)
class TableEntry(ClassInfo):
    """A class of a published table, with the years in which its code is used."""

    first_year: int | None = None
    last_year: int | None = None

    def valid_in(self, years: Collection[int]) -> bool:
        """Whether the code is used in any of ``years``; in no years named it is."""
        first, last = self.first_year or min(years, default=0), self.last_year or 9999
        return not years or any(first <= year <= last for year in years)


@dataclass(frozen=True)
class Legend:
    """What a raster's codes mean; a code that is in neither mapping is an error of the file."""

    classes: tuple[ClassInfo, ...]
    index_of_code: Mapping[int, int]
    """Of every known code: an index into `classes`, or `IGNORE` where it is left out."""
    nothing: frozenset[int] = frozenset()
    """Codes that leave the ground unknown (background, cloud), so that another file may know it."""

    @classmethod
    def of(cls, entries: Iterable[ClassInfo], nothing: Collection[int] = ()) -> Legend:
        """Every name a class: codes that share a name, as over the years, share their index."""
        classes: dict[str, ClassInfo] = {}
        index_of_code: dict[int, int] = {}
        for entry in entries:
            if entry.code not in nothing:
                classes.setdefault(entry.name, entry)
                index_of_code[entry.code] = list(classes).index(entry.name)
        assert len(classes) <= MOST_CLASSES
        return cls(tuple(classes.values()), index_of_code, frozenset(nothing))


def read_table(name: str) -> tuple[TableEntry, ...]:
    """The entries of ``dlbench/data/labels/tables/NAME.csv``, in its order."""
    return tuple(
        TableEntry(
            row["name"],
            (int(row["red"]), int(row["green"]), int(row["blue"])),
            int(row["code"]),
            int(row["first_year"]) if row.get("first_year") else None,
            int(row["last_year"]) if row.get("last_year") else None,
        )
        for row in read_rows(name)
    )


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of ``dlbench/data/labels/tables/NAME.csv`` by the names of its columns."""
    table = resources.files("dlbench.data.labels") / "tables" / f"{name}.csv"
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
