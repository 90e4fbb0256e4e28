"""Seconds from the start of a fresh process to the end of its first training step.

    pytest benchmarks/bench_first_step.py --benchmark-json=OUT.json

Imports, building the network, tracing, compilation and one step on a batch in memory: what a user
waits for before anything is learnt. Files come from the page cache where they lie there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import launching, rank_job, training_cases
from benchmarks.launching import Spec, reported_s
from benchmarks.profiles import is_full, is_smoke
from benchmarks.training_cases import NETWORKS
from dlbench.report.records import Workload

BATCH, SIZE, SMOKE_SIZE = 2, (48, 48), (16, 16)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    one = "segnet_basic" if is_smoke(metafunc.config) else "segnet"
    metafunc.parametrize("model", NETWORKS if is_full(metafunc.config) else (one,))


@pytest.mark.benchmark(timer=reported_s)
def test_first_step(
    benchmark: Any,
    attach_record: Callable[..., None],
    devices: None,
    compute_threads: int,
    data_folder: Path,
    request: pytest.FixtureRequest,
    model: str,
) -> None:
    smoke = is_smoke(request.config)
    size = SMOKE_SIZE if smoke else SIZE
    workload = Workload(
        id=f"first-step/{model}/float32",
        model=model,
        data="synthetic",
        precision="float32",
        ranks=1,
        batch_per_rank=BATCH,
        shape=(*size, 2 if model == "deepvel" else 3),
        mode="first-step",
    )
    content = training_cases.content(
        model,
        data_folder,
        threads=compute_threads,
        batch=BATCH,
        size=size,
        options=NETWORKS[model].smoke_options if smoke else {},
    )
    spec = Spec("train", workload.id, content, warmup=0, steps=1)
    found = rank_job.run(spec)[1] if smoke else launching.launch(spec)
    (rank,) = found["ranks"]
    benchmark.group = "first-step"
    benchmark.pedantic(launching.reported.append, args=(rank["first_step_s"],), rounds=1)
    # The whole of it is what is measured here, and the step only its end.
    whole = {"step_s": [rank["first_step_s"]], "wall_s": rank["first_step_s"]}
    unknown = {"input_wait_s": None, "comm_wait_s": None}
    attach_record(
        workload,
        ranks=[rank | whole | unknown],
        quality=found["quality"],
        configuration=found["configuration"],
    )
