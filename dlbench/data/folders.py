"""What lies in a folder, links followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in a folder and all below it; links, to a larger disk for instance, are followed,
    but for those back, to themselves and to nowhere."""
    walked: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in walked:
            folders.clear()
            continue
        walked.add(real)
        for name in names:
            path = Path(folder, name)
            try:
                yield path, path.stat()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
