"""Jobs of two ranks that train a tiny network, and what is seen of them."""

from __future__ import annotations

import csv
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
EPOCHS = 4
SOON = 60.0
"""Seconds within which a job must have ended after one of its ranks has."""


def arguments(name: str) -> list[str]:
    return [
        f"name={name}", "data.name=camvid", "data.root=street", "data.size=[32,32]",
        "model.name=segnet_basic", "model.options.width=0.05", "training.batch=2",
        f"training.epochs={EPOCHS}", "optimizer.learning_rate=0.01",
    ]  # fmt: skip


def epochs(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as text:
        return [row["epoch"] for row in csv.DictReader(text)]


TRACKER = "from multiprocessing.resource_tracker import main"
"""Python's own process beside the launcher: it ends milliseconds later, when its pipe closes."""


def running(folder: Path) -> list[psutil.Process]:
    """Processes that were started in ``folder`` and are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() != str(folder) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
        except psutil.Error:
            continue
        # Without a command line it has given its memory back already.
        if command and not any(TRACKER in word for word in command):
            found.append(process)
    return found


def from_ranks(output: str, text: str) -> list[str]:
    """The lines with ``text`` that the ranks, not the launcher, have printed."""
    return [line for line in output.splitlines() if line.startswith("[") and text in line]
