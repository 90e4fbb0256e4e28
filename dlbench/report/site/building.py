"""From result files to the folder of pages."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from pandas import DataFrame

from dlbench.errors import UserError
from dlbench.report import tables
from dlbench.report.site import comparison, pages, setups, summary
from dlbench.report.site.markup import GENERATOR
from dlbench.report.site.sorting import archive

ASSETS = ("style.css", "theme.js", "table.js", "compare.js")
WRITTEN = (
    *("index.html", "workloads.html", "compare.html", "downloads.html"),
    *("setup-*.html", "workload-*.html", "results.csv", "results.json", "summary.md", *ASSETS),
)
"""Names that a report gives its files."""


class ReportError(UserError):
    """A report that cannot be built; the message says why and what to do."""


def build(paths: Sequence[Path], folder: Path) -> None:
    """See `dlbench.report.site.build`."""
    folder = Path(os.path.realpath(folder))
    _refuse_others(folder)  # before the minutes that many files may take
    frame = tables.load(paths)
    # A file that was named twice is still one launch.
    frame = frame.drop_duplicates([*tables.WORKLOAD, "created", "fingerprint", "setup"]).copy()
    if frame.empty:
        raise ReportError(f"no measurement is in the {len(paths)} files given: nothing to report")
    _publish(dict(_files(frame)), folder)


def _files(frame: DataFrame) -> Iterator[tuple[str, str]]:
    found = archive(frame)
    compared = comparison.precomputed(frame, found)
    short = summary.text(found, compared)
    yield "index.html", pages.index(found)
    yield "workloads.html", pages.workloads(found)
    yield from pages.families(found)
    yield from setups.pages(found)
    yield "compare.html", comparison.page(found, compared)
    yield "downloads.html", pages.downloads(short)
    yield "summary.md", short
    numbers = frame.drop(columns=["record", "environment"])
    yield "results.csv", numbers.to_csv(index=False)
    yield "results.json", numbers.to_json(orient="records", date_format="iso", indent=1)
    for name in ASSETS:
        yield name, resources.files(__package__).joinpath(name).read_text("utf-8")


def _publish(files: Mapping[str, str], folder: Path) -> None:
    """Write beside ``folder`` and rename, so that no reader meets half a report."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name, text in files.items():
            # Text of others' files may hold halves of surrogate pairs, which UTF-8 has not.
            new.joinpath(name).write_text(text, "utf-8", errors="replace")
        _refuse_others(folder)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(temporary)


def _refuse_others(folder: Path) -> None:
    """Raise unless ``folder`` may be replaced: absent, empty, or a report and nothing else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ReportError(f"{folder} is a file; name a folder for the report")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    others = [name for name in names if not any(fnmatch.fnmatch(name, w) for w in WRITTEN)]
    index = folder / "index.html"
    if others or not index.is_file() or GENERATOR not in index.read_text("utf-8", "replace")[:2000]:
        told = f"holds '{others[0]}'" if others else "has no index.html that a report wrote"
        raise ReportError(
            f"{folder} {told}: it is not a report, which alone is replaced; name another folder"
        )
