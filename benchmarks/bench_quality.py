"""Quality reached after a fixed budget: ``python -m dlbench.train`` for so many epochs on small
sets, scored on what it has not trained on.

    pytest benchmarks/bench_quality.py --benchmark-json=OUT.json

The record is that of the run: its speed and its quality belong together. The scores do not depend
on the speed, and hardly on the machine: a fast run that learns less than its bound fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import launching
from benchmarks.launching import reported_s
from benchmarks.profiles import is_full, is_smoke
from dlbench import config, train
from dlbench.data.granulation_files import make_granulation
from dlbench.data.scenes import make_vaihingen
from dlbench.report import records


@dataclass(frozen=True)
class Budget:
    """A run of `dlbench.train`, and what its score must reach."""

    make: Callable[[Path], Path]
    settings: tuple[str, ...]
    score: tuple[str, ...]
    """Where it stands in the record's quality."""
    bound: float
    higher: bool


def scenes(folder: Path) -> Path:
    return make_vaihingen(folder, tiles={"train": 2, "val": 2}, tile_size=256)


def granules(folder: Path) -> Path:
    return make_granulation(folder, {"train": 400, "val": 40}, 50)


COMMON = (
    "optimizer.schedule=cosine",
    "data.augmentation.flip_left_right=false",
    "training.progress=epoch",
)
BUDGETS = {
    "segnet_basic/vaihingen": Budget(
        scenes,
        (
            *("data.name=vaihingen", "data.size=[64,64]", "data.options.stride=32"),
            *("model.name=segnet_basic", "model.options.width=0.25"),
            *("optimizer.learning_rate=0.005", "training.batch=8", "training.epochs=16"),
            "training.evaluate_every=16",
        ),
        ("training_size", "mean_iou_all_classes"),
        0.33,
        higher=True,
    ),
    "deepvel/granulation": Budget(
        granules,
        (
            *("data.name=granulation", "model.name=deepvel"),
            *("model.options.blocks=4", "model.options.filters=32"),
            *("optimizer.learning_rate=0.002", "training.batch=8", "training.epochs=6"),
            "training.evaluate_every=6",
        ),
        ("rmse",),
        1.0,
        higher=False,
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = is_full(metafunc.config)
    metafunc.parametrize("name", BUDGETS if full else ("segnet_basic/vaihingen",))


@pytest.mark.benchmark(timer=reported_s)
def test_quality(
    benchmark: Any,
    attach_record: Callable[..., None],
    devices: None,
    compute_threads: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
) -> None:
    budget, smoke = BUDGETS[name], is_smoke(request.config)
    settings = [
        f"data.root={budget.make(tmp_path / 'data')}",
        f"output={tmp_path}",
        "name=run",
        f"training.threads={compute_threads}",
        *COMMON,
        *budget.settings,
    ]
    if smoke:
        settings += ["training.epochs=1", "training.batch=32"]
        train.train(config.load([str(config.EMBEDDED), *settings]))
    else:
        launching.run(["-m", "dlbench.train", *settings], timeout_s=1800.0)
    record = records.read(tmp_path / "run" / "record.json")
    reached: Any = record.quality
    for key in budget.score:
        reached = reached[key]
    if not smoke:
        met = reached >= budget.bound if budget.higher else reached <= budget.bound
        assert met, f"{budget.score[-1]} is {reached:.4f}; needed is {budget.bound} or better"
    benchmark.group = "quality"
    step_s = iter(record.slowest.step_s)
    benchmark.pedantic(
        launching.reported.append,
        setup=lambda: ((next(step_s),), {}),
        rounds=len(record.slowest.step_s),
    )
    workload = record.workload.model_copy(update={"id": f"quality/{name}"})
    ranks = [rank.model_dump() for rank in record.ranks]
    attach_record(
        workload,
        ranks=ranks,
        energy_j=record.energy_j,
        quality=record.quality,
        configuration=record.configuration,
    )
