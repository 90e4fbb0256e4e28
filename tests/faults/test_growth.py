"""Thousands of short epochs: memory, open files and threads of a training process stay as they
are, though each epoch scores, logs, and saves a checkpoint."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from faults.disturbed import command, environment

EPOCHS = 2000
SETTLED = 400
"""Epochs until allocators and caches have what they need."""
MOST_GROWTH = 1e6
"""Bytes in 100 epochs."""
LONGEST = 30 * 60.0
"""Seconds."""


class Sample(NamedTuple):
    epoch: int
    bytes: int
    files: int
    threads: int


def sampled(process: psutil.Process, metrics: Path) -> Sample:
    epochs = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
    with process.oneshot():
        memory = process.memory_full_info().uss
        return Sample(epochs, memory, process.num_fds(), process.num_threads())


@pytest.mark.soak
def test_a_long_training_does_not_grow(street: Path) -> None:
    folder = street.parent
    log = folder / "output.txt"
    words = command("long", 1, f"training.epochs={EPOCHS}", "training.progress=epoch")
    samples: list[Sample] = []
    with log.open("w") as file:
        job = subprocess.Popen(
            words, cwd=folder, env=environment(), stdout=file, stderr=subprocess.STDOUT
        )
        try:
            process, end = psutil.Process(job.pid), time.monotonic() + LONGEST
            while job.poll() is None:
                assert time.monotonic() < end, log.read_text()[-3000:]
                try:
                    samples.append(sampled(process, folder / "runs" / "long" / "metrics.csv"))
                except psutil.Error:  # it has just ended
                    continue
                time.sleep(0.5)
        finally:
            job.kill()
    assert job.returncode == 0, log.read_text()[-3000:]
    during = [one for one in samples if SETTLED <= one.epoch < EPOCHS]
    epochs = [one.epoch for one in during]
    growth = 100 * np.polyfit(epochs, [one.bytes for one in during], 1)[0]
    print(f"{growth / 1e6:.2f} MB in 100 epochs; at first {during[0]}, at last {during[-1]}")
    assert growth < MOST_GROWTH
    quarter = len(during) // 4
    for what in ("files", "threads"):
        # The fewest: threads of a pipeline come and go, and what leaks is there at all times.
        first, last = (
            min(getattr(one, what) for one in part)
            for part in (during[:quarter], during[-quarter:])
        )
        assert last <= first, what
