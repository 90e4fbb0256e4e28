"""Elastic jobs whose hosts are names of this machine, or namespaces, and what their ranks trained
on."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ranks.hosts import Hosts
from street_scenes import Pair, squares, write_split

from dlbench import processes

ROOT = Path(__file__).parents[2]
HOSTS = ("localhost", "127.0.0.1", "127.0.1")
"""Three hosts to Horovod, each with one rank."""
LONGEST = 900.0
"""Seconds that a job of a tiny network has for what it is waited for, on a busy machine too."""


def numbered_pictures(root: Path, train: int) -> None:
    """Pictures of 32 x 32 pixels in CamVid's layout, no two equal: red is the sample's number, and
    the classes, in squares, are to be seen in green and blue."""
    generator = np.random.default_rng(0)

    def pair(number: int) -> Pair:
        label = squares(generator, 3)
        return np.stack([np.full_like(label, number), label * 100, 200 - label * 100], -1), label

    for split, count in (("train", train), ("val", 5)):
        write_split(root, split, map(pair, range(count)), "{:03}.png")


class ElasticJob:
    """``noted.py`` under ``horovodrun`` in ``folder``, killed at the end of the ``with`` statement
    if it still runs; its hosts are those of `set_hosts`. The launcher waits ``timeout_s`` for a
    rank that is silent when others have left. ``apart`` are hosts of their own, with the launcher
    on the first, where no rank is."""

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        pace_s: float = 0.0,
        longest_s: float = LONGEST,
        broken: str = "",
        timeout_s: int = 600,
        apart: Hosts | None = None,
    ) -> None:
        self._folder = folder
        self._arguments = arguments
        self._timeout_s = timeout_s
        self._apart = apart
        self._end = time.monotonic() + longest_s
        self._hosts = folder / "hosts.txt"
        self._notes = folder / "noted"
        self._notes.mkdir()
        self._log = folder / "output.txt"
        self._variables = {
            "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3",
            "NOTED": str(self._notes), "NOTED_PACE": str(pace_s), "DLBENCH_HOSTS": str(self._hosts),
            "NOTED_BROKEN": broken,
        }  # fmt: skip
        self.set_hosts(tuple(apart.names[1:]) if apart else HOSTS)

    def set_hosts(self, names: tuple[str, ...]) -> None:
        """At once: the launcher reads the file at any time."""
        new = self._hosts.with_suffix(".new")
        new.write_text("".join(f"{name}:1\n" for name in names))
        new.replace(self._hosts)

    def __enter__(self) -> ElasticJob:
        script = ROOT / "configs/clusters/hosts.sh"
        launcher = [
            str(Path(sys.executable).with_name("horovodrun")), "--min-np", "2", "--max-np", "3",
            "-np", "3", "--elastic-timeout", str(self._timeout_s), "--host-discovery-script",
            str(script), "--network-interfaces", "eth0" if self._apart else "lo",
        ]  # fmt: skip
        train = [sys.executable, str(ROOT / "tests/ranks/noted.py"), *self._arguments]
        self._file = self._log.open("w")
        begin = functools.partial(self._apart.start, "a") if self._apart else subprocess.Popen
        self._process = begin(
            [*launcher, *train],
            cwd=self._folder,
            env=os.environ | self._variables,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        noted = self.processes()  # ranks that a launcher which is gone has left
        processes.end(self._process, 0.0)
        for process in noted:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._file.close()

    def processes(self) -> list[psutil.Process]:
        """Those that have trained and are there."""
        found = []
        for path in self._notes.glob("*.jsonl"):
            try:
                process = self._found(path.stem)
                if process.cwd() == str(self._folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def notes(self) -> list[dict[str, Any]]:
        """What all processes noted so far, in order of time."""
        lines = [
            {"process": path.stem, **json.loads(line)}
            for path in self._notes.glob("*.jsonl")
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        return sorted(lines, key=lambda note: note["time"])

    def wait_for_step(self, epoch: int, step: int, ranks: int) -> None:
        """Until ``ranks`` ranks train and have come to that place, both from 0."""
        self._wait(
            lambda: any(
                note.get("step", [-1]) >= [epoch, step] and note["ranks"] == ranks
                for note in self.notes()
            )
        )

    def wait(self) -> int:
        """The status of the job when it has ended."""
        self._wait(lambda: self._process.poll() is not None)
        return self._process.returncode

    def _wait(self, come: Any) -> None:
        while not come():
            assert time.monotonic() < self._end, self.output[-6000:]
            time.sleep(0.05)
            assert come() or self._process.poll() is None, self.output[-6000:]

    def process(self, rank: int) -> psutil.Process:
        """Which the kernel kills when memory runs out, or a cloud that wants its machine back."""
        return self._found(self._last(rank))

    def host(self, rank: int) -> str:
        return self._last(rank).rpartition("-")[0]

    def _last(self, rank: int) -> str:
        return {n["rank"]: n["process"] for n in self.notes() if "rank" in n}[rank]

    def _found(self, noted: str) -> psutil.Process:
        """That of HOST-PID, with the number that it has on its host."""
        host, _, pid = noted.rpartition("-")
        if self._apart is None:
            return psutil.Process(int(pid))
        for process in self._apart.running(host):
            status = Path(f"/proc/{process.pid}/status").read_text()
            if re.search(rf"^NSpid:.*\t{pid}$", status, re.MULTILINE):
                return process
        raise psutil.NoSuchProcess(int(pid))

    def kept_steps(self) -> list[dict[str, Any]]:
        """The notes of the steps that the final weights come from: where the ranks went on from a
        checkpoint, those after it are void."""
        kept: list[dict[str, Any]] = []
        for note in self.notes():
            if "takes_up" in note:
                kept = [step for step in kept if step["step"] < note["takes_up"]]
            else:
                kept.append(note)
        return kept

    def samples(self) -> dict[int, list[list[int]]]:
        """The signatures of the samples that each epoch was made of, sorted."""
        found: dict[int, list[list[int]]] = defaultdict(list)
        for step in self.kept_steps():
            found[step["step"][0]] += step["seen"]
        return {epoch: sorted(seen) for epoch, seen in found.items()}
