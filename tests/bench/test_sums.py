"""The probe of sums over ranks that a forecast is fitted to, on one rank."""

from __future__ import annotations

import pytest

from benchmarks import sums
from dlbench.distributed import SingleProcess


def test_every_size_is_timed_until_one_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sums.measure(SingleProcess())
    assert found["bytes"] == list(sums.SIZES)
    assert len(found["seconds"]) == len(sums.SIZES) and min(found["seconds"]) > 0.0
    monkeypatch.setattr(sums, "LONGEST_S", 0.0)
    assert sums.measure(SingleProcess())["bytes"] == [sums.SIZES[0]]


def test_a_wrong_sum_is_no_measurement() -> None:
    class Forgetful(SingleProcess):
        size = 2

    with pytest.raises(AssertionError, match="the sum of ones is the number of ranks"):
        sums.measure(Forgetful())
