"""Classes of one's own from the codes of a published table, as a configuration words them:

    mapping:
      winter wheat: [Winter Wheat, 26]    # names in any case, or codes
      woods: ["141-143", Forest]          # a range takes the known codes within it
    other: ignore                         # or the class of everything else that is known
    colors: {woods: "#006600"}            # else the colour of a class's first source

``mapping: belgiu_csillik_2018`` takes a preset: a row of `PRESETS`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dlbench.data.dataset import IGNORE, ClassInfo, DataError
from dlbench.data.labels.legend import MOST_CLASSES, Legend, read_rows

PRESETS = {
    "belgiu_csillik_2018": "crops and land cover of a CDL site in the manner of Belgiu & Csillik, "
    "Remote Sensing of Environment 204 (2018) 509-523, who map Sentinel-2 time series; not the "
    "class list of any one of their study areas",
}
"""Mappings in ``dlbench/data/labels/tables/NAME.csv``, their sources by name in the CDL's table."""

OTHER_COLOR = (128, 128, 128)


def remap(
    entries: Sequence[ClassInfo],
    mapping: str | Mapping[str, Sequence[str | int]],
    other: str = "ignore",
    colors: Mapping[str, str] | None = None,
    nothing: Collection[int] = (),
) -> Legend:
    """The legend in which each class of ``mapping`` gathers its sources among ``entries``.

    Known codes that no class takes are ignored, or of the class ``other``; those of ``nothing``
    are unknown ground unless a class takes them. Raises `DataError` for what is misspelt,
    claimed twice, or empty.
    """
    if isinstance(mapping, str):
        mapping = _preset(mapping)
    if not isinstance(mapping, Mapping) or not mapping:
        raise DataError(
            f"the class mapping is {mapping!r}; give a list of source classes by class name, "
            f"{{wheat: [Winter Wheat]}}, or a preset: {', '.join(PRESETS)}"
        )
    if not isinstance(other, str) or not other.strip():
        raise DataError(f"other is {other!r}; allowed: ignore, or a class name")
    taken: dict[int, str] = {}
    first: dict[str, ClassInfo] = {}
    for name, sources in mapping.items():
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"the class name {name!r} of the mapping is no text; put it in quotes")
        if isinstance(sources, str | int) or not isinstance(sources, Sequence) or not sources:
            raise DataError(
                f"class '{name}' of the mapping is {sources!r}; give a list of source classes, "
                'by name, code or range: [Winter Wheat, 26, "141-143"]'
            )
        for entry in (found for source in sources for found in _find(entries, source, name)):
            first.setdefault(name, entry)
            if taken.setdefault(entry.code, name) != name:
                raise DataError(
                    f"code {entry.code} ({entry.name}) is a source of both '{taken[entry.code]}' "
                    f"and '{name}' in the class mapping; leave it to one of them"
                )
    names = list(first)
    if other != "ignore":
        names += [] if other in first else [other]
        for entry in entries:
            if entry.code not in nothing:
                taken.setdefault(entry.code, other)
    palette = {name: entry.color for name, entry in first.items()} | _colors(colors, names)
    classes = tuple(
        # Merged codes have no code in common, and "other" may have none at all.
        ClassInfo(name, palette.get(name, OTHER_COLOR), first[name].code if name in first else -1)
        for name in names
    )
    if len(classes) > MOST_CLASSES:
        raise DataError(f"the mapping has {len(classes)} classes, allowed: up to {MOST_CLASSES}")
    index_of_code = {code: names.index(name) for code, name in taken.items()}
    left_out = {e.code: IGNORE for e in entries if e.code not in {*taken, *nothing}}
    return Legend(classes, index_of_code | left_out, frozenset(nothing) - set(taken))


def _preset(name: str) -> dict[str, list[str | int]]:
    if name not in PRESETS:
        raise DataError(f"unknown class mapping '{name}'; presets: {', '.join(PRESETS)}")
    mapping: dict[str, list[str | int]] = {}
    for row in read_rows(name):
        mapping.setdefault(row["class"], []).append(row["source"])
    return mapping


def _find(entries: Sequence[ClassInfo], source: str | int, name: str) -> list[ClassInfo]:
    """The entries that a source stands for; never none."""
    asked = f"source {source!r} of class '{name}' in the class mapping"
    if isinstance(source, bool) or not isinstance(source, str | int):
        raise DataError(f"{asked} is neither a name, a code nor a range; put it in quotes")
    text = " ".join(str(source).split()).casefold()
    codes = re.fullmatch(r"(\d+)(?: ?- ?(\d+))?", text)
    if codes:
        low, high = int(codes[1]), int(codes[2] or codes[1])
        found = [e for e in entries if low <= e.code <= high]
        near = sorted((e.code for e in entries), key=lambda code: abs(code - low))[:3]
        hint = "the nearest: " + ", ".join(map(str, sorted(near)))
    else:
        found = [e for e in entries if e.name.casefold() == text]
        known = {e.name.casefold(): e.name for e in entries}
        # A part of a name ("wheat") is no close match by letters, yet often what was meant.
        parts = [n for n in known if text in n]
        close = [*parts, *difflib.get_close_matches(text, known, n=3)][:8]
        hint = "close to it: " + (", ".join(known[n] for n in dict.fromkeys(close)) or "nothing")
    if not found:
        raise DataError(f"{asked} is in no entry of the class table; {hint}")
    return found


def _colors(colors: Mapping[str, Any] | None, names: list[str]) -> dict[str, tuple[int, int, int]]:
    parsed = {}
    for name, color in (colors or {}).items():
        if name not in names:
            raise DataError(
                f"colors names '{name}', which is no class of the mapping; its classes: "
                + ", ".join(names)
            )
        if not isinstance(color, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            raise DataError(f"the color of '{name}' is {color!r}; write it as \"#rrggbb\"")
        red, green, blue = bytes.fromhex(color[1:])
        parsed[name] = (red, green, blue)
    return parsed
