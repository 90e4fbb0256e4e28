"""Sums over ranks of tensors that have the shapes of a network's gradients, by Horovod as training
uses it.

    pytest benchmarks/bench_allreduce.py --benchmark-json=OUT.json [--ranks=2,4]

Nothing is computed meanwhile, so this is what communication costs where none of it is hidden. Every
sum is checked. By the slowest rank's time,

    algorithm bandwidth = bytes of one rank's tensors / time,

what a user waits for, whichever way the bytes went (a ring sends 2 (N - 1) / N times as many).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training_cases
from benchmarks.launching import Spec, reported_s
from benchmarks.profiles import chosen_ranks, is_full, is_smoke, places
from benchmarks.training_cases import NETWORKS
from dlbench.report.records import Workload

WARMUP, STEPS, FULL_STEPS = 5, 20, 50
BYTES = {"none": 4, "fp16": 2, "bf16": 2}
"""Of a value on its way, by compression."""
PRECISION = {"none": "float32", "fp16": "float16", "bf16": "bfloat16"}
DEFINITION = "allreduce: algorithm bandwidth = bytes of one rank's tensors / slowest rank's time"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = is_full(metafunc.config)
    metafunc.parametrize("model", NETWORKS if full else ("segnet",))
    metafunc.parametrize("compression", BYTES if full else ("none",))
    several: list[Any] = [n for n in chosen_ranks(metafunc.config) if n > 1]
    reason = f"a sum needs two ranks, and here is a place for {places()} of them (--ranks=1,2)"
    none = pytest.param(2, marks=pytest.mark.skip(reason=reason))
    # In the smoke test one rank, this process, unless more are asked for.
    alone = is_smoke(metafunc.config) and not metafunc.config.getoption("ranks")
    metafunc.parametrize("ranks", [1] if alone else several or [none])


@pytest.mark.benchmark(timer=reported_s)
def test_allreduce(
    benchmark: Any,
    run_job: Callable[..., Any],
    note: Callable[[str, str], None],
    compute_threads: int,
    data_folder: Path,
    request: pytest.FixtureRequest,
    model: str,
    compression: str,
    ranks: int,
) -> None:
    smoke = is_smoke(request.config)
    network = NETWORKS[model]
    workload = Workload(
        id=f"allreduce/{model}/{compression}/{ranks}",
        model=model,
        data=None,
        precision=PRECISION[compression],
        ranks=ranks,
        batch_per_rank=1,
        shape=None,
        mode="allreduce",
    )
    content = training_cases.content(
        model,
        data_folder,
        threads=max(1, compute_threads // ranks),
        batch=1,
        options=network.smoke_options if smoke else {},
    )
    content["distributed"] = {"compression": compression}
    warmup, steps = (1, 1) if smoke else (WARMUP, FULL_STEPS if is_full(request.config) else STEPS)
    benchmark.group = "allreduce"
    found = run_job(workload, Spec("allreduce", workload.id, content, warmup, steps))
    if smoke:
        return
    size = found["values"] * BYTES[compression]
    slowest_s = statistics.median(max(step) for step in zip(*_steps(found), strict=True))
    bandwidth = size / slowest_s
    benchmark.extra_info["allreduce"] = {
        "definition": DEFINITION,
        "bytes": size,
        "algorithm_bandwidth_bytes_per_s": bandwidth,
    }
    note(
        DEFINITION,
        f"{model}, {found['tensors']} tensors, {size / 1e6:.1f} MB, compression {compression}, "
        f"{ranks} ranks: {1e3 * slowest_s:.1f} ms, {bandwidth / 1e9:.3f} GB/s",
    )


def _steps(found: dict[str, Any]) -> list[list[float]]:
    return [rank["step_s"] for rank in found["ranks"]]
