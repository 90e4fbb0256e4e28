from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from dlbench.data.dataset import DataError
from dlbench.data.imagery import tfrecord

RNG = np.random.default_rng(0)
EXAMPLES: list[dict[str, np.ndarray]] = [
    {
        "B2": RNG.normal(size=300).astype(np.float32),
        "class": RNG.integers(0, 256, 300),
        "no": np.array([0, 1, 127, 128, 16_383, 16_384, 2**40]),
    },
    {"B2": np.zeros(1, np.float32), "class": np.zeros(0, np.int64)},
]


def written(path: Path) -> Path:
    with path.open("wb") as file, tfrecord.Writer(file, path.suffix == ".gz") as writer:
        for example in EXAMPLES:
            writer.write(example)
    return path


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        # RFC 3720, section B.4, and the check value of the catalogue of CRCs.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_checksums(data: bytes, crc: int) -> None:
    assert tfrecord.crc32c(data) == crc


@pytest.mark.parametrize("size", [4, 1023, 1024, 1025, 3000, 70_001])
def test_lanes_are_put_together(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    crc = 0xFFFFFFFF
    for byte in data:  # bit by bit, as the definition has it
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    assert tfrecord.crc32c(data) == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_tensorflow_reads_what_is_written_and_the_other_way_round(
    tmp_path: Path, name: str
) -> None:
    tf = pytest.importorskip("tensorflow")
    kind = "GZIP" if name.endswith(".gz") else ""
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(written(tmp_path / name)), kind)]
    assert len(records) == len(EXAMPLES)
    for record, example in zip(records, EXAMPLES, strict=True):
        feature = tf.train.Example.FromString(record).features.feature
        assert set(feature) == set(example)
        np.testing.assert_array_equal(feature["B2"].float_list.value, example["B2"])
        np.testing.assert_array_equal(feature["class"].int64_list.value, example["class"])
    theirs = tf.train.Example()
    theirs.features.feature["B2"].float_list.value.extend([1.5, -2.0])
    theirs.features.feature["n"].int64_list.value.extend([-1, 2**62, 300])
    theirs.features.feature["byte"].bytes_list.value.append(b"\x00\xff")
    theirs.features.feature["none"].SetInParent()
    with tf.io.TFRecordWriter(str(tmp_path / f"their-{name}"), kind) as writer:
        writer.write(theirs.SerializeToString())
    (found,) = tfrecord.read(tmp_path / f"their-{name}")
    assert {k: v.tolist() for k, v in found.items()} == {
        "B2": [1.5, -2.0], "n": [-1, 2**62, 300], "byte": [0, 255],
    }  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    for found, example in zip(
        tfrecord.read(written(tmp_path / "a.tfrecord.gz")), EXAMPLES, strict=True
    ):
        for name, values in example.items():
            np.testing.assert_array_equal(found[name], values)
    again = written(tmp_path / "b.tfrecord.gz").read_bytes()
    assert again == (tmp_path / "a.tfrecord.gz").read_bytes()


def test_values_that_are_not_packed() -> None:
    floats = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, 2.5))
    whole = b"\x0a" + bytes([len(floats) + 2]) + b"\x12" + bytes([len(floats)]) + floats
    entry = b"\x0a\x01x\x12" + bytes([len(whole) - 2]) + whole[2:]
    example = b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry
    found = tfrecord._example(example)
    assert found["x"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_each_damaged_byte_is_told(tmp_path: Path, name: str) -> None:
    whole = written(tmp_path / name).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / f"damaged-{name}"
    first = 10 if name.endswith(".gz") else 0  # of gzip's header nothing is checked
    for place in rng.integers(first, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"cannot read .*damaged-{name}: record [01] is"):
            list(tfrecord.read(path))
    for length in rng.integers(1, len(whole), 10):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged or cut off"):
            list(tfrecord.read(path))


def test_messages_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    rng = np.random.default_rng(2)
    for _ in range(300):
        data = rng.bytes(int(rng.integers(1, 40)))
        length = struct.pack("<Q", len(data))
        if len(data) < 4:
            continue
        path.write_bytes(length + tfrecord._masked(length) + data + tfrecord._masked(data))
        try:
            for found in tfrecord.read(path):
                assert all(isinstance(v, np.ndarray) for v in found.values())
        except DataError as error:
            assert "a.tfrecord" in str(error)


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord.gz"
    for content in (b"text", gzip.compress(b"some text that is no record at all")):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot read"):
            list(tfrecord.read(path))
