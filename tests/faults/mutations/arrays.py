"""Damage to arrays: npz, HDF5 and FITS."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from faults.mutations.any_file import HOSTILE, Mutation
from faults.mutations.archives import archive, header_field, member_link, renamed, zip_bomb


def _array(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Mutation:
    """An array of an npz changed; what is larger than it says is told by its header alone."""

    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        at = int(rng.integers(len(members)))
        array = change(np.load(io.BytesIO(members[at][1])), rng)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        members[at] = members[at][0], buffer.getvalue()

    return archive(changed)


def _npy_shape(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    info, data = members[at]
    text = re.sub(rb"'shape': \(.*?\)", b"'shape': (%d, 64, 64, 2)" % 2 ** int(rng.integers(8, 44)),
                  data[10:138])  # fmt: skip
    members[at] = info, data[:8] + struct.pack("<H", len(text)) + text + data[138:]


ARRAYS: dict[str, Callable[[np.ndarray, np.random.Generator], Any]] = {
    "NaN": lambda array, rng: np.full_like(array, np.nan, np.float32),
    "infinite": lambda array, rng: np.full_like(array, np.inf, np.float32),
    "of text": lambda array, rng: array.astype("S4"),
    "of unicode": lambda array, rng: array.astype("U4"),
    "complex": lambda array, rng: array.astype(np.complex64),
    "of whole numbers": lambda array, rng: (array * 100).astype(np.int16),
    "of booleans": lambda array, rng: array > 0,
    "of records": lambda array, rng: np.zeros(array.shape, [("a", "f4"), ("b", "f4")]),
    "of dates": lambda array, rng: np.zeros(array.shape, "M8[s]"),
    "of a dimension less": lambda array, rng: array[..., 0] if array.ndim else array,
    "of a dimension more": lambda array, rng: array[None],
    "scalar": lambda array, rng: array.dtype.type(0),
    "of no elements": lambda array, rng: array[:0] if array.ndim else array,
    "shorter": lambda array, rng: array[:-1] if array.ndim else array,
    "transposed": lambda array, rng: array.T,
}
ZIP: dict[str, Mutation] = {
    "a member above": renamed("../../{name}"),
    "an absolute member": renamed("/tmp/{name}"),
    "a member of Windows": renamed("C:\\{name}"),
    "a member of a long name": renamed("x" * 40000),
    "a member renamed": renamed("other/{name}"),
    "a link": archive(member_link),
    "a bomb": archive(zip_bomb),
    "a member twice": archive(lambda members, rng: members.append(members[0])),
    "a member less": archive(lambda members, rng: members.pop(int(rng.integers(len(members))))
                              and None),
    "a directory's field": header_field,
    "a directory's field again": header_field,
}  # fmt: skip
NPZ = ZIP | {
    "a hostile shape": archive(_npy_shape),
    "an array of objects": _array(lambda array, rng: np.array([{}, array], object)),
    **{f"an array {name}": _array(change) for name, change in ARRAYS.items()},
}


def _dataset(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        with h5py.File(file, "r+") as held:
            name = sorted(held)[0]
            array, facts = held[name][()], dict(held[name].attrs)
            array = np.asarray(change(array, rng))
            del held[name]
            if array.dtype.kind == "U":
                array = array.astype("S")
            held.create_dataset(name, data=array.view("i8") if array.dtype.kind == "M" else array)
            held[name].attrs.update(facts)

    return mutation


def _declared(file: Path, rng: np.random.Generator) -> None:
    """More elements than memory has, none of them stored."""
    with h5py.File(file, "r+") as held:
        name = sorted(held)[0]
        shape, kind = held[name].shape, held[name].dtype
        del held[name]
        axis = int(rng.integers(len(shape)))
        huge = tuple(
            2 ** int(rng.integers(24, 44)) if n == axis else s for n, s in enumerate(shape)
        )
        held.create_dataset(name, huge, kind, chunks=(1,) * len(shape))


def _attribute(file: Path, rng: np.random.Generator) -> None:
    odd = ("text", np.nan, np.inf, -1.0, 0.0, np.zeros((0,)), np.ones((3, 3)), b"\xff", True, 1j)
    names = ("minimum", "maximum", "pixel_km", "cadence_s")
    with h5py.File(file, "r+") as held:
        attributes = held[sorted(held)[0]].attrs
        attributes[names[rng.integers(len(names))]] = odd[rng.integers(len(odd))]


def _hdf5_link(file: Path, rng: np.random.Generator) -> None:
    with h5py.File(file, "r+") as held:
        name = sorted(held)[0]
        del held[name]
        links = (h5py.SoftLink(f"/{name}"), h5py.ExternalLink("gone.h5", "/x"), None)
        link = links[rng.integers(3)]
        if link is None:
            held.create_group(name)
        else:
            held[name] = link


HDF5: dict[str, Mutation] = {
    "a hostile shape": _declared,
    "an odd attribute": _attribute,
    "an odd attribute too": _attribute,
    "a link": _hdf5_link,
    **{f"an array {name}": _dataset(change) for name, change in ARRAYS.items()},
}  # fmt: skip


def _card(file: Path, rng: np.random.Generator) -> None:
    """A card of a FITS header with another value."""
    data = bytearray(file.read_bytes())
    end = data.find(b"END     ")
    cards = [n for n in range(80, max(end, 0), 80) if data[n + 8 : n + 10] == b"= "]
    if not cards:
        return
    known = [n for n in cards if data[n : n + 5] in (b"NAXIS", b"BITPI")]
    at = rng.choice(known if known and rng.random() < 0.7 else cards)
    values = (*HOSTILE, -1, -32, 16, 3, 10**12, "'text'", "NaN", "1E999", "T", "''", "(1,2)")
    data[at + 10 : at + 80] = f"{values[rng.integers(len(values))]!s:>20}".ljust(70).encode()
    file.write_bytes(data)


FITS: dict[str, Mutation] = {f"a card replaced, {n}": _card for n in range(4)}
