"""Download what needs no registration: resumed where it stopped, checked, put where it belongs.

What is unfinished lies in ``.fetch/`` within the target folder and goes when all is in its place.
"""

from __future__ import annotations

import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.data.archives import unpack
from dlbench.data.dataset import DataError, DataSet
from dlbench.locks import alone

UNFINISHED = ".fetch"
CHUNK = 2**15
"""Bytes read at a time; of a connection that breaks off, fewer are lost."""
TRIES = 5
WAIT = 2.0
"""Seconds before the second try; doubled before each further one."""
TIMEOUT = 60.0
"""Seconds that a server may be silent."""

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and, where the server says so, those of the whole file."""


@dataclass(frozen=True)
class Download:
    """A file or ZIP archive at an address of its own."""

    url: str
    folder: str = "."
    """Where it belongs in the data set's folder."""
    inside: str = ""
    """The folder of the archive that is wanted; its contents go to ``folder``."""
    checksum: str | None = None
    """As pooch has it, ``sha256:...``; None where the publisher makes the file anew at times."""
    comment: str | None = None
    """What the archive's comment must be: GitHub makes its archives anew, so that no checksum
    holds, but writes into each the commit that it is of."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(
    kind: type[DataSet],
    out: Path,
    part: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Fetch ``part`` of a data set, which need not be named where there is but one, to ``out``.

    Files that are there stay as they are; the same call goes on with what was interrupted. Raises
    `DataError` for a data set that is not fetched, saying where it is to be had; for an address
    that does not answer, a wrong checksum, an archive that would write elsewhere, and for files
    in the way.
    """
    download = _chosen(kind, part)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose a folder")
    unfinished = out / UNFINISHED / download.name
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        refusal = DataError(f"another process is fetching {unfinished.name} to it; wait")
        with alone(unfinished / "lock", refusal):
            unpacked = unfinished / "unpacked"
            if not unpacked.is_dir():
                file = _retrieve(download, unfinished, kind.source, progress)
                _unpack(download, file, unpacked)
                file.unlink()
            _move(unpacked, out / download.folder)
            shutil.rmtree(unfinished)
        if not any(unfinished.parent.iterdir()):
            unfinished.parent.rmdir()
    except OSError as error:
        raise DataError(
            f"cannot write to {out}: {error.strerror or error}; mend that and repeat the command, "
            "which goes on where it stopped"
        ) from error
    return out


def _chosen(kind: type[DataSet], part: str | None) -> Download:
    if not kind.downloads:
        layout = "\n    ".join(kind.layout.splitlines())
        raise DataError(
            f"{kind.name} cannot be fetched ({kind.licence}): get it from {kind.source} and lay it "
            f"out as\n    {layout}\nthen python -m dlbench.data check {kind.name} FOLDER"
        )
    parts = ", ".join(kind.downloads)
    if part is None and len(kind.downloads) > 1:
        raise DataError(f"{kind.name} comes in parts, {parts}; choose one with part=...")
    part = next(iter(kind.downloads)) if part is None else part
    if part not in kind.downloads:
        raise DataError(f"{kind.name} has no part '{part}'; its parts: {parts}")
    return kind.downloads[part]


def _retrieve(download: Download, folder: Path, source: str, progress: Progress) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it prints checksums of files that have none
    begun = folder / f"{download.name}.part"

    def downloader(url: str, output_file: str, pup: Any, check_only: bool = False) -> None:
        _download(url, begun, download.checksum is not None, source, progress)
        begun.replace(output_file)
        _validator(begun).unlink(missing_ok=True)

    try:
        return Path(
            pooch.retrieve(download.url, download.checksum, download.name, folder, None, downloader)
        )
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"what {download.url} gave has another checksum than {download.checksum}; repeat the "
            f"command, and if that does not help get it from {source}"
        ) from error


def _download(url: str, file: Path, pinned: bool, source: str, progress: Progress) -> None:
    """Go on with ``file`` until it is whole; ``pinned`` if a checksum will tell whether it is."""
    import requests

    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            if _attempt(url, file, pinned, progress):
                return
            reason = "the connection ended early"
        except requests.HTTPError as error:
            assert error.response is not None
            reason = f"{error.response.status_code} {error.response.reason}"
            if error.response.status_code < 500:
                break
        except requests.RequestException as error:
            reason = str(error)[:200]
    raise DataError(
        f"cannot fetch {url}: {reason}; repeat the command, which goes on where it stopped, or get "
        f"it from {source}"
    )


def _attempt(url: str, file: Path, pinned: bool, progress: Progress) -> bool:
    """Append what one answer holds, or begin anew; whether the file is whole then."""
    import requests

    validator = _validator(file)
    # Without either a file that has changed meanwhile would be pieced together of both.
    goes_on = file.exists() and (pinned or validator.exists())
    start = file.stat().st_size if goes_on else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator.exists():
            headers["If-Range"] = validator.read_text()
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        said = answer.headers.get("Content-Range", "")
        if answer.status_code == 416:  # nothing lies beyond what is there
            if said == f"bytes */{start}":
                return True
            file.unlink()
            return False
        answer.raise_for_status()
        if answer.status_code != 206 or not said.startswith(f"bytes {start}-"):
            if answer.status_code == 206:
                raise requests.RequestException(f"asked for bytes {start}-, got {said}")
            start = 0
            _remember(answer.headers, validator)
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        with file.open("ab" if start else "wb") as target:
            progress(start, total)
            for chunk in answer.iter_content(CHUNK):
                start += target.write(chunk)
                progress(start, total)
    return total is None or start == total


def _validator(file: Path) -> Path:
    return file.with_name(f"{file.name}.version")


def _remember(headers: Any, validator: Path) -> None:
    """Keep what tells this version of the file from others."""
    tag = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    validator.unlink(missing_ok=True)
    if version:
        validator.write_text(version)


def _unpack(download: Download, file: Path, folder: Path) -> None:
    """Make ``folder`` of what is wanted of a file, whole or not at all."""
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    if file.suffix.lower() != ".zip":
        shutil.copyfile(file, unfinished / file.name)
    else:
        try:
            with zipfile.ZipFile(file) as archive:
                found = archive.comment.decode("ascii", "replace")
                if download.comment is not None and found != download.comment:
                    raise DataError(
                        f"{download.url} is of the commit '{found}', expected is {download.comment}"
                    )
                unpack(archive, download.inside, unfinished)
        except DataError:
            file.unlink()  # so that it is fetched anew
            raise
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
            file.unlink()
            raise DataError(
                f"{download.url} gave no whole ZIP archive ({error}); repeat the command"
            ) from error
    unfinished.rename(folder)


def _move(unpacked: Path, folder: Path) -> None:
    """Move what ``unpacked`` holds to ``folder``, where none of it may be yet."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = sorted(unpacked.iterdir())
    for entry in entries:
        if (folder / entry.name).exists() or (folder / entry.name).is_symlink():
            raise DataError(
                f"{folder / entry.name} is in the way; move it elsewhere and repeat the command"
            )
    for entry in entries:
        entry.rename(folder / entry.name)
