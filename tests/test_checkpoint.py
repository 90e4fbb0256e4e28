"""Checkpoints are whole, verified, or refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from dlbench import checkpoint
from dlbench.errors import FINAL, exit_status

ARRAYS: dict[str, np.ndarray] = {
    "model/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "optimizer/0/iteration": np.array(7, dtype=np.int64),
    "model/seed": np.array([1, 2], dtype=np.uint32),
}


class Variable:
    """Stands for a Keras variable: a shape and `assign`."""

    def __init__(self, *shape: int) -> None:
        self.value = np.zeros(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def assign(self, value: np.ndarray) -> None:
        self.value = value


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "last.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 3, "history": [{"loss": 0.1 + 0.2}]})
    arrays, meta = checkpoint.load(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert meta["epoch"] == 3
    assert meta["history"] == [{"loss": 0.1 + 0.2}]


def test_every_truncation_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 1})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(checkpoint.CheckpointError, match="last.npz"):
            checkpoint.load(path)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            arrays, meta = checkpoint.load(path)
        except checkpoint.CheckpointError:
            continue
        # Some bytes of a zip file (dates, attributes) carry nothing.
        assert meta["epoch"] == 1
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_pickled_content_is_never_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    path = tmp_path / "last.npz"
    np.savez(path, x=np.array([Hostile()], dtype=object))
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 1})

    def fails(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.write_atomically(path, fails)
    assert checkpoint.load(path)[1]["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]


def test_another_schema_and_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint"):
        checkpoint.load(path)
    checkpoint.save(path, ARRAYS, {"schema": "dlbench.checkpoint/99"})
    with pytest.raises(checkpoint.CheckpointError, match="checkpoint/99"):
        checkpoint.load(path)
    fits, other = Variable(3, 4), Variable(5)
    with pytest.raises(checkpoint.CheckpointError, match="lacks 1 of"):
        checkpoint.assign({"model/kernel": fits, "model/bias": other}, ARRAYS, path)
    with pytest.raises(checkpoint.CheckpointError, match="has shape"):
        checkpoint.assign({"model/kernel": fits, "model/seed": other}, ARRAYS, path)
    assert not fits.value.any(), "nothing is assigned unless everything fits"


def epochs_there(newest: Path) -> list[int]:
    return [checkpoint.load(path)[1]["epoch"] for path in (newest, *checkpoint.earlier(newest))]


@pytest.mark.parametrize("links", [True, False])
def test_the_newest_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    if not links:
        monkeypatch.setattr(checkpoint.os, "link", refuse)
    newest = tmp_path / "last.npz"
    for epoch in range(1, 6):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=3)
        assert epochs_there(newest) == [5, 4, 3, 2, 1][5 - epoch :][:3]
    checkpoint.save(newest, ARRAYS, {"epoch": 6}, kept=1)
    assert epochs_there(newest) == [6]
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


def test_a_write_that_fails_leaves_all_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = tmp_path / "last.npz"
    for epoch in (1, 2):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(checkpoint.WriteError, match=r"cannot write .*last.npz: No space left"):
        checkpoint.save(newest, ARRAYS, {"epoch": 3}, kept=2)
    assert epochs_there(newest) == [2, 1]


def test_the_newest_whole_one_is_loaded(tmp_path: Path) -> None:
    newest, told = tmp_path / "last.npz", list[str]()
    for epoch in (1, 2, 3):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=3)
    assert checkpoint.load_newest(newest, told.append)[1:] == (
        {"schema": checkpoint.SCHEMA, "epoch": 3},
        newest,
    )
    assert not told
    newest.write_bytes(newest.read_bytes()[:-100])
    one = tmp_path / "last-1.npz"
    one.write_bytes(b"")
    _, meta, path = checkpoint.load_newest(newest, told.append)
    assert (meta["epoch"], path.name) == (1, "last-2.npz")
    assert len(told) == 1 and "last.npz" in told[0] and "last-1.npz" in told[0]
    path.write_bytes(b"no")
    with pytest.raises(checkpoint.DamagedError, match="last.npz is damaged"):
        checkpoint.load_newest(newest, told.append)


def test_a_newest_that_is_missing_is_told_and_the_one_before_it_loaded(tmp_path: Path) -> None:
    newest, told = tmp_path / "last.npz", list[str]()
    for epoch in (1, 2, 3):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=3)
    newest.unlink()
    _, meta, path = checkpoint.load_newest(newest, told.append)
    assert (meta["epoch"], path.name) == (2, "last-1.npz")
    assert f"there is no checkpoint {newest}" in told[0] and "damaged" not in told[0]
    checkpoint.replace_lost(newest, path)
    assert epochs_there(newest) == [2, 1]
    assert len(list(tmp_path.iterdir())) == 2


def test_where_none_is_whole_the_best_stands_in_and_stays(tmp_path: Path) -> None:
    newest, best, told = tmp_path / "last.npz", tmp_path / "best.npz", list[str]()
    checkpoint.save(best, ARRAYS, {"epoch": 1})
    for epoch in (2, 3):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=2)
    assert checkpoint.load_newest(newest, told.append, reserve=best)[2] == newest
    newest.unlink()
    (tmp_path / "last-1.npz").write_bytes(b"damaged")
    *_, path = checkpoint.load_newest(newest, told.append, reserve=best)
    assert path == best
    checkpoint.replace_lost(newest, path)
    assert checkpoint.load(newest)[1] == checkpoint.load(best)[1]
    best.unlink()
    newest.unlink()
    with pytest.raises(checkpoint.AbsentError, match="no checkpoint .*last.npz"):
        checkpoint.load_newest(newest, told.append, reserve=best)


PASSING = [
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.EINTR,
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "number"),
    [
        *((OSError(number, os.strerror(number)), number) for number in PASSING),
        (OSError(errno.EACCES, "Permission denied"), errno.EACCES),
        (MemoryError("Unable to allocate 2 GiB"), errno.ENOMEM),
    ],
)
def test_one_that_cannot_be_read_is_not_taken_as_damaged(
    error: Exception, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on a network may come back; the checkpoint before would cost an epoch. A supervisor
    tries again, where that can help."""
    newest, final = tmp_path / "last.npz", tmp_path / "final"
    for epoch in (1, 2):
        checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=2)

    def away(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint.np, "load", away)
    reason = error.strerror if isinstance(error, OSError) else str(error)
    with pytest.raises(checkpoint.ReadError, match=f"cannot read .*last.npz: {reason}; ") as told:
        checkpoint.load_newest(newest, print)
    assert told.value.errno == number
    monkeypatch.setenv(FINAL, str(final))
    assert exit_status("test", lambda: checkpoint.load_newest(newest, print)) == 2
    assert final.exists() == (number == errno.EACCES)


def test_a_damaged_header_may_ask_for_any_amount_of_memory(tmp_path: Path) -> None:
    newest, told = tmp_path / "last.npz", list[str]()
    for epoch in (1, 2):
        checkpoint.save(newest, {"x": np.zeros(99999)}, {"epoch": epoch}, kept=2)
    content = newest.read_bytes()
    assert content.count(b"(99999,), }              ") == 1
    newest.write_bytes(content.replace(b"(99999,), }            ", b"(99999999999999999,), }"))
    assert checkpoint.load_newest(newest, told.append)[1]["epoch"] == 1
    assert "Unable to allocate" in told[0]


@pytest.mark.parametrize("links", [True, False])
def test_a_damaged_one_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    newest, told = tmp_path / "last.npz", list[str]()
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", refuse)
    for damage in (b"damaged", b"again"):
        for epoch in (1, 2):
            checkpoint.save(newest, ARRAYS, {"epoch": epoch}, kept=2)
        newest.write_bytes(damage)
        *_, path = checkpoint.load_newest(newest, told.append)
        assert f"{newest} is kept as last.npz.damaged" in told.pop()
        checkpoint.replace_lost(newest, path)
        assert epochs_there(newest) == [1]
        assert (tmp_path / "last.npz.damaged").read_bytes() == damage
        assert len(list(tmp_path.iterdir())) == 2
