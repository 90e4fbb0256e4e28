"""The command that goes on launching two setups, from where the files of their launches lie.

`dlbench.bench` makes those folders; what they are called and what is noted in them stands here, so
that reports need nothing of what measures.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from dlbench import config
from dlbench.config import ConfigError

NOTE = "launches.yaml"
"""In a folder of launches, what was launched: a setup with pytest's ``options``."""


def command(sides: Sequence[Sequence[Path]], count: int) -> str | None:
    """The command that brings two setups, known by the files of their launches, to ``count``
    launches of each; None unless the files lie as `dlbench.bench.launches` leaves them, in
    two folders side by side that were launched with the same options."""
    # The baseline first, as it was.
    notes = list(dict.fromkeys(path.absolute().with_name(NOTE) for side in sides for path in side))
    outs = {note.parent.parent for note in notes}
    if len(notes) != 2 or len(outs) != 1:
        return None
    try:
        noted = [config.read_yaml(note) for note in notes]
    except ConfigError:
        return None
    # Launches of what is noted have to go where the note lies.
    names = [folder_name(str(one.get("name"))) for one in noted]
    if names != [note.parent.name for note in notes]:
        return None
    options, others = (one.get("options") for one in noted)
    if options != others or not isinstance(options, list):
        return None
    words = ["python", "-m", "dlbench.bench", "run", "--launches", str(count), "--interleave"]
    words += [*map(os.path.relpath, notes), "--out", os.path.relpath(outs.pop())]
    if options[:1] == ["-k"]:
        words.append(f"--select={options[1]}")
        options = options[2:]
    text = shlex.join([*words, *map(str, options)])
    return text if text.isprintable() else None


def folder_name(name: str) -> str:
    """What the folder of launches of a setup with this name is called."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")
