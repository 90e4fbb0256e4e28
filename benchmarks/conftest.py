"""What all benchmarks share: options, thread settings, and records in the JSON report.

    pytest benchmarks/ --benchmark-json=OUT.json [--setup-name=NAME] [--compute-threads=N]

One such command is one launch of one setup. ``--benchmark-disable`` runs each benchmark once,
untimed: the outputs are checked all the same.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dlbench.report import records

# Before anything imports TensorFlow: its start-up notes bury the tables.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dlbench")
    group.addoption(
        "--setup-name",
        metavar="NAME",
        help="what to call this hardware, driver, library and thread setting in records",
    )
    group.addoption(
        "--compute-threads",
        metavar="N",
        type=int,
        help="threads within an op (default: TensorFlow's own choice, all cores)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A setting of the launch, not of a test: TensorFlow reads it once, when it starts.
    threads = config.getoption("--compute-threads")
    if threads is None:
        return
    if threads < 1:
        raise pytest.UsageError(f"--compute-threads is {threads}; at least 1 is needed")
    if "tensorflow" in sys.modules:
        raise pytest.UsageError("--compute-threads has no effect: TensorFlow is loaded already")
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Called when the report is written, after the benchmarks: libraries are named as loaded."""
    setup = records.setup(config.getoption("--setup-name"))
    machine_info["setup"] = setup.model_dump(mode="json")


@pytest.fixture(scope="session")
def compute_threads() -> int:
    """Threads that an op may use in this launch."""
    chosen = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0"))  # 0: TensorFlow decides
    return chosen or len(os.sched_getaffinity(0))


@pytest.fixture
def attach_record(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call it when ``benchmark`` has measured: puts the result record into the report.

    ``attach_record(workload, samples_per_step=N, peak_bytes={...}, quality={...})``; does nothing
    under ``--benchmark-disable``, when there is no time to report. One rank.
    """

    def attach(
        workload: records.Workload,
        *,
        samples_per_step: int,
        peak_bytes: Mapping[str, int | None] | None = None,
        quality: Mapping[str, Any] | None = None,
    ) -> None:
        if benchmark.disabled:
            return
        step_s = tuple(benchmark.stats.stats.data)
        rank = records.Rank(
            rank=0,
            host=platform.node(),
            samples=samples_per_step * len(step_s),
            wall_s=sum(step_s),
            step_s=step_s,
            input_wait_s=None,
            comm_wait_s=None,
            peak_bytes=dict(peak_bytes or {}),
        )
        record = records.now(
            workload,
            [rank],
            setup=records.setup(request.config.getoption("--setup-name")),
            quality=quality,
        )
        benchmark.extra_info["record"] = record.to_json()

    return attach
