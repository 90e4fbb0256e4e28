"""Processes that the tests start: commands as a user types them, alone or under `horovodrun`."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from street_scenes import draw_street

import dlbench  # noqa: F401  # before TensorFlow, whose kernels it chooses
from dlbench import processes

ROOT = Path(__file__).parents[1]
# A pytest that a test starts is no worker of this one, whose benchmarks would be disabled.
os.environ.pop("PYTEST_XDIST_WORKER", None)


LONG = (
    "test_train.py", "test_distributed.py", "test_ranks.py", "test_phases.py", "test_stopping.py",
    "test_ops_xla.py", "test_native.py", "test_benchmarks.py",
)  # fmt: skip
"""Files of few tests that take minutes. They come first: the last would keep one process busy while
the other has nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (*LONG, item.path.name).index(item.path.name))


@dataclass
class Launched:
    """A command that has ended."""

    status: int
    output: str
    """Standard output and error of all ranks."""
    seconds: float


def _launch(arguments: list[str], folder: Path, ranks: int = 1, timeout: float = 240.0) -> Launched:
    """Run ``python ARGUMENTS`` in ``folder``; what is still running after ``timeout`` is killed."""
    command = [sys.executable, *arguments]
    if ranks > 1:
        command = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks), *command]
    log = folder / "output.txt"
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout)
        except BaseException as error:
            processes.end(process, 0.0)
            if isinstance(error, subprocess.TimeoutExpired):
                pytest.fail(f"{command} still ran after {timeout} s:\n{log.read_text()[-3000:]}")
            raise
    return Launched(status, log.read_text(errors="replace"), time.monotonic() - started)


@pytest.fixture(scope="session")
def launch() -> Callable[..., Launched]:
    """``launch(arguments, folder, ranks=1)`` runs python and gives status, output, seconds."""
    return _launch


@pytest.fixture(scope="session")
def jobs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """``jobs(ranks, threads=None)``: what `tests/ranks/job.py` found on 1, 2 or 4 ranks, launched
    but once for all processes that test, with so many threads a rank or a rank's share of the
    cores.

    ``ranks`` holds the findings of each rank, ``arrays`` the arrays of rank 0.
    """
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        shared = shared.parent

    @cache
    def job(ranks: int, threads: int | None = None) -> dict[str, Any]:
        folder = shared / f"job-{ranks}-{threads}"
        folder.mkdir(exist_ok=True)
        done = folder / "done"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                arguments = [str(ROOT / "tests/ranks/job.py"), str(folder)]
                arguments += [] if threads is None else [str(threads)]
                ended = _launch(arguments, folder, ranks)
                assert ended.status == 0, ended.output[-6000:]
                done.touch()
        return {
            "ranks": [json.loads((folder / f"rank{r}.json").read_text()) for r in range(ranks)],
            "arrays": dict(np.load(folder / "arrays.npz")),
        }

    return job


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for NVIDIA's library as ``pynvml``, here and in processes started from here."""
    (tmp_path / "nvml").mkdir()
    shutil.copy(ROOT / "tests/bench/nvml_stand_in.py", tmp_path / "nvml" / "pynvml.py")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "nvml"))
    import pynvml

    del sys.modules["pynvml"]  # or it would be what stands there afterwards
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    assert Path(pynvml.__file__).parent == tmp_path / "nvml"
    return pynvml


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Seven training and five validation pairs of 32 x 32 pixels in CamVid's layout."""
    draw_street(tmp_path / "street")
    return tmp_path / "street"
