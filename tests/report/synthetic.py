"""Records that nobody measured: several setups, numbers of ranks, workloads and states of the code.

Throughput is known exactly (`throughput`), times a launch's own small factor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.report import records
from dlbench.report.records import Code, Rank, Record, Setup, Workload

SPEEDS = {"A100 driver 550": 410.0, "A100 driver 535": 400.0, "H100 driver 550": 905.0}
HOSTILE = "<script>alert(1)</script>\"'&]]>--><img src=x onerror=alert(2)>"
WORKLOADS = {
    "train/segnet/vaihingen": ("segnet", "vaihingen", (128, 128, 3), 1.0),
    "train/deepvel/granulation": ("deepvel", "granulation", (128, 128, 2), 0.35),
    "inference/segnet/camvid": ("segnet", "camvid", (360, 480, 3), 2.1),
}
COMMITS = tuple(character * 40 for character in "abc")
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def throughput(speed: float, size: float, ranks: int, version: int) -> float:
    """Samples/s: 95 % efficient on 2 ranks, 88 % on 4; every state of the code gains 2 %."""
    return speed * size * ranks * {1: 1.0, 2: 0.95, 4: 0.88}[ranks] * 1.02**version


def record(
    name: str, speed: float, workload: str, ranks: int, version: int, launch: int, seed: int
) -> Record:
    """One launch; three in a hundred of its time waits for input, some of it for other ranks."""
    model, data, shape, size = WORKLOADS[workload]
    generator = np.random.default_rng(seed)
    rate = throughput(speed, size, ranks, version) * float(generator.normal(1, 0.006))
    steps, batch = 40, 16
    wall = batch * steps * ranks / rate
    measured = [
        Rank(
            rank=number,
            host=f"node{number // 2}",
            samples=batch * steps,
            wall_s=wall,
            step_s=tuple((wall / steps * generator.normal(1, 0.02, steps)).clip(1e-6).tolist()),
            input_wait_s=0.03 * wall,
            comm_wait_s=None if ranks == 1 else (0.04 + 0.01 * number) * wall,
            first_step_s=20.0 + launch,
            peak_bytes={"host_rss": int(3e9 + 1e7 * number + 1e6 * launch), "gpu_allocated": None},
            conditions={"throttled": True} if seed % 50 == 0 else {},
        )
        for number in range(ranks)
    ]
    scored = float(generator.normal(0.77, 0.004))
    quality: dict[str, Any] = {"mean_iou": scored} if model == "segnet" else {"rmse": 1 - scored}
    driver = name.rpartition(" ")[2]
    environment: dict[str, Any] = {
        "cpu": {"model": "AMD EPYC 7543", "cores_usable": 32},
        "gpu": {"driver": driver, "devices": [{"name": name.split(" ")[0]}] * 4},
        "memory_bytes": 512 * 2**30,
        "tensorflow": {"version": "2.21.0", "intra_op_threads": 0},
        "platform": {"distribution": "Debian GNU/Linux 12 (bookworm)", "hostname": "node0"},
        "variables": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    }
    return Record(
        created=START + timedelta(days=30 * version, minutes=7 * launch, seconds=seed % 400),
        workload=Workload(
            id=workload,
            model=model,
            data=data,
            precision="mixed_bfloat16" if "H100" in name else "float32",
            ranks=ranks,
            batch_per_rank=batch,
            shape=shape,
            mode=workload.split("/")[0],
        ),
        setup=Setup(
            name=name, fingerprint=sha256(name.encode()).hexdigest()[:16], environment=environment
        ),
        ranks=tuple(measured),
        energy_j=250.0 * wall,
        quality=quality,
        code=Code(version="0.1.0", commit=COMMITS[version % len(COMMITS)], dirty=version > 2),
    )


def several(
    setups: Sequence[tuple[str, float]] = (*SPEEDS.items(), (HOSTILE, 390.0)),
    *,
    versions: int = 2,
    launches: int = 6,
    workloads: Sequence[str] = tuple(WORKLOADS),
    ranks: Sequence[int] = (1, 2, 4),
) -> Iterator[Record]:
    """Launches of every combination."""
    seed = 0
    for name, speed in setups:
        for version in range(versions):
            for workload in workloads:
                for number in ranks if workload.startswith("train/segnet") else ranks[:1]:
                    for launch in range(launches):
                        seed += 1
                        yield record(name, speed, workload, number, version, launch, seed)


def write_launches(folder: Path, found: Sequence[Record]) -> list[Path]:
    """Write each record to a file of its own."""
    paths = [folder / f"{number:04d}.json" for number in range(len(found))]
    for path, one in zip(paths, found, strict=True):
        records.write(one, path)
    return paths


def write_session(path: Path, found: Sequence[Record]) -> Path:
    """Write records as the pytest-benchmark JSON of one launch."""
    benchmarks = [
        {"fullname": one.workload.id, "extra_info": {"record": one.to_json()}} for one in found
    ]
    path.write_text(json.dumps({"benchmarks": benchmarks, "datetime": str(START)}))
    return path
