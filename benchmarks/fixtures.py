"""What benchmarks measure with and report by; conftest.py makes fixtures of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import launching, planted
from benchmarks.launching import Spec
from benchmarks.profiles import is_smoke
from dlbench import distributed, environment
from dlbench.bench import conditions
from dlbench.bench.memory import KINDS, framework_peak
from dlbench.report import records

ROUNDS, WARMUP_ROUNDS = 7, 2
RATIOS = pytest.StashKey[list[dict[str, Any]]]()
RECORDS = pytest.StashKey[list[records.Record]]()
NOTES = pytest.StashKey[dict[str, list[str]]]()
"""Lines under titles, for the end of the launch."""


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


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data sets of this launch lie, each made when it is first asked for."""
    return tmp_path_factory.mktemp("data")


class Observer:
    """Watches this process while the ``with`` block times something: see `conditions.Watch`.

    From within, at its beginning and its end: to start a sampler takes longer than most ops. Of
    memory it knows the GPU's alone: on the host, what earlier benchmarks had allocated stays.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self.peak_bytes: dict[str, int | None] = dict.fromkeys(KINDS)
        self.conditions: dict[str, Any] = {}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._enabled:
            yield
            return
        gpu = conditions.visible_gpu(local_rank=0)
        allocated = None if gpu is None else framework_peak()
        watch = conditions.Watch(os.getpid(), gpu)
        yield
        watch.sample()
        self.conditions = watch.summary()
        if allocated and watch.gpu:
            self.peak_bytes |= {"gpu_device_used": watch.gpu.memory_used, **allocated()}


@pytest.fixture
def observe(benchmark: Any) -> Observer:
    """``with observe(): benchmark.pedantic(...)``: `attach_record` then tells of the conditions."""
    return Observer(enabled=not benchmark.disabled)


@pytest.fixture
def attach_record(
    benchmark: Any, observe: Observer, request: pytest.FixtureRequest
) -> Callable[..., None]:
    """Call it when ``benchmark`` has measured: puts the result record into the report.

    ``attach_record(workload, samples_per_step=N)`` for what this process timed: all rounds of
    ``benchmark``, or ``step_s``. ``attach_record(workload, ranks=[...])`` for what a job's ranks
    did. Peers, bare kernels and controls, with which ours are compared within the launch, are not
    ``judged`` when setups are. Does nothing under ``--benchmark-disable``, when there is no time to
    report.
    """

    def attach(
        workload: records.Workload,
        *,
        samples_per_step: int = 0,
        step_s: Sequence[float] | None = None,
        waits: Mapping[str, float | None] | None = None,
        peak_bytes: Mapping[str, int | None] | None = None,
        ranks: Sequence[Mapping[str, Any]] | None = None,
        energy_j: float | None = None,
        quality: Mapping[str, Any] | None = None,
        configuration: Mapping[str, Any] | None = None,
        judged: bool = True,
    ) -> None:
        if benchmark.disabled:
            return
        if any(one.workload == workload for one in request.config.stash[RECORDS]):
            raise ValueError(
                f"this launch has a record of {workload.id} already, and no report could tell the "
                "two apart; give the workload an id of its own"
            )
        if ranks is None:
            step_s = tuple(benchmark.stats.stats.data) if step_s is None else step_s
            hit = [fault.text for fault in planted.of(workload.id)]
            own = {
                "rank": 0,
                "host": platform.node(),
                "samples": samples_per_step * len(step_s),
                "wall_s": sum(step_s),
                "step_s": step_s,
                "input_wait_s": None,
                "comm_wait_s": None,
                **(waits or {}),
                "first_step_s": None,
                "peak_bytes": {**observe.peak_bytes, **(peak_bytes or {})},
                "conditions": {**observe.conditions, "planted": hit},
            }
            ranks = conditions.settled([own])
        record = records.now(
            workload,
            [records.Rank(**rank) for rank in ranks],
            setup=records.setup(request.config.getoption("--setup-name")),
            energy_j=energy_j,
            quality=quality,
            configuration=configuration,
        )
        benchmark.extra_info |= {"record": record.to_json(), records.JUDGED: judged}
        request.config.stash[RECORDS].append(record)

    return attach


@pytest.fixture
def run_job(
    benchmark: Any,
    attach_record: Callable[..., None],
    devices: None,
    request: pytest.FixtureRequest,
) -> Callable[..., dict[str, Any]]:
    """``run_job(workload, spec)``: have ``workload.ranks`` processes of their own do ``spec``,
    attach their record, and give what they found (`rank_job.run`).

    The test is marked ``benchmark(timer=launching.reported_s)``: the steps that ``benchmark`` shows
    are those of the slowest rank. In the smoke test one rank is this process.
    """

    def run(workload: records.Workload, spec: Spec) -> dict[str, Any]:
        if workload.ranks == 1 and is_smoke(request.config):
            from benchmarks import rank_job

            found = rank_job.run(spec)[1]
        else:
            if workload.ranks > 1 and not launching.HOROVODRUN.exists():
                pytest.skip("Horovod is not installed: make setup")
            option = request.config.getoption
            found = launching.launch(spec, workload.ranks, hosts=option("hosts"))
            if option("link") is not None:
                found["ranks"][0]["conditions"]["link_bits_per_s"] = option("link")
        slowest = max(found["ranks"], key=lambda rank: rank["wall_s"])
        step_s = iter(slowest["step_s"])
        benchmark.pedantic(
            launching.reported.append,
            setup=lambda: ((next(step_s),), {}),
            rounds=len(slowest["step_s"]),
        )
        attach_record(
            workload,
            ranks=found["ranks"],
            energy_j=found["energy_j"],
            quality=found["quality"],
            configuration=found["configuration"],
        )
        return found

    return run


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``note(title, line)``: a line under a title at the end of the launch."""

    def add(title: str, line: str) -> None:
        request.config.stash[NOTES].setdefault(title, []).append(line)

    return add


@pytest.fixture
def time_in_turn(benchmark: Any, observe: Observer) -> Callable[..., list[float]]:
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

        with observe():
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
