"""Checkpoints: one file that is either whole or absent, verified on read, free of pickle.

A checkpoint is a NumPy ``.npz`` of named arrays and one JSON member with the position in training,
the history and a SHA-256 over everything else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlbench.errors import UserError

_UMASK = os.umask(0o022)  # reading the umask means setting it; put it back at once
os.umask(_UMASK)

META = "__dlbench__"
SCHEMA = "dlbench.checkpoint/1"
MOST_KEPT = 100
OF_CONTENT = (None, errno.EINVAL)
"""`errno` where the zip reader was led to a place that no file has; all others are the system's, of
a file that may be whole."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


class DamagedError(CheckpointError):
    """A file that is not what was written."""


class AbsentError(CheckpointError):
    """There is no such file."""


class _FileError(UserError, OSError):
    """`errno` and `strerror` are the system's."""

    def __str__(self) -> str:
        return str(self.args[0])


class WriteError(_FileError):
    """A file that cannot be written."""


class ReadError(CheckpointError, _FileError):
    """A file that cannot be read now, and may be whole."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], Any], before: Callable[[], object] = lambda: None
) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to disk, then rename it, right
    after the call of ``before``.

    Raises `WriteError`; what stood at ``path`` before is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o666 & ~_UMASK)  # mkstemp's own 0600 would hide runs from others
            write(file)
            file.flush()
            os.fsync(file.fileno())
        before()
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have the names in ``folder`` outlive a power cut, where its file system can."""
    with suppress(OSError):  # what was renamed is whole, with or without
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> WriteError:
    made = WriteError(
        f"cannot write {path}: {error.strerror or error}; what stood there before is whole. Make "
        "room or the folder writable, then give the same command again"
    )
    made.errno, made.strerror = error.errno, error.strerror
    return made


def _unreadable(path: Path, number: int, reason: str) -> ReadError:
    made = ReadError(
        f"cannot read {path}: {reason}; it may be whole. Mend that, then give the same command "
        "again"
    )
    made.errno, made.strerror = number, reason
    return made


def save(
    path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any], kept: int | None = 1
) -> None:
    """Write ``arrays`` and the JSON-able ``meta`` to ``path`` atomically, and keep the ``kept - 1``
    checkpoints before it as ``last-1.npz``, ``last-2.npz`` and so on; None: those that are kept,
    without the one that this takes the place of."""
    content = {"schema": SCHEMA, **meta}
    content["sha256"] = _digest(arrays, content)
    text = np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
    members: dict[str, Any] = {META: text, **arrays}
    write_atomically(
        path,
        lambda file: np.savez(file, allow_pickle=False, **members),
        before=lambda: None if kept is None else _shift(path, kept),
    )


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and verify a checkpoint; `CheckpointError` where it is damaged or not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = dict(json.loads(arrays.pop(META).tobytes()))
    except FileNotFoundError:
        raise AbsentError(f"there is no checkpoint {path}") from None
    except OSError as error:
        if error.errno not in OF_CONTENT:
            raise _unreadable(path, error.errno, error.strerror or str(error)) from error
        raise _damaged(path, error) from error
    except MemoryError as error:
        # A damaged header may ask for any amount; the checksums of the zip need next to none.
        if _has_sound_members(path):
            raise _unreadable(path, errno.ENOMEM, str(error) or "out of memory") from error
        raise _damaged(path, error) from error
    except Exception as error:  # damaged bytes reach the zip reader, which raises at will
        raise _damaged(path, error) from error
    if meta.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {meta.get('schema')!r}, this version reads {SCHEMA!r}"
        )
    if meta.pop("sha256", None) != _digest(arrays, meta):
        raise _damaged(path, "its checksum fails")
    return arrays, meta


def _has_sound_members(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except MemoryError:
        return True
    except Exception:  # as above
        return False


def _shift(newest: Path, kept: int) -> None:
    """Make room; ``newest`` itself stays in its place until it is replaced."""
    for path in earlier(newest):
        if int(path.stem.rpartition("-")[2]) >= kept:
            path.unlink()
    if kept < 2 or not newest.exists():
        return
    for number in range(kept - 2, 0, -1):
        if _earlier(newest, number).exists():
            os.replace(_earlier(newest, number), _earlier(newest, number + 1))
    _keep(newest, _earlier(newest, 1))


def replace_lost(newest: Path, path: Path) -> None:
    """Put ``path``, the one to go on from, in the place of a damaged or missing ``newest``. A
    damaged one, which the next save would make one of the earlier, is kept beside it as
    ``last.npz.damaged``; so is ``path`` where it is none of those."""
    if newest.exists():
        _keep(newest, _set_aside(newest))
    if path in earlier(newest):
        os.replace(path, newest)
    else:
        _keep(path, newest)


def _set_aside(newest: Path) -> Path:
    return newest.with_name(f"{newest.name}.damaged")


def _keep(newest: Path, other: Path) -> None:
    """Give ``newest`` the name ``other`` too: at no time it has none."""
    spare = newest.with_name(f".{newest.name}.earlier")
    spare.unlink(missing_ok=True)
    try:
        os.link(newest, spare)
    except OSError:  # a file system without hard links
        with newest.open("rb") as source, spare.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    os.replace(spare, other)


def load_newest(
    newest: Path, warn: Callable[[str], object], reserve: Path | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any], Path]:
    """What `load` gives, and the file: ``newest`` or, while that is damaged or missing, the one
    before it; ``reserve`` where all of them are."""
    lost: list[CheckpointError] = []
    for path in [newest, *earlier(newest), *([reserve] if reserve else [])]:
        try:
            found = load(path)
        except (AbsentError, DamagedError) as error:
            lost.append(error)
            continue
        if lost:
            kept = f"; {newest} is kept as {_set_aside(newest).name}" if newest.exists() else ""
            warn(
                f"warning: {'; '.join(map(str, lost))}. Going on from the checkpoint before, {path}"
                f"{kept}"
            )
        return *found, path
    raise lost[0]


def earlier(newest: Path) -> list[Path]:
    """The checkpoints before ``newest`` that are there."""
    return [path for number in range(1, MOST_KEPT) if (path := _earlier(newest, number)).exists()]


def _earlier(newest: Path, number: int) -> Path:
    return newest.with_name(f"{newest.stem}-{number}{newest.suffix}")


def _damaged(path: Path, reason: object) -> DamagedError:
    return DamagedError(
        f"{path} is damaged or not a dlbench checkpoint ({reason}); restore it from a copy, or "
        "train anew with resume=false, which sets the run aside"
    )


def variables_of(model: Any, optimizer: Any = None) -> dict[str, Any]:
    """Every variable by a stable name: weights, statistics, RNG states, and the optimiser's
    (iteration, moments, loss scale)."""
    named = {f"model/{v.path}": v for v in model.variables}
    if len(named) != len(model.variables):
        raise AssertionError("two variables of the model share a path")
    if optimizer is not None:
        named |= {f"optimizer/{i}/{v.path}": v for i, v in enumerate(optimizer.variables)}
    return named


def collect(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """The values of named variables as arrays, which later steps leave as they are."""
    return {name: np.array(variable) for name, variable in variables.items()}


def assign(variables: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> None:
    """Put the arrays into the variables; all names and shapes must fit, else nothing changes."""
    missing = sorted(set(variables) - set(arrays))
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the model's {len(variables)} variables, first "
            f"'{missing[0]}': it belongs to another model; choose another run name"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise CheckpointError(
                f"{path}: '{name}' has shape {arrays[name].shape}, the model needs "
                f"{tuple(variable.shape)}; it belongs to another model or number of classes"
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _digest(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
