"""Planted faults do what they say to whom they say, and are recorded; others are refused."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import planted
from dlbench import environment
from dlbench.bench.memory import PeakMemory
from dlbench.data.dataset import DataSet, Sample


class Noise(DataSet):
    name = "noise"
    bands = ("grey",)
    splits = ("train",)

    def count(self, split: str) -> int:
        return 1

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        return np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.uint8)

    def sample_name(self, split: str, index: int) -> str:
        return "noise"


def plant(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(planted.VARIABLE, text)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each pause that was asked for; none is made."""
    found: list[float] = []
    monkeypatch.setattr(planted, "pause", found.append)
    return found


def test_a_slowdown_lengthens_each_step_by_a_part_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    plant(monkeypatch, "slowdown:train-step/*:0.5")
    took_s: list[float] = []

    def work() -> int:
        start = time.perf_counter()
        time.sleep(0.02)
        took_s.append(time.perf_counter() - start)
        return 7

    step = planted.step("train-step/segnet/float32", work)
    assert [step() for _ in range(4)] == [7, 7, 7, 7]
    assert pauses[1:] == pytest.approx([0.5 * seconds for seconds in took_s[:-1]], rel=0.05)
    assert planted.step("inference/segnet/float32", work) is work


def test_a_pause_is_not_shorter_and_hardly_longer() -> None:
    longer_s = []
    for _ in range(5):
        start = time.perf_counter()
        planted.pause(0.01)
        longer_s.append(time.perf_counter() - start - 0.01)
    assert min(longer_s) >= 0.0
    assert min(longer_s) < 2e-4


def test_a_slow_rank_is_that_rank_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "slowdown:other:9, slow-rank:scaling:1:1.0")
    work = time.perf_counter
    assert planted.step("scaling", work, rank=0) is work
    assert planted.step("scaling", work, rank=1) is not work
    (fault,) = planted.of("scaling", 1)
    assert (fault.kind, fault.rank, fault.amount) == ("slow-rank", 1, 1.0)
    assert planted.of("scaling", 0) == []


def test_without_a_fault_nothing_is_wrapped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(planted.VARIABLE, raising=False)
    step, dataset = (lambda: None), Noise(tmp_path)
    assert planted.step("any", step) is step
    assert planted.reading("any", dataset) is dataset


def test_a_stall_delays_each_sample_and_leaves_the_data_set_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, "input-stall:train-input-*:0.1")
    dataset = Noise(tmp_path)
    before = copy.copy(dataset.__dict__)
    slow = planted.reading("train-input-disk/segnet/noise", dataset)
    start = time.perf_counter()
    slow.read("train", 0)
    assert time.perf_counter() - start > 0.1
    assert dataset.__dict__ == before


def test_memory_grows_by_the_fraction_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "memory:train:0.25")
    with PeakMemory() as without:
        planted.grow("inference")
        time.sleep(0.2)
    before = without.peak_bytes["host_rss_hwm"]
    with PeakMemory() as memory:
        planted.grow("train")
    found = memory.peak_bytes["host_rss"]
    assert before and found
    assert found / before == pytest.approx(1.25, abs=0.02)


def test_the_fingerprint_does_not_know_but_the_variables_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean = environment.describe()
    plant(monkeypatch, "slowdown:any:0.05")
    hit = environment.describe()
    assert hit["variables"][planted.VARIABLE] == "slowdown:any:0.05"
    assert environment.fingerprint(hit) == environment.fingerprint(clean)


@pytest.mark.parametrize(
    "text", ["slowdown", "slowdown:any", "slowdown:any:fast", "memory:any:-0.1", "fire:any:1"]
)
def test_what_cannot_be_planted_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    plant(monkeypatch, text)
    with pytest.raises(planted.PlantedError, match=f"holds '{text}'; allowed are slowdown:"):
        planted.faults()
