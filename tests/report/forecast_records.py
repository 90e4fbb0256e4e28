"""Launches by the cost model with known parameters, and the records that would tell of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import synthetic_launches as synthetic

from dlbench.report.cost_model import Launch, Model
from dlbench.report.records import Rank, Record, Workload

TRUE = Model(wait=0.008, hop=0.0004, host=1.5e-9, link=1.05, overlap=0.4, trailing=1.5)
COMPUTE, GRADIENTS = 0.2, 8_000_000
SIZES = [4, 65536, 262144, 1048576, 4194304]
LINKS = (np.inf, 1e9, 2e8)


def launch(
    ranks: int,
    link: float,
    generator: np.random.Generator,
    noise: float = 0.02,
    sums_overlap: bool = True,
) -> Launch:
    """By the formulas, written out again; every time is off by ``noise``, a launch's as a whole."""

    def off() -> float:
        return float(generator.normal(1.0, noise))

    machine = off()
    own = [COMPUTE * machine * float(generator.normal(1.0, noise / 2)) for _ in range(ranks)]
    if ranks == 1:
        return Launch(1, np.inf, own[0], tuple(own), GRADIENTS, ())
    small = TRUE.wait + TRUE.hop * (ranks - 1)
    byte = 2 * (ranks - 1) / ranks * (TRUE.host + TRUE.link / (link / 8))
    sums = [(size, (small + size * byte) * off()) for size in SIZES]
    hidden = TRUE.overlap * max(own) if sums_overlap else 0.0
    left = (small + GRADIENTS * byte) * off() - hidden
    exposed = max(left, 0.0) + TRUE.trailing * small
    step = max(own) + exposed + COMPUTE * float(generator.normal(0.0, noise))
    return Launch(ranks, link, step, tuple(own), GRADIENTS, tuple(sums), sums_overlap)


def launches(
    generator: np.random.Generator, counts: tuple[int, ...] = (1, 2, 3), each: int = 5, **more: Any
) -> list[Launch]:
    return [
        launch(ranks, link, generator, **more)
        for ranks in counts
        for link in (LINKS if ranks > 1 else LINKS[:1])
        for _ in range(each)
    ]


def record(one: Launch, number: int, link: float | None = None, waits_seen: bool = True) -> Record:
    """What `benchmarks/` would have written of ``one``, 20 steps."""
    conditions: dict[str, Any] = {
        "gradients": {"tensors": 30, "bytes": one.gradients, "sums_overlap": one.sums_overlap}
    }
    if one.ranks > 1:
        sizes, seconds = zip(*one.sums, strict=True)
        conditions |= {
            "sums": {"bytes": list(sizes), "seconds": list(seconds)},
            "link_bits_per_s": link,
        }
    ranks = [
        Rank(
            rank=rank,
            host=f"node{rank if link else 0}",
            samples=80,
            wall_s=20 * one.step_s,
            step_s=(one.step_s,) * 20,
            input_wait_s=0.0,
            comm_wait_s=20 * (one.step_s - own) if waits_seen else None,
            first_step_s=5.0,
            peak_bytes={},
            conditions=conditions if rank == 0 else {},
        )
        for rank, own in enumerate(one.own_s)
    ]
    workload = Workload(
        id="scaling-weak/segnet/float32", model="segnet", data=None, precision="float32",
        ranks=one.ranks, batch_per_rank=4, shape=(32, 48, 3), mode="train",
    )  # fmt: skip
    return synthetic.launch(number).model_copy(update={"workload": workload, "ranks": tuple(ranks)})


def written(folder: Path, each: int = 5) -> list[Path]:
    generator = np.random.default_rng(0)
    found = [
        record(launch(ranks, link, generator), number, None if np.isinf(link) else link)
        for ranks, link in ((1, np.inf), (2, np.inf), (2, 1e9), (3, 1e9))
        for number in range(each)
    ]
    for number, one in enumerate(found):
        (folder / f"{number:02d}.json").write_text(one.model_dump_json(by_alias=True))
    return sorted(folder.glob("*.json"))
