"""What all benchmarks share: options, thread settings, and records in the JSON report.

    pytest benchmarks/ --benchmark-json=OUT.json [--setup-name=NAME]
        [--compute-threads=N] [--profile=full]

One such command is one launch of one setup. ``--benchmark-disable`` runs each benchmark once,
untimed: the outputs are checked all the same. Ratios to peers are printed at the end.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from dlbench import distributed, environment
from dlbench.report import records

# Before anything imports TensorFlow: its start-up notes bury the tables.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
ROUNDS, WARMUP_ROUNDS = 7, 2
RATIOS = pytest.StashKey[list[dict[str, Any]]]()


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
    group.addoption(
        "--profile",
        choices=("default", "full"),
        default="default",
        help="full: every input size, for machines and evenings that are worth it",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []
    if distributed.launched_size() > 1:
        raise pytest.UsageError(
            f"these benchmarks measure one rank, but the launcher announced "
            f"{distributed.launched_size()}; run them without horovodrun"
        )
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


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ratios = config.stash[RATIOS]
    if not ratios:
        return
    terminalreporter.section("time of a peer / time of ours, median of paired rounds")
    peers, ours = (max(len(ratio[name]) for ratio in ratios) for name in ("peer", "ours"))
    for ratio in ratios:
        quartiles = "{:.2f} - {:.2f}".format(*ratio["quartiles"])
        line = f"{ratio['peer']:{peers}} / {ratio['ours']:{ours}} {ratio['median']:7.2f}"
        line += f" (quartiles {quartiles}, {ratio['pairs']} pairs)"
        if ratio["wanted"] is not None:
            verdict = "met" if ratio["median"] >= ratio["wanted"] else "MISSED"
            line += f", wanted >= {ratio['wanted']:g}: {verdict}"
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def compute_threads() -> int:
    """Threads that an op may use in this launch."""
    chosen = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0"))  # 0: TensorFlow decides
    return chosen or len(os.sched_getaffinity(0))


@pytest.fixture(scope="session")
def devices(compute_threads: int) -> None:
    """TensorFlow with the threads of this launch; for every benchmark that uses it.

    Loads all that any benchmark loads: loaded libraries are part of a setup, which must not depend
    on the benchmarks chosen.
    """
    import dlbench.data.scenes  # noqa: F401  # brings SciPy's libraries

    distributed.configure_devices(compute_threads)
    environment.describe(load=True)


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
            first_step_s=None,
            peak_bytes=dict(peak_bytes or {}),
            conditions={},
        )
        record = records.now(
            workload,
            [rank],
            setup=records.setup(request.config.getoption("--setup-name")),
            quality=quality,
        )
        benchmark.extra_info["record"] = record.to_json()

    return attach


@pytest.fixture
def time_in_turn(benchmark: Any) -> Callable[..., list[float]]:
    """``time_in_turn(run, ours)`` has ``benchmark`` time a peer, and gives the times in s of
    ``ours``, called right before each round of the peer: a load on the machine hits both.
    ``idle_s`` passes before ours, so that threads of the peer that still spin have gone to sleep.
    Without ``ours`` there is nothing beside ``run``.
    """

    def measure(
        run: Callable[[], Any], ours: Callable[[], Any] | None = None, idle_s: float = 0.0
    ) -> list[float]:
        ours_s: list[float] = []

        def time_ours() -> None:
            assert ours is not None
            time.sleep(idle_s)
            start = time.perf_counter()
            ours()
            ours_s.append(time.perf_counter() - start)

        benchmark.pedantic(
            run,
            setup=time_ours if ours else None,  # runs before each round, outside its time
            rounds=ROUNDS,
            warmup_rounds=WARMUP_ROUNDS,
        )
        return ours_s[WARMUP_ROUNDS:]

    return measure


@pytest.fixture
def attach_ratio(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call it when ``benchmark`` has measured a peer: ``attach_ratio(peer, ours, ours_s, wanted)``.

    ``ours_s`` are the times of ours in s, as `time_in_turn` gives them. Like `attach_record` in all
    else.
    """

    def attach(peer: str, ours: str, ours_s: Sequence[float], wanted: float | None = None) -> None:
        if benchmark.disabled:
            return
        peer_s = benchmark.stats.stats.data
        ratios = np.asarray(peer_s) / np.asarray(ours_s)
        low, median, high = np.percentile(ratios, (25, 50, 75)).tolist()
        ratio = {
            "peer": peer,
            "ours": ours,
            "ours_s": list(ours_s),
            "pairs": len(peer_s),
            "median": median,
            "quartiles": [low, high],
            "wanted": wanted,
        }
        benchmark.extra_info["ratio"] = ratio
        request.config.stash[RATIOS].append(ratio)

    return attach
