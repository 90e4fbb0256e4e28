"""TFRecord files of `tf.train.Example`, read and written without TensorFlow.

A record is its length (uint64), the masked CRC-32C of that, the bytes, and their masked CRC-32C,
all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord). The bytes are a message
of https://protobuf.dev/programming-guides/encoding: features by name, each a list of one kind.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlbench.data.dataset import DataError

LARGEST = 2**30
"""Bytes of a record."""
# Field numbers: Example.features, Features.feature, the key and value of that map's entries, and
# in a Feature the list of each kind, whose values are field 1.
FEATURES = FEATURE = KEY = VALUES = 1
VALUE = 2
BYTES, FLOATS, INTEGERS = 1, 2, 3
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


def read(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The examples of a file, compressed (``.gz``) or not: by feature's name float32, int64 or,
    of bytes, uint8 values. Raises `DataError` for a damaged file.
    """
    number = 0
    try:
        with _opened(path, "rb") as file:
            while data := _record(file):
                yield _example(data)
                number += 1
    except (OSError, EOFError, zlib.error, ValueError, IndexError, UnicodeError) as error:
        raise DataError(
            f"cannot read {path}: record {number} is damaged or cut off ({error}); fetch it again"
        ) from error


class Writer:
    """A context in which `write` appends examples to ``file``; ``compressed`` as with gzip."""

    def __init__(self, file: IO[bytes], compressed: bool) -> None:
        # Without time and name, the same examples are the same bytes.
        self._gzip = gzip.GzipFile("", "wb", 6, file, mtime=0) if compressed else None
        self._file: Any = self._gzip or file

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._gzip is not None:
            self._gzip.close()

    def write(self, example: Mapping[str, np.ndarray]) -> None:
        """Append flat arrays by name: floating ones become floats, others integers from 0 on."""
        entries = []
        for name, values in example.items():
            if values.dtype.kind == "f":
                kind, packed = FLOATS, values.astype("<f4").tobytes()
            else:
                kind, packed = INTEGERS, varints(values)
            feature = _field(kind, _field(VALUES, packed))
            entries.append(_field(FEATURE, _field(KEY, name.encode()) + _field(VALUE, feature)))
        data = _field(FEATURES, b"".join(entries))
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked(length) + data + _masked(data))


def _opened(path: Path, mode: str) -> Any:
    return gzip.open(path, mode) if path.suffix.lower() == ".gz" else path.open(mode)


def _record(file: Any) -> bytes:
    """The next record, empty at the end of the file."""
    head = file.read(12)
    if not head:
        return b""
    if len(head) < 12 or _masked(head[:8]) != head[8:]:
        raise ValueError("its length fails its checksum")
    (length,) = struct.unpack("<Q", head[:8])
    if not 0 < length <= LARGEST:
        raise ValueError(f"its length is {length:,} bytes")
    data: bytes = file.read(length)
    if len(data) < length or _masked(data) != file.read(4):
        raise ValueError("it fails its checksum")
    return data


def _example(data: bytes) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for features in _fields(data, FEATURES):
        for entry in _fields(features, FEATURE):
            (name,) = _fields(entry, KEY)
            kinds = [(kind, value) for value in _fields(entry, VALUE) for kind in _kinds(value)]
            if kinds:
                kind, value = kinds[-1]
                found[bytes(name).decode()] = _values(kind, b"".join(_fields(value, kind)))
    return found


def _kinds(feature: bytes) -> list[int]:
    return [kind for kind in (BYTES, FLOATS, INTEGERS) if any(True for _ in _fields(feature, kind))]


def _values(kind: int, listed: bytes) -> np.ndarray:
    packed = b"".join(_fields(listed, VALUES))
    if kind == FLOATS:
        return np.frombuffer(packed, "<f4").astype(np.float32)
    return np.frombuffer(packed, np.uint8) if kind == BYTES else _integers(packed)


def _fields(data: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of all fields of one number; of those that are not packed, their bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        start, wire = place, tag & 7
        if wire == _VARINT:
            _, place = _varint(data, place)
        elif wire == _LENGTH:
            length, start = _varint(data, place)
            place = start + length
        elif wire in (_EIGHT, _FOUR):
            place += 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"a field of the unknown wire type {wire}")
        if place > len(data):
            raise ValueError("a field reaches beyond its message")
        if tag >> 3 == wanted:
            yield data[start:place]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _LENGTH]) + varints(np.array([len(content)])) + content


def varints(values: np.ndarray) -> bytes:
    """Whole numbers from 0 on as base-128 varints, one after the other."""
    rest = values.astype(np.uint64)
    digits: list[np.ndarray] = []
    while not digits or rest.any():
        digits.append(rest & np.uint64(127))
        rest = rest >> np.uint64(7)
    table = np.stack(digits, axis=-1).astype(np.uint8)
    # A byte is kept where it or one after it is not 0, and tells that another follows.
    more = np.flip(np.logical_or.accumulate(np.flip(table != 0, -1), axis=-1), -1)
    more[:, 0] = True
    table[:, :-1] |= np.where(more[:, 1:], 128, 0).astype(np.uint8)
    return table[more].tobytes()


def _integers(packed: bytes) -> np.ndarray:
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 128)
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise ValueError("a number is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if lengths.max(initial=0) > 10:
        raise ValueError("a number of more than ten bytes")
    values = np.zeros(len(ends), np.uint64)
    for digit in range(int(lengths.max(initial=0))):
        there = lengths > digit
        part = (data[starts[there] + digit] & 127).astype(np.uint64)
        values[there] |= part << np.uint64(7 * digit)
    return values.view(np.int64)


# CRC-32C (Castagnoli), as RFC 3720 has it, reflected.
_POLYNOMIAL = 0x82F63B78


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of at least four bytes, in lanes side by side that are then put together."""
    lane = 1 << len(data).bit_length() // 2
    lanes = 1 << ((len(data) - 1) // lane).bit_length()
    # With the first bytes inverted a register begins at 0, and zeros before them change nothing.
    padded = np.zeros(lanes * lane, np.uint8)
    padded[len(padded) - len(data) :] = np.frombuffer(data, np.uint8)
    padded[len(padded) - len(data) :][:4] ^= 255
    registers = np.zeros(lanes, np.uint32)
    for column in padded.reshape(lanes, lane).T:
        registers = _TABLE[(registers ^ column) & 255] ^ registers >> 8
    # What a register becomes after zeros is linear in its bits: 32 columns, of a lane first.
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    columns = _TABLE[columns & 255] ^ columns >> 8
    for _ in range(lane.bit_length() - 1):
        columns = _after(columns, columns)
    while len(registers) > 1:
        registers = _after(columns, registers[::2]) ^ registers[1::2]
        columns = _after(columns, columns)
    return int(registers[0]) ^ 0xFFFFFFFF


def _after(columns: np.ndarray, registers: np.ndarray) -> np.ndarray:
    bits = registers[:, None] >> np.arange(32, dtype=np.uint32) & 1
    return np.bitwise_xor.reduce(np.where(bits, columns, np.uint32(0)), axis=1)


def _masked(data: bytes) -> bytes:
    """The checksum turned and shifted, so that one of data that hold checksums is none of these."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
