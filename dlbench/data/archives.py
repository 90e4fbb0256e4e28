"""Unpack archives from elsewhere: within one folder, plain files alone, or nothing at all."""

from __future__ import annotations

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from dlbench.data.dataset import DataError

UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What `zipfile` raises of archives that are damaged, by the place of the damage."""


def unpack(archive: zipfile.ZipFile, inside: str, folder: Path) -> None:
    """Write the files of an archive below ``inside`` to an empty ``folder``.

    Nothing is written unless all members are plain files and folders that stay within the archive.
    Raises `DataError` otherwise, and where the disk has no room for them.
    """
    prefix = PurePosixPath(inside).parts
    chosen: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        path = _checked(archive, member)
        if path.parts[: len(prefix)] != prefix or len(path.parts) == len(prefix):
            continue
        place = PurePosixPath(*path.parts[len(prefix) :])
        if not member.is_dir() and chosen.setdefault(place, member) is not member:
            raise DataError(f"{archive.filename} holds {path} twice; it is not to be trusted")
    if not chosen:
        raise DataError(f"{archive.filename} holds nothing in '{inside}'; its layout has changed")
    size, free = sum(m.file_size for m in chosen.values()), shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{archive.filename} unpacks to {size:,} bytes, and {folder} has room for {free:,}"
        )
    for place, member in chosen.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, file.open("xb") as target:
            shutil.copyfileobj(source, target)


def _checked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.orig_filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    reason = ""
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        reason = "which leaves its folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "which is a link or device"
    elif member.flag_bits & 1:
        reason = "which is encrypted"
    if reason:
        raise DataError(
            f"{archive.filename} holds {name!r}, {reason}; nothing of it was unpacked, for it is "
            "not what the data set's publisher made"
        )
    return path
