"""A slow rank of two, planted in a whole training: who waits for whom, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlbench.report import page, records, stragglers

ROOT = Path(__file__).parents[2]
STEP_S, READ_S = 0.4, 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_norm", "step_s", "read_s", "cause"),
    [
        ("local", STEP_S, 0.0, "compute"),
        ("sync", STEP_S, 0.0, "compute"),
        ("local", 0.0, READ_S, "input"),
    ],
)
def test_the_slow_rank_is_found_and_its_cause(
    street: Path,
    launch: Callable[..., Any],
    batch_norm: str,
    step_s: float,
    read_s: float,
    cause: str,
) -> None:
    place = street.parent
    arguments = [
        str(step_s), str(read_s), "name=slowed", "data.name=camvid", "data.root=street",
        "data.size=[32,32]", "data.workers=1", "model.name=segnet_basic",
        "model.options.width=0.05", "training.batch=1", "training.epochs=2",
        "training.drop_remainder=true", f"distributed.batch_norm={batch_norm}",
    ]  # fmt: skip
    ended = launch([str(ROOT / "tests/ranks/slowed.py"), *arguments], place, ranks=2)
    assert ended.status == 0, ended.output
    (record,) = records.read_many([place / "runs" / "slowed" / "record.json"])

    quick, slow = record.ranks
    steps = len(quick.step_s)
    assert steps == len(slow.step_s) == 5, "three an epoch, the first not timed"
    assert quick.comm_wait_s is not None
    assert slow.comm_wait_s is not None
    assert quick.input_wait_s is not None
    assert slow.input_wait_s is not None
    # Some batches are read while others are computed, and some before the first timed step.
    planted = steps * step_s + 2 * read_s
    assert quick.comm_wait_s - slow.comm_wait_s > 0.6 * planted
    assert quick.comm_wait_s + quick.input_wait_s < quick.wall_s
    if cause == "input":
        assert slow.input_wait_s - quick.input_wait_s > 0.6 * planted
    else:
        assert slow.input_wait_s < 0.2 * slow.wall_s

    straggler = stragglers.find(record.ranks)
    assert straggler is not None
    assert (straggler.rank, straggler.cause) == (1, cause)
    assert f"| straggler | rank 1 on {slow.host}: " in page.markdown(record)
    for rank in record.ranks:
        assert rank.first_step_s is not None
        assert 1.0 < rank.first_step_s < ended.seconds
        assert rank.conditions["machine_load"] is not None
        assert rank.conditions["other_load"] is not None
