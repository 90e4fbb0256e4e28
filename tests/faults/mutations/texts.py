"""Damage to text: XML, YAML, JSON and tables."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults.mutations.any_file import Mutation, of_bytes

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    + "]>"
)


def _bomb(text: str, rng: np.random.Generator) -> str:
    return BOMB + re.sub(r"<\?xml.*?\?>", "", text).replace("</", "&l11;</", 1)


def _foreign(text: str, rng: np.random.Generator) -> str:
    head = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    return head + re.sub(r"<\?xml.*?\?>", "", text).replace("</", "&x;</", 1)


def _text(change: Callable[[str, np.random.Generator], str]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        text = file.read_bytes().decode("utf-8", "replace")
        file.write_bytes(change(text, rng).encode("utf-8", "surrogatepass"))

    return mutation


WORDS = (
    "", "nan", "inf", "-1", "0", "1e400", "9" * 5000, "é" * 9, "\N{GRINNING FACE}", "EPSG:0",
    "EPSG:99999999", "../../x", "2024-99-99", "null", "true", "[]", "{}", "-0", "1e9", "x" * 200,
)  # fmt: skip


def _word(text: str, rng: np.random.Generator) -> str:
    """One number, name or quoted text replaced."""
    found = list(re.finditer(r"(?<=>)[^<>\s]+(?=<)|[\w.+-]+", text))
    if not found:
        return text
    match = found[rng.integers(len(found))]
    return text[: match.start()] + WORDS[rng.integers(len(WORDS))] + text[match.end() :]


def _line(text: str, rng: np.random.Generator) -> str:
    lines = text.splitlines(keepends=True)
    if lines:
        at = int(rng.integers(len(lines)))
        lines[at : at + 1] = [] if rng.random() < 0.5 else [lines[at]] * 2
    return "".join(lines)


def _with_nul(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text) + 1))
    return text[:at] + "\0" * int(rng.choice([1, 40])) + text[at:]


def _less(text: str, rng: np.random.Generator) -> str:
    names = re.findall(r"<(\w+)[ >]", text)
    name = names[rng.integers(len(names))] if names else "a"
    return re.sub(f"<{name}[^>]*>.*?</{name}>", "", text, count=1, flags=re.DOTALL)


TEXT: dict[str, Mutation] = {
    "a word replaced": _text(_word),
    "another word replaced": _text(_word),
    "a line removed or doubled": _text(_line),
    "NUL bytes": _text(_with_nul),
    "in UTF-16": of_bytes(lambda data, rng: data.decode("utf-8", "replace").encode("utf-16")),
    "in capitals": _text(lambda text, rng: text.upper()),
    "a field of a megabyte": _text(
        lambda text, rng: text.replace(",", ',"' + "x" * 2**20 + '",', 1)
    ),
}
XML = TEXT | {
    "a billion laughs": _text(_bomb),
    "an external entity": _text(_foreign),
    "a million levels": _text(lambda text, rng: "<a>" * 1_000_000 + text + "</a>" * 1_000_000),
    "without an element": _text(_less),
}  # fmt: skip

_ALIASES = "".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(12)
)
YAML = TEXT | {
    "aliases of aliases": _text(lambda text, rng: _ALIASES + text),
    "a section of aliases": _text(
        lambda text, rng: (
            _ALIASES + re.sub(r"(?m)^(seed|model|name):.*", r"\1: *l11", text, count=1)
        )
    ),
    "ten thousand levels": _text(lambda text, rng: text + "x: " + "[" * 10_000 + "]" * 10_000),
    "objects of Python": _text(
        lambda text, rng: text + "\nname: !!python/object/apply:os.system ['touch outside']\n"
    ),
    "an alias of itself": _text(lambda text, rng: "name: &a [*a]\n" + text),
    "options of other kinds": _text(
        lambda text, rng: re.sub(r"options: \{\}", "options: {x_axis: [], width: {}}", text)
    ),
}


def json_value(content: Any, rng: np.random.Generator) -> Any:
    """JSON with one value or key, somewhere, replaced."""
    odd: tuple[Any, ...] = (
        None,
        -1,
        1e308,
        "x",
        [],
        {},
        [[]],
        True,
        2**70,
        "\0",
        float("nan"),
        "9" * 5000,
    )
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = sorted(content)[rng.integers(len(content))]
        if rng.random() < 0.2:
            return {("x" if k == key else k): v for k, v in content.items()}
        return {**content, key: json_value(content[key], rng)}
    if isinstance(content, list) and content and rng.random() < 0.9:
        at = int(rng.integers(len(content)))
        return [*content[:at], json_value(content[at], rng), *content[at + 1 :]]
    return odd[rng.integers(len(odd))]


def _json(file: Path, rng: np.random.Generator) -> None:
    file.write_text(json.dumps(json_value(json.loads(file.read_text()), rng)))


JSON = TEXT | {
    "a value replaced": _json, "a value replaced again": _json,
    "ten thousand levels": _text(lambda text, rng: "[" * 10_000 + text + "]" * 10_000),
}  # fmt: skip


def _table(change: Callable[[list[list[str]], np.random.Generator], None]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
        change(rows, rng)
        with file.open("w", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows(rows)

    return mutation


def _column(change: Callable[[list[str], int, np.random.Generator], None]) -> Mutation:
    def changed(rows: list[list[str]], rng: np.random.Generator) -> None:
        at = int(rng.integers(len(rows[0])))
        for row in rows:
            change(row, at, rng)

    return _table(changed)


def _cell(rows: list[list[str]], rng: np.random.Generator) -> None:
    row, at = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
    rows[row][at] = WORDS[rng.integers(len(WORDS))]


CSV = TEXT | {
    "a column less": _column(lambda row, at, rng: row.__delitem__(at)),
    "a column doubled": _column(lambda row, at, rng: row.append(row[at])),
    "columns swapped": _column(lambda row, at, rng: row.insert(0, row.pop(at))),
    "a cell replaced": _table(_cell),
    "a field renamed": _table(lambda rows, rng: rows[0].__setitem__(
        rng.integers(len(rows[0])), "other")),
    "the header alone": _table(lambda rows, rng: rows.__delitem__(slice(1, None))),
    "an open quote": _text(lambda text, rng: text.replace(",", ',"', 1)),
}  # fmt: skip
