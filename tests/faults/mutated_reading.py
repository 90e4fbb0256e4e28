"""``python mutated_reading.py FOLDER READER FIRST STOP SECONDS``: read mutated copies, tell how.

A case is a reader and a number, from which its damage follows. Each prints a line of JSON when it
begins and when it has ended, so that whoever started this knows which case ended the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import shutil
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from faults.mutations import copy, mutate
from faults.readers import READERS

from dlbench.errors import UserError

ADDRESS_SPACE = {"keras": 24 << 30}
USUAL_ADDRESS_SPACE = 3 << 30
"""Bytes: what a header declares must not be allotted before it is known to be there."""
LONGEST_MESSAGE = 4000
SLOW = 6.0
"""Seconds of one case that are told as a hang though it ends."""


def seed(reader: str, number: int) -> list[int]:
    return [zlib.crc32(reader.encode()), number]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file under a folder."""
    found = {}
    for place in folder.rglob("*"):
        state, plain = place.lstat(), place.is_symlink() or not place.is_dir()
        found[str(place.relative_to(folder))] = (
            (state.st_size, state.st_mtime_ns) if plain else (0, 0)
        )
    return found


def outcome(reader: str, tree: Path, case: Path) -> str:
    """ "read", "refused", or what is wrong with how a tree was read."""
    try:
        READERS[reader].read(tree)
    except UserError as error:
        message = str(error)
        if str(tree) not in message:
            return f"names no file: {message[:300]}"
        if len(message) > LONGEST_MESSAGE or message.count("\n") > 40:
            return f"a message of {len(message)} letters: {message[:200]}"
        return "refused"
    except AssertionError:
        return f"silent garbage: {traceback.format_exc(limit=-3)}"
    except BaseException as error:
        return f"{type(error).__name__}: {traceback.format_exc(limit=-6)[-1500:]}"
    return "read"


def run(scratch: Path, base: Path, reader: str, number: int) -> dict[str, Any]:
    """Damage a copy in a folder of its own, read it; anything written there is a fault too."""
    case = scratch / f"{number}"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    tree = copy(base, case / "tree")
    told: dict[str, Any] = {"number": number, "file": "?", "mutation": "?"}
    # Told before as well: damaging a file goes through libraries that may end the process.
    print(json.dumps({**told, "outcome": "began"}), flush=True)
    file, mutation = mutate(tree, np.random.default_rng(seed(reader, number)))
    told |= {"file": str(file.relative_to(tree)), "mutation": mutation}
    print(json.dumps({**told, "outcome": "began"}), flush=True)
    before = listing(scratch)
    started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with contextlib.chdir(case):
        told["outcome"] = outcome(reader, tree, case)
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - started
    written = {n: s for n, s in listing(scratch).items() if before.get(n) != s}
    if written:
        told["outcome"] = f"wrote {sorted(written)}"
    elif spent > SLOW:
        told["outcome"] = f"took {spent:.1f} s of CPU and then: {told['outcome'][:200]}"
    shutil.rmtree(case)
    return told


def main(folder: Path, reader: str, first: int, stop: int, seconds: float) -> None:
    base, scratch = folder / "base" / reader, folder / "cases" / reader
    if reader == "keras":
        import keras  # noqa: F401  # counts towards no case's time
    limit = ADDRESS_SPACE.get(reader, USUAL_ADDRESS_SPACE)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    for number in range(first, stop):
        faulthandler.dump_traceback_later(seconds, exit=True)
        print(json.dumps(run(scratch, base, reader, number)), flush=True)
        faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()
    os._exit(0)  # Libraries that read damaged files may crash when they are unloaded.


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
