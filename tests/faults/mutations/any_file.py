"""Damage to any file, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Mutation = Callable[[Path, np.random.Generator], None]

HOSTILE = (0, 1, 2, 7, 255, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGEST_CROP = 256


def of_bytes(change: Callable[[bytearray, np.random.Generator], bytes | bytearray]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        file.write_bytes(change(bytearray(file.read_bytes()), rng))

    return mutation


def flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    # Headers are short, yet most of a format is in them.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
    for place in rng.integers(0, max(reach, 1), int(rng.choice([1, 4, 32]))):
        if data:
            data[place] ^= int(rng.integers(1, 256))
    return data


def _zeroed(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(0, len(data) + 1))
    length = min(int(rng.choice([8, 64, 512, 4096])), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def _moved(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, end = sorted(map(int, rng.integers(0, len(data) + 1, 2)))
    return data[:start] + data[end:] + data[start:end]


OTHER_FORMATS = (
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"PK\5\6" + bytes(18), b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0\0\0", b"\x89HDF\r\n\x1a\n",
    b"SIMPLE  =                    T" + b" " * 50 + b"END" + b" " * 2797, b"{}", b"[]", b"null",
    b"SQLite format 3\0", b"\x93NUMPY\x01\0\x02\0{}", b"<a/>", bytes(4096),
    b"<VRTDataset rasterXSize='9' rasterYSize='9'><VRTRasterBand dataType='Byte' band='1'>"
    b"<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand>"
    b"</VRTDataset>",
)  # fmt: skip


def _removed(file: Path, rng: np.random.Generator) -> None:
    file.unlink()


def _a_folder(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.mkdir()


def _a_loop(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.symlink_to(file.name)


ANY: dict[str, Mutation] = {
    "truncated": of_bytes(lambda data, rng: data[: int(rng.integers(0, len(data) + 1))]),
    "flipped": of_bytes(flipped),
    "zeroed": of_bytes(_zeroed),
    "moved": of_bytes(_moved),
    "emptied": of_bytes(lambda data, rng: b""),
    "padded": of_bytes(lambda data, rng: data + rng.bytes(300)),
    "of another format": of_bytes(
        lambda data, rng: OTHER_FORMATS[rng.integers(len(OTHER_FORMATS))]
    ),
    "noise": of_bytes(lambda data, rng: rng.bytes(len(data))),
    "removed": _removed,
    "a folder": _a_folder,
    "a loop of links": _a_loop,
}
