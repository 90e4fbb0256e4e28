"""A chart with what is said about it, and how launches are named in it."""

from __future__ import annotations

from typing import NamedTuple

from dlbench.report.site.archive import Launch, Setup
from dlbench.report.site.markup import UNKNOWN, Cell, details, escape

GIB = 2**30


class Figure(NamedTuple):
    """A chart with what is said about it and its numbers."""

    key: str
    title: str
    note: str
    drawing: str
    numbers: str

    def html(self) -> str:
        return (
            f'<figure id="{escape(self.key)}"><figcaption><h2>{escape(self.title)}</h2>'
            f"<p>{escape(self.note)}</p></figcaption>{self.drawing}"
            f"{details('The same numbers as a table', self.numbers)}</figure>"
        )


def moment(launch: Launch) -> str:
    return launch.name if launch.created is None else f"{launch.created:%Y-%m-%d %H:%M} UTC"


def when(launch: Launch) -> Cell:
    if launch.created is None:
        return Cell(UNKNOWN)
    return Cell(f"{launch.created:%Y-%m-%d %H:%M}", launch.created.timestamp())


def setup_cell(setup: Setup, label: str) -> Cell:
    """The name of a setup that leads to its page."""
    return Cell(label, href=f"setup-{setup.slug}.html")
