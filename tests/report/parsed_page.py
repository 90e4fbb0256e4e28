"""A page taken apart without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img", "wbr", "hr"}


@dataclass
class Table:
    """What a table shows, as text."""

    caption: str = ""
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    scopes: list[str | None] = field(default_factory=list)
    buttons: int = 0
    hidden: list[bool] = field(default_factory=list)
    """Of each row."""


class Page(HTMLParser):
    """Elements, tables and words of a page; elements that do not nest fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Table] = []
        self.data: dict[str, str] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        assert len(given) == len(attributes), f"an attribute twice in {tag}"
        self.elements.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr" and "tbody" in self.open:
            self.tables[-1].rows.append([])
            self.tables[-1].hidden.append("hidden" in given)
        elif tag in ("td", "th") and "tbody" in self.open:
            self.tables[-1].rows[-1].append("")
        elif tag == "th":
            self.tables[-1].heads.append("")
        if tag == "th":
            self.tables[-1].scopes.append(given.get("scope"))
        if tag == "button" and "thead" in self.open:
            self.tables[-1].buttons += 1

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            key = self.elements[-1][1].get("id")
            self.data[key or ""] = self.data.get(key or "", "") + data
            return
        self.words.append(data)
        if "tbody" in self.open and self.tables[-1].rows:
            self.tables[-1].rows[-1][-1] += data
        elif "thead" in self.open:
            self.tables[-1].heads[-1] += data
        elif "caption" in self.open:
            self.tables[-1].caption += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            given
            for name, given in self.elements
            if name == tag and all(given.get(k) == v for k, v in wanted.items())
        ]

    @property
    def text(self) -> str:
        return " ".join(self.words)
