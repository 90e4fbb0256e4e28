"""Runs of a tiny network that are stopped, killed and started again, and what they end in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dlbench import checkpoint

ROOT = Path(__file__).parents[2]
EPOCHS = 3
LONGEST = 120.0
"""Seconds that a command has to start, and to end once it has been told to."""


def command(name: str, ranks: int, *more: str) -> list[str]:
    arguments = [
        f"name={name}", "data.name=camvid", "data.root=street", "data.size=[32,32]",
        "model.name=segnet_basic_bayesian", "model.options.width=0.05", "training.batch=1",
        f"training.epochs={EPOCHS}", "optimizer.learning_rate=0.01", "monte_carlo_samples=2",
    ]  # fmt: skip
    launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks)]
    train = [sys.executable, str(ROOT / "tests/ranks/paused.py"), *arguments, *more]
    return train if ranks == 1 else [*launcher, *train]


def environment(**variables: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return os.environ | own | variables


def unprivileged(words: list[str]) -> list[str]:
    """The command without root's power over files that belong to it."""
    if os.geteuid() != 0:
        return words
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]


def run(
    folder: Path, words: list[str], stop: signal.Signals | None = None, **variables: str
) -> tuple[int, str]:
    """Status and output; with ``stop``, of a run that gets that signal when it says "paused"."""
    log = folder / "output.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + LONGEST
            while stop and "paused" not in log.read_text():
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.02)
            if stop:
                process.send_signal(stop)
            status = process.wait(LONGEST)
        finally:
            process.kill()
    return status, log.read_text()


def final(folder: Path, name: str) -> dict[str, np.ndarray]:
    return checkpoint.load(folder / "runs" / name / "checkpoints" / "last.npz")[0]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def assert_equal(folder: Path, name: str) -> None:
    assert_same(final(folder, name), final(folder, "whole"))
    curves = [(folder / "runs" / run / "metrics.csv").read_text() for run in (name, "whole")]
    assert curves[0] == curves[1]
