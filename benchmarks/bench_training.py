"""A training step and a prediction of each network on synthetic input, as `dlbench.train` has them.

    pytest benchmarks/bench_training.py --benchmark-json=OUT.json

The batch lies in memory, so this is the speed that an input pipeline can at best reach. Every
measurement is a process of its own: its peak memory is that of this workload alone, and its first
step is one that a user waits for. Size and batch stand in each test's name: ``--benchmark-disable``
checks everything on smaller ones, in the process of pytest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training_cases
from benchmarks.launching import Spec, reported_s
from benchmarks.profiles import is_full, is_smoke
from benchmarks.training_cases import NETWORKS
from dlbench import environment
from dlbench.report.records import Workload

PRECISIONS = ("float32", "mixed_bfloat16")
MODES = {"train-step": "train", "inference": "inference"}
"""The kind of job (`benchmarks.rank_job`) by the first part of a workload's id."""
BATCHES, FULL_BATCHES, SMOKE_BATCHES = (2,), (1, 2, 4, 8), (2,)
WARMUP, STEPS, FULL_STEPS = 2, 6, 20
LEFT_OUT = (("segnet", "mixed_bfloat16"), ("deepvel", "mixed_bfloat16"))
"""Of the smoke test, for its time: one network is enough for a precision."""
BANDS = {"vaihingen": 3, "granulation": 2}
AVX512 = ("avx512f", "avx512_bf16", "amx_bf16")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    smoke, full = is_smoke(metafunc.config), is_full(metafunc.config)
    batches = FULL_BATCHES if full else SMOKE_BATCHES if smoke else BATCHES
    cases = [
        (model, precision, batch, network.smoke_size if smoke else network.size)
        for (model, network), precision, batch in itertools.product(
            NETWORKS.items(), PRECISIONS, batches
        )
    ]
    if smoke:
        cases = [case for case in cases if case[:2] not in LEFT_OUT]
    metafunc.parametrize(
        ("model", "precision", "batch", "size"),
        cases,
        ids=["-".join((m, p, "x".join(map(str, (b, *size))))) for m, p, b, size in cases],
    )
    metafunc.parametrize("name", MODES)


@pytest.mark.benchmark(timer=reported_s)
def test_network(
    benchmark: Any,
    run_job: Callable[..., Any],
    compute_threads: int,
    data_folder: Path,
    request: pytest.FixtureRequest,
    name: str,
    model: str,
    precision: str,
    batch: int,
    size: tuple[int, int],
) -> None:
    smoke, full = is_smoke(request.config), is_full(request.config)
    if precision == "mixed_bfloat16" and not (smoke or full) and not computes_bfloat16():
        pytest.skip("this processor computes bfloat16 in float32, slowly: --profile=full")
    network = NETWORKS[model]
    workload = Workload(
        id=f"{name}/{model}/{precision}",
        model=model,
        data="synthetic",
        precision=precision,
        ranks=1,
        batch_per_rank=batch,
        shape=(*size, BANDS[network.data]),
        mode=MODES[name],
    )
    content = training_cases.content(
        model,
        data_folder,
        threads=compute_threads,
        batch=batch,
        precision=precision,
        size=size,
        options=network.smoke_options if smoke else {},
    )
    warmup, steps = (1, 2) if smoke else (WARMUP, FULL_STEPS if full else STEPS)
    benchmark.group = name
    run_job(workload, Spec(MODES[name], workload.id, content, warmup, steps))


def computes_bfloat16() -> bool:
    """Whether bfloat16 is worth measuring here: on GPUs, and where oneDNN has kernels for it."""
    import tensorflow as tf

    flags = environment.cpu()["flags"] or []
    return bool(tf.config.list_physical_devices("GPU")) or any(flag in flags for flag in AVX512)
