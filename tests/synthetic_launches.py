"""Result records of launches that never ran, with what a test plants in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dlbench.report import records

ENVIRONMENT: dict[str, Any] = {
    "platform": {"release": "6.1", "hostname": "node0"},
    "cpu": {"model": "AMD EPYC", "flags": ["avx2", "avx512f"], "cores_usable": 2},
    "memory_bytes": 32 << 30,
    "gpu": None,
    "packages": {"numpy": "2.4.6", "rasterio": "1.4.4"},
    "tensorflow": {"version": "2.21.0", "intra_op_threads": 1},
    "libraries": {},
    "variables": {"TF_ENABLE_ONEDNN_OPTS": "1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "1234"},
}


def environment(**changes: Any) -> dict[str, Any]:
    """`ENVIRONMENT` with some of its entries in another state."""
    return deepcopy(ENVIRONMENT) | changes


def launch(
    number: int = 0,
    *,
    name: str = "A",
    workload: str = "train/segnet/miniature",
    step_s: float = 0.1,
    busy: Sequence[float] = (0.9, 0.9),
    input_wait: Sequence[float] = (0.01, 0.01),
    rss: float = 1 << 30,
    quality: dict[str, Any] | None = None,
    described: dict[str, Any] | None = None,
    conditions: dict[str, Any] | None = None,
    commit: str = "a" * 40,
    dirty: bool = False,
    fingerprint: str | None = None,
    minute: float | None = None,
    **changes: Any,
) -> records.Record:
    """Launch ``number`` of setup ``name``: 20 steps of 4 samples a rank.

    ``busy`` and ``input_wait`` are each rank's fractions of the wall time that it does not wait for
    the others, and that it waits for input; the latter is part of the former.
    """
    wall_s = 20 * step_s
    ranks = [
        records.Rank(
            rank=rank,
            host=f"node{rank}",
            samples=80,
            wall_s=wall_s,
            step_s=(step_s,) * 20,
            input_wait_s=input_wait[rank] * wall_s,
            comm_wait_s=(1 - busy[rank]) * wall_s,
            first_step_s=5.0,
            peak_bytes={"host_rss": round(rss), "gpu_allocated": None},
            conditions=conditions or {},
        )
        for rank in range(len(busy))
    ]
    # In alternation: launch 0 of A, launch 0 of B, launch 1 of A, ...
    minutes = 2 * number + (name != "A") if minute is None else minute
    content: dict[str, Any] = {
        "created": datetime(2026, 11, 24, tzinfo=UTC) + timedelta(minutes=minutes),
        "workload": records.Workload(
            id=workload,
            model="segnet",
            data="miniature",
            precision="float32",
            ranks=len(ranks),
            batch_per_rank=4,
            shape=(32, 48, 3),
            mode="train",
        ),
        "setup": records.Setup(
            name=name,
            fingerprint=fingerprint or name.ljust(16, "0")[:16],
            environment=described or environment(),
        ),
        "ranks": tuple(ranks),
        "energy_j": None,
        "quality": quality or {},
        "code": records.Code(version="0.1.0", commit=commit, dirty=dirty),
    }
    return records.Record(**content | changes)


def write_benchmarks(
    launches: Iterable[records.Record], path: Path, peers: Sequence[str] = ()
) -> Path:
    """One launch of several workloads as pytest-benchmark's JSON; ``peers`` are not judged."""
    benchmarks = [
        {
            "fullname": f"bench.py::{one.workload.id}",
            "extra_info": {"record": one.to_json(), "judged": one.workload.id not in peers},
        }
        for one in launches
    ]
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return path


def write(launches: Iterable[records.Record], folder: Path) -> list[Path]:
    """One file a launch, in ``folder``."""
    paths = []
    for number, record in enumerate(launches):
        setup = "".join(c if c.isalnum() else "_" for c in record.setup.name or "")
        path = folder / f"{setup}{number}.json"
        path.write_text(json.dumps(record.to_json()))  # `records.write` waits for the disk
        paths.append(path)
    return paths
