"""Whole launches of setups as processes of their own, in turn: the unit that comparisons count.

    FOLDER/<setup>/01.json ...      what each launch measured, whole or absent; without the record
                                    of a benchmark that failed, which costs the others nothing
    FOLDER/<setup>/01.log ...       what it printed
    FOLDER/<setup>/launches.yaml    what was launched: other launches never join these

In turn, A B A B ..., a machine that warms up or fills with other work hits all setups alike.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import yaml

from dlbench import config, locks, processes
from dlbench.bench.setups import Setup
from dlbench.checkpoint import write_atomically
from dlbench.config import ConfigError
from dlbench.report import records
from dlbench.report.relaunch import NOTE

GRACE = 15.0
"""Seconds that a stopped launch has to end by itself, with its job (`benchmarks.launching`)."""
SCRATCH = ".launch-"
"""What the folder begins with that a launch measures into, and that one leaves which was killed."""
TOLD_LINES = 12
"""Of the log of a launch that failed."""
SOME_FAILED, NO_BENCHMARK_CHOSEN = 1, 5
"""pytest's statuses where tests failed, the others having been measured, and where nothing was
selected."""


@dataclass(frozen=True)
class Launch:
    """One run of all benchmarks, or of the experiment, on one setup."""

    setup: Setup
    number: int
    """From 1, within its setup."""
    folder: Path

    @property
    def result(self) -> Path:
        return self.folder / f"{self.number:02}.json"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.number:02}.log"


@dataclass(frozen=True)
class Failure:
    """A launch that measured nothing."""

    launch: Launch
    reason: str

    def __str__(self) -> str:
        """The reason and the log's last lines."""
        lines = self.launch.log.read_text(errors="replace").splitlines()[-TOLD_LINES:]
        told = "\n".join(f"    {line}" for line in lines)
        return f"{self.launch.log}: {self.reason}; its last lines:\n{told}"


class LaunchError(Exception):
    """Why a launch measured nothing."""


def in_turn(
    setups: Sequence[Setup], count: int, folder: Path, shuffle: int | None = None
) -> list[Launch]:
    """``count`` launches of each setup, the setups in turn: A B A B ...; with the seed
    ``shuffle``, in random order within each turn, which is the same when there are more turns."""
    planned = []
    for number in range(1, count + 1):
        turn = list(setups)
        if shuffle is not None:
            random.Random(f"{shuffle}/{number}").shuffle(turn)
        planned += [Launch(setup, number, folder / setup.folder_name) for setup in turn]
    return planned


def results(planned: Sequence[Launch], setup: Setup) -> list[Path]:
    """The files of those launches of ``setup`` that have measured something."""
    return [one.result for one in planned if one.setup is setup and one.result.exists()]


def failed_benchmarks(planned: Iterable[Launch]) -> Counter[str]:
    """In how many of the launches that have measured something each benchmark failed: those whose
    others are kept, with the names of them that `benchmarks/conftest.py` notes."""
    there = [records.content_of(one.result) for one in planned if one.result.exists()]
    return Counter(name for content in there for name in content.get(records.FAILED, []))


def run(
    planned: Sequence[Launch],
    options: list[str],
    *,
    cooldown: float = 0.0,
    limit: float | None = None,
    first: Callable[[Launch], None] = lambda launch: None,
    tell: Callable[[str], None] = print,
) -> list[Failure]:
    """Run the launches that have no result yet, one after the other, and return those that failed.
    One of whose benchmarks only some failed keeps what the others measured (`failed_benchmarks`).
    For a command that is `alone` in the folder: what a killed one has left there is removed.

    ``options`` are pytest's. ``cooldown`` is the pause between launches, ``limit`` the longest that
    one may take, both in seconds. ``first`` is called once, as soon as a launch has measured
    something. `ConfigError` where a folder holds launches of something else, or
    ``options`` select no benchmark; `KeyboardInterrupt` has ended the launch it came into.
    """
    for folder, setup in {launch.folder: launch.setup for launch in planned}.items():
        _claim(folder, setup, options)
        for scratch in folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(scratch, ignore_errors=True)  # its launch may still be ending
    there = [launch for launch in planned if launch.result.exists()]
    pending = [launch for launch in planned if launch not in there]
    if kept := len(there):
        first(there[0])
        tell(f"{kept} of {len(planned)} launches are there already; another --out launches anew")
    failures = []
    seconds: dict[str, list[float]] = {}
    for index, launch in enumerate(pending):
        if index and cooldown:
            time.sleep(cooldown)
        left = _time_left(pending[index:], seconds, cooldown)
        place = kept + index + 1
        tell(f"launch {place} of {len(planned)}: {launch.setup.name}, number {launch.number}{left}")
        started = time.monotonic()
        try:
            _run_one(launch, options, limit)
        except LaunchError as error:
            failures.append(Failure(launch, str(error)))
            tell(str(failures[-1]))
        else:
            if not there and not seconds:
                first(launch)
            seconds.setdefault(launch.setup.name, []).append(time.monotonic() - started)
            if failed := failed_benchmarks([launch]):
                tell(f"{launch.log}: failed and left out: {', '.join(failed)}")
    return failures


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold ``folder`` against a second command: two at a time would measure each other."""
    refusal = ConfigError(f"another command is launching into {folder}; wait for its end")
    return locks.alone(folder / ".lock", refusal)


def _run_one(launch: Launch, options: list[str], limit: float | None) -> None:
    setup = launch.setup
    # Absolute: the launch runs in its checkout, wherever this command does.
    folder = launch.folder.absolute()
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as name:
        command = setup.command(Path(name), options)
        with launch.log.open("w") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            status = _finish(command, setup, log, limit)
        if status == NO_BENCHMARK_CHOSEN and setup.experiment is None:
            raise ConfigError(f"{shlex.join(options) or 'pytest'} selects no benchmark at all")
        if status and (status != SOME_FAILED or setup.experiment is not None):
            raise LaunchError(f"it ended with status {status}")
        try:
            _keep(setup, setup.result(Path(name)), launch.result)
        except LaunchError as error:
            if not status:
                raise
            raise LaunchError(f"it ended with status {status}: {error}") from None


def _finish(command: list[str], setup: Setup, log: IO[str], limit: float | None) -> int:
    """Run ``command`` to its end, in a process group of its own that ends with it, and is told to
    where this process is killed: left alone, it would disturb the launches of the next command."""
    try:
        process = subprocess.Popen(
            command,
            cwd=setup.checkout,
            env=setup.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(processes.end_with, os.getpid()),
        )
    except OSError as error:
        raise LaunchError(f"it did not start: {error}") from None
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"it was stopped after {limit:g} s, the limit of a launch") from None
    finally:
        processes.end(process, GRACE)  # what is left would disturb the next launch


def _keep(setup: Setup, measured: Path, kept: Path) -> None:
    """Move what a launch measured to its place, once it is sure that it can be read."""
    try:
        found = records.read_many([measured])
        if setup.experiment is not None:
            named = found[0].setup.model_copy(update={"name": setup.name})
            records.write(found[0].model_copy(update={"setup": named}), kept)
            return
        if not json.loads(measured.read_bytes())["benchmarks"]:
            raise LaunchError("no benchmark measured anything")
    except records.RecordError as error:
        raise LaunchError(str(error)) from None
    write_atomically(kept, lambda file: file.write(measured.read_bytes()))


def _claim(folder: Path, setup: Setup, options: list[str]) -> None:
    """Note in ``folder`` what is launched, or refuse to add to launches of something else."""
    wanted = {**setup.model_dump(mode="json"), "options": options}
    note = folder / NOTE
    if note.exists():
        there = config.read_yaml(note)
        different = [
            f"{key}: {there.get(key)!r} there, {wanted.get(key)!r} now"
            for key in sorted(there.keys() | wanted.keys())
            if there.get(key) != wanted.get(key)
        ]
        if different:
            raise ConfigError(
                f"{folder} holds launches of another kind ({'; '.join(different)}); choose another "
                "folder with --out"
            )
        return
    text = yaml.safe_dump(wanted, sort_keys=False)
    write_atomically(note, lambda file: file.write(text.encode()))


def _time_left(pending: Sequence[Launch], seconds: dict[str, list[float]], cooldown: float) -> str:
    """How long ``pending`` will take, by the launches so far; empty before the first has ended."""
    if not seconds:
        return ""
    known = {name: statistics.median(times) for name, times in seconds.items()}
    other = statistics.fmean(known.values())
    total = sum(known.get(launch.setup.name, other) for launch in pending)
    total += cooldown * (len(pending) - 1)
    return f"; about {total:.0f} s left" if total < 120 else f"; about {total / 60:.0f} min left"
