"""What an A/A says of a machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dlbench.bench import self_test


def row(verdict: str = "cannot tell", **changes: Any) -> Any:
    values = {
        "workload": "op/copy", "measure": "throughput", "baseline": [9.0, 11.0],
        "candidate": [10.0, 10.0], "verdict": verdict, "detectable": 0.05, "variation": 0.0123,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


@pytest.mark.parametrize(
    ("verdict", "agrees"),
    [("same", True), ("cannot tell", True)]
    + [(told, False) for told in ("faster", "slower", "less", "more")],
)
def test_two_equal_setups_may_not_come_out_different(verdict: str, agrees: bool) -> None:
    rows = [row(), row(verdict)]
    assert [self_test.agrees(one) for one in rows] == [True, agrees]
    told = self_test.text(rows)
    assert ("FAULT" in told) != agrees
    assert agrees or f"throughput of op/copy '{verdict}'" in told


def test_the_smallest_detectable_differences_are_told() -> None:
    rows = [row(detectable=0.013), row(workload="train/segnet", detectable=0.051)]
    rows.append(row(measure="peak_host_rss", detectable=0.001))
    told = self_test.text(rows)
    assert "from 1.3 % (op/copy) to 5.1 % (train/segnet)" in told
    assert "2 + 2     1.2 %      1.3 %    cannot tell" in told.splitlines()[1]


def test_too_few_launches_detect_nothing() -> None:
    told = self_test.text([row(detectable=None, variation=None)])
    assert "the speed of 1 workload(s): needed is --launches 5." in told
    assert "  -  " in told
