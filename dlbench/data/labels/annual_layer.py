"""Maps that come as rasters of codes a year: which files a folder holds, what codes mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.data.dataset import DataError
from dlbench.data.labels.legend import Legend, TableEntry, read_table
from dlbench.data.labels.remapping import remap


@dataclass(frozen=True)
class AnnualLayer:
    """A product: its table of codes and how its files are named."""

    name: str
    table: str
    """Of ``dlbench/data/labels/tables``."""
    nothing: frozenset[int]
    """Codes that leave the ground unknown."""
    file_names: tuple[str, ...]
    """Regular expressions with a group ``year``, of a file's name, or of its folder and name;
    where two files hold a pixel, the one of the earlier expression counts."""
    examples: str
    """What the files are called, for people."""
    source: str

    def entries(self) -> tuple[TableEntry, ...]:
        return read_table(self.table)

    def legend(
        self,
        mapping: str | Mapping[str, Sequence[str | int]] | None = None,
        other: str = "ignore",
        colors: Mapping[str, str] | None = None,
        years: Collection[int] = (),
    ) -> Legend:
        """The classes that `remap` makes; without a mapping, all that are used in ``years``.

        Raises `DataError` for a class that no code of those years belongs to: it would never be
        seen.
        """
        entries = self.entries()
        if mapping is None:
            return Legend.of([e for e in entries if e.valid_in(years)], self.nothing)
        legend = remap(entries, mapping, other, colors, self.nothing)
        for index, wanted in enumerate(legend.classes):
            sources = [e for e in entries if legend.index_of_code.get(e.code) == index]
            if sources and not any(e.valid_in(years) for e in sources):
                names = ", ".join(f"{e.code} {e.name} ({_span(e)})" for e in sources)
                same = [e for e in entries if e.valid_in(years)]
                words = {word for e in sources for word in re.findall(r"\w{4,}", e.name.lower())}
                likely = [f"{e.code} {e.name}" for e in same if any(
                    word in e.name.lower() for word in words)]  # fmt: skip
                raise DataError(
                    f"class '{wanted.name}' of the mapping has no source that {self.name} "
                    f"{', '.join(map(str, sorted(years)))} uses: it takes {names}; "
                    f"add what those years use{': ' if likely else ''}{', '.join(likely)}"
                )
        return legend

    def find(self, folder: Path, year: int | None = None) -> dict[int, tuple[Path, ...]]:
        """The files in ``folder`` and its subfolders by year, or those of ``year`` alone.

        Raises `DataError` where there are none.
        """
        folder = Path(folder)
        if not folder.is_dir():
            reason = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"the folder of {self.name}, {folder}, {reason} (from {self.source})")
        found: dict[int, list[tuple[int, Path]]] = {}
        # An archive unpacks into a folder of its own name.
        for path in sorted([*folder.iterdir(), *folder.glob("*/*")]):
            for rank, pattern in enumerate(self.file_names):
                place = path.relative_to(folder).as_posix()
                match = re.fullmatch(rf"(?:.*/)?(?:{pattern})", place, re.IGNORECASE)
                if match and path.is_file():
                    found.setdefault(int(match["year"]), []).append((rank, path))
                    break
        if not found:
            raise DataError(
                f"{folder} holds no file of {self.name}; its files are called {self.examples} "
                f"(from {self.source})"
            )
        if year is not None and year not in found:
            raise DataError(
                f"{folder} holds no {self.name} of {year}; it holds "
                f"{', '.join(map(str, sorted(found)))}; add the file ({self.examples}) or take "
                f"another year"
            )
        return {
            number: tuple(path for _, path in sorted(files, key=lambda item: item[0]))
            for number, files in sorted(found.items())
            if year in (None, number)
        }


def _span(entry: TableEntry) -> str:
    if entry.last_year is not None:
        return f"to {entry.last_year}"
    return f"from {entry.first_year}"
