"""Training steps on one rank and on several, started by ``horovodrun``: weak and strong scaling.

    pytest benchmarks/bench_scaling.py --benchmark-json=OUT.json [--ranks=1,2,4]
        [--hosts=a:2,b:2 --link=10gbit]

Weak: the batch of a rank stays. Strong: the batch of all ranks together stays. Every rank has the
same number of threads, the cores by the largest number of ranks, so that one rank is always the
same part of the machine. Input is synthetic. Each number of ranks is one job; its throughput is
all samples by the slowest rank's time, and

    efficiency = throughput(N) / (N x throughput(1))

which is not clamped: more than 1 is possible, where a smaller batch or part fits the caches.
`python -m dlbench.report forecast` tells from several such launches what more ranks would do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training_cases
from benchmarks.launching import Spec, reported_s
from benchmarks.profiles import chosen_ranks, is_full, is_smoke, most_on_a_host, places
from benchmarks.training_cases import NETWORKS
from dlbench.report.records import Workload

OPTIONS = {"width": 0.5}
SMOKE_SIZE = (32, 32)
MODELS = {"segnet_basic": ((96, 128), 4), "segnet": ((64, 96), 1)}
"""Size and batch of a rank in weak scaling. The first computes; the second, of the full profile,
communicates: 29 MB of gradients a step, for a network between hosts."""
WARMUP, STEPS, FULL_STEPS = 4, 15, 40
DEFINITION = "scaling: efficiency = throughput(N) / (N x throughput(1)), not clamped"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The smoke test launches two ranks here, and only here, unless a single GPU is all there is.
    counts = (min(2, places()),) if is_smoke(metafunc.config) else chosen_ranks(metafunc.config)
    cases = []
    for model in MODELS if is_full(metafunc.config) else list(MODELS)[:1]:
        _, batch = MODELS[model]
        kept = [("weak", n, batch) for n in counts]
        whole = batch * max(counts)
        shared = [("strong", n, whole // n) for n in counts if whole % n == 0]
        for kind, n, own in kept if is_smoke(metafunc.config) else kept + shared:
            cases.append(pytest.param(model, kind, n, own, id=f"{model}-{kind}-{n}"))
    metafunc.parametrize(("model", "kind", "ranks", "batch"), cases)


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, str], float]:
    """Samples per second of one rank, by the network and the kind of scaling."""
    return {}


@pytest.mark.benchmark(timer=reported_s)
def test_scaling(
    benchmark: Any,
    run_job: Callable[..., Any],
    note: Callable[[str, str], None],
    alone: dict[tuple[str, str], float],
    compute_threads: int,
    data_folder: Path,
    request: pytest.FixtureRequest,
    model: str,
    kind: str,
    ranks: int,
    batch: int,
) -> None:
    smoke = is_smoke(request.config)
    size = SMOKE_SIZE if smoke else MODELS[model][0]
    workload = Workload(
        id=f"scaling-{kind}/{model}/float32",
        model=model,
        data="synthetic",
        precision="float32",
        ranks=ranks,
        batch_per_rank=batch,
        shape=(*size, 3),
        mode="train",
    )
    threads = max(1, compute_threads // most_on_a_host(request.config))
    content = training_cases.content(
        model,
        data_folder,
        threads=threads,
        batch=batch,
        size=size,
        options=NETWORKS[model].smoke_options if smoke else OPTIONS,
    )
    warmup, steps = (1, 1) if smoke else (WARMUP, FULL_STEPS if is_full(request.config) else STEPS)
    benchmark.group = f"scaling-{kind}"
    found = run_job(workload, Spec("train", workload.id, content, warmup, steps))
    if smoke:
        return
    parts = found["ranks"]
    throughput = sum(part["samples"] for part in parts) / max(part["wall_s"] for part in parts)
    if ranks == 1:
        alone[model, kind] = throughput
    line = f"{kind:6} {model}, {ranks} rank(s) x batch {batch}: {throughput:8.2f} samples/s"
    if (model, kind) in alone:  # one rank may have failed
        speedup = throughput / alone[model, kind]
        benchmark.extra_info["scaling"] = {
            "definition": DEFINITION,
            "speedup": speedup,
            "efficiency": speedup / ranks,
        }
        line += f", speed-up {speedup:.3f}, efficiency {speedup / ranks:.3f}"
    note(DEFINITION, line)
