"""Damage to the members of zip archives."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults.mutations.any_file import ANY, HOSTILE, Mutation


def _members(file: Path) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def archive(
    change: Callable[[list[tuple[zipfile.ZipInfo, bytes]], np.random.Generator], None],
) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        members = _members(file)
        change(members, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of members there twice
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for info, data in members:
                    archive.writestr(info, data)

    return mutation


def renamed(name: str) -> Mutation:
    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        info = members[rng.integers(len(members))][0]
        info.filename = name.format(name=info.filename)

    return archive(changed)


def member_link(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    members[at][0].external_attr = 0o120777 << 16
    members[at] = members[at][0], b"../../outside"


def zip_bomb(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    members[at][0].compress_type = zipfile.ZIP_DEFLATED
    members[at] = members[at][0], bytes(200 << 20)


def member(kinds: dict[str, dict[str, Mutation]]) -> Mutation:
    """Damage to a file inside, as to one that lies in a folder."""

    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        import tempfile

        at = int(rng.integers(len(members)))
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder) / Path(members[at][0].filename).name
            inside.write_bytes(members[at][1])
            suffix = inside.suffix.lower()
            chosen = {n: m for n, m in {**ANY, **kinds.get(suffix, {})}.items()
                      if n not in ("removed", "a folder", "a loop of links")}  # fmt: skip
            list(chosen.values())[rng.integers(len(chosen))](inside, rng)
            members[at] = members[at][0], inside.read_bytes()

    return archive(changed)


def header_field(file: Path, rng: np.random.Generator) -> None:
    """A field of a member's entry in the central directory: flags, method, sizes, offset."""
    data = bytearray(file.read_bytes())
    entries = [m.start() for m in re.finditer(b"PK\1\2", bytes(data))]
    entry = entries[rng.integers(len(entries))]
    place, form = ((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I"))[
        rng.integers(6)
    ]
    limit = 2 ** (8 * struct.calcsize(form))
    struct.pack_into(form, data, entry + place, HOSTILE[rng.integers(len(HOSTILE))] % limit)
    file.write_bytes(data)
