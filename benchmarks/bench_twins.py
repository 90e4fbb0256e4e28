"""Our networks against their twins in PyTorch and in plain Keras: time of a step, peak memory.

    pytest benchmarks/bench_twins.py --profile=full --benchmark-json=OUT.json

Every measurement is a launch of a process of its own (`twin_run`), ours right before each of the
twin's; a ratio is that of the launches' median steps, so that its quartiles hold what differs from
launch to launch. Ours takes part as its own twin: that ratio shows what the machine can tell apart;
so do the network's convolutions alone: their ratio is the fraction of the limit that ours reaches.
Without ``--profile=full``, each twin of DeepVel runs once on a tiny input and must compute what
ours computes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import training_cases, twin_cases, twin_run
from benchmarks.launching import reported, reported_s
from benchmarks.pooling_torch import ABSENT, installed
from benchmarks.profiles import is_full
from benchmarks.twin_cases import MODES, NETWORKS, PRECISIONS, Case
from benchmarks.twin_run import Launched, median
from dlbench import environment
from dlbench.report.records import Workload

TWINS = ("ours", "torch", "torch_tuned", "keras", "convolutions")
SMOKE_TWINS = ("torch_tuned", "keras", "convolutions")
SMOKE_NETWORKS = ("deepvel",)
"""For the time that the other's many layers take to trace; tests/test_twins.py has both."""
LAUNCHES, STEPS, SMOKE_STEPS = 5, 10, 1
TIMEOUT_S = 3600.0
SMOKE: dict[str, dict[str, Any]] = {
    "deepvel": {"batch": 2, "size": (16, 16), "options": {"blocks": 2, "filters": 8}},
}
# A step in bfloat16 takes half a minute where the processor computes it in float32.
FULL_AVX2: dict[str, dict[str, Any]] = {
    "segnet": {"batch": 2, "size": (180, 240)},
    "deepvel": {"batch": 8, "size": (50, 50)},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = is_full(metafunc.config)
    flags = environment.describe()["cpu"]["flags"] or []
    sizes = (twin_cases.FULL if "avx512f" in flags else FULL_AVX2) if full else SMOKE
    # Tiny inputs have moments of so few values that in bfloat16 nothing could be compared.
    networks, precisions, modes = (
        (NETWORKS, PRECISIONS, MODES) if full else (SMOKE_NETWORKS, ("float32",), ("train",))
    )
    cases = [
        Case(network, precision, mode, **sizes[network])
        for network, precision, mode in itertools.product(networks, precisions, modes)
    ]
    pairs = [
        pytest.param(case, twin, id=f"{describe(case)}-{twin}")
        for case in cases
        for twin in (TWINS if full else SMOKE_TWINS)
    ]
    metafunc.parametrize(("case", "twin"), pairs)


def describe(case: Case) -> str:
    size = "x".join(map(str, (case.batch, *case.size)))
    return f"{case.mode}-{case.network}-{case.precision}-{size}"


@pytest.fixture(scope="module")
def launch(
    request: pytest.FixtureRequest, compute_threads: int, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Case], Launched]:
    """``launch(peer, case)``: what the process found; in the smoke test each runs but once, those
    on TensorFlow in this process."""
    folder = tmp_path_factory.mktemp("weights")
    full = is_full(request.config)

    def launch(peer: str, case: Case) -> Launched:
        steps = STEPS if full else SMOKE_STEPS
        weights: Path = folder / f"{case.network}.npz"
        if not full and not peer.startswith("torch"):
            return in_this_process(peer, case, weights, steps)
        return twin_run.launch(peer, case, weights, steps, compute_threads, TIMEOUT_S)

    def in_this_process(peer: str, case: Case, weights: Path, steps: int) -> Launched:
        with training_cases.own_keras_state():
            if not weights.exists():
                np.savez(weights, **twin_cases.draw_weights(case.network, case.options))  # type: ignore[arg-type]
            return twin_run.measure(peer, case, weights, steps, compute_threads)

    return launch if full else functools.cache(launch)


@pytest.mark.benchmark(timer=reported_s)
def test_twin(
    benchmark: Any,
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    devices: None,
    launch: Callable[[str, Case], Launched],
    request: pytest.FixtureRequest,
    case: Case,
    twin: str,
) -> None:
    if twin.startswith("torch") and not installed():
        pytest.skip(ABSENT)
    ours: list[Launched] = []
    theirs: list[Launched] = []

    def launch_both() -> tuple[tuple[float], dict[str, Any]]:
        ours.append(launch("ours", case))
        theirs.append(launch(twin, case))
        if twin != "convolutions":
            check(case, ours[-1]["loss"], theirs[-1]["loss"])
        return (median(theirs[-1]),), {}

    full = is_full(request.config)
    benchmark.group = describe(case)
    benchmark.pedantic(reported.append, setup=launch_both, rounds=LAUNCHES if full else 1)
    if not full:
        return
    benchmark.extra_info |= {"launches": theirs, "ours_launches": ours}
    workload = Workload(
        id=f"twin-{case.mode}/{case.network}/{twin}/{case.precision}",
        model=case.network,
        data="synthetic",
        precision=case.precision,
        ranks=1,
        batch_per_rank=case.batch,
        shape=case.size,
        mode=case.mode,
    )
    attach_record(
        workload,
        samples_per_step=case.batch,
        peak_bytes={"host_rss_hwm": peak(theirs)},
        judged=twin == "ours",
    )
    attach_ratio(
        f"{describe(case)}: {twin} ({peak(theirs) / 2**30:.2f} GiB)",
        f"ours ({peak(ours) / 2**30:.2f} GiB)",
        [median(one) for one in ours],
    )


def peak(launches: list[Launched]) -> int:
    """Bytes: the largest of the launches."""
    return max(launched["peak_bytes"]["host_rss_hwm"] for launched in launches)


def check(case: Case, ours: list[float], theirs: list[float]) -> None:
    """The same loss of the same weights, and, in training, as much of it gone after one step.

    Later steps are not compared: batch-norm over the few values of the innermost stage, and Adam's
    steps, which are as large for a small gradient as for a large one, soon magnify what rounding
    leaves.
    """
    exact = case.precision == "float32"
    # The twins' statistics of a batch of large images are right to 4e-6 in float32, ours to 3e-8.
    assert theirs[0] == pytest.approx(ours[0], rel=5e-5 if exact else 2e-2), (ours, theirs)
    if case.mode == "train":
        our_gain, their_gain = (losses[0] - losses[1] for losses in (ours, theirs))
        assert their_gain == pytest.approx(our_gain, rel=0.02 if exact else 0.5), (ours, theirs)
