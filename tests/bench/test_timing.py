import subprocess
import sys
import time

import numpy as np
import pytest

from dlbench.bench.timing import StepTimer, Timing, measure, since_process_start


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 10**9

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr("dlbench.bench.timing.time.perf_counter_ns", fake)
    return fake


def spin(seconds: float) -> float:
    """Keep the core busy for that long; returns how long it really was, preemption included."""
    start = time.perf_counter_ns()
    while time.perf_counter_ns() < start + seconds * 1e9:
        pass
    return (time.perf_counter_ns() - start) * 1e-9


def test_a_known_duration_is_measured_within_one_percent() -> None:
    truth: list[float] = []
    timing = measure(lambda: truth.append(spin(0.005)), warmup=2, rounds=21, synchronise=None)
    assert timing.median == pytest.approx(float(np.median(truth[2:])), rel=0.01)
    assert len(timing.warmup_s) == 2


@pytest.mark.slow
def test_a_nominal_duration_is_measured_within_one_percent() -> None:
    """Needs a core to itself: what other processes take from the step is part of its time."""
    timing = measure(lambda: spin(0.02), warmup=2, rounds=51, synchronise=None)
    assert timing.median == pytest.approx(0.02, rel=0.01)


def test_the_age_of_a_process() -> None:
    """Against a clock outside: from before it is started, and from when it says that it runs."""
    script = (
        "import sys, time\n"
        "print(flush=True)\n"
        "time.sleep(0.2)\n"
        "from dlbench.bench.timing import since_process_start\n"
        "print(since_process_start(), flush=True)"
    )
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    runs = time.monotonic()
    age = float(process.stdout.readline())
    ended = time.monotonic()
    process.wait()
    tick = 0.02
    assert 0.2 < age < ended - begun + tick
    assert age > runs - begun - tick, "the start of the interpreter is part of it"
    assert since_process_start() > age


def test_the_harness_costs_less_than_half_a_percent_of_a_millisecond_step() -> None:
    launches = [
        measure(lambda: None, warmup=10, rounds=500, synchronise=lambda _: None) for _ in range(9)
    ]
    # Inside the reported time, and in all, with what lies between the steps.
    assert min(timing.median for timing in launches) < 0.005 * 1e-3
    assert min(timing.wall_s / 500 for timing in launches) < 0.005 * 1e-3


def test_work_that_is_still_running_is_waited_for(clock: Clock) -> None:
    def launch() -> int:
        return clock.now + 4_000_000  # like a GPU step: back at once, finished later

    def wait(end: int) -> None:
        clock.now = end

    assert measure(launch, warmup=0, rounds=5, synchronise=wait).step_s == (0.004,) * 5
    assert measure(launch, warmup=0, rounds=5, synchronise=None).step_s == (0.0,) * 5


def test_the_warm_up_is_kept_apart(clock: Clock) -> None:
    durations = iter([0.5, 0.25, 0.002, 0.003, 0.004])
    timing = measure(lambda: clock.sleep(next(durations)), warmup=2, rounds=3, synchronise=None)
    assert timing.time_to_first_step == 0.5
    assert timing.warmup_s == (0.5, 0.25)
    assert timing.step_s == pytest.approx((0.002, 0.003, 0.004))
    assert timing.wall_s == pytest.approx(0.009)
    assert str(timing) == "median 3.000 ms, IQR 1.000 ms, n 3 after 2 warm-up steps"


def test_median_and_interquartile_range() -> None:
    timing = Timing(warmup_s=(), step_s=(5.0, 1.0, 2.0, 3.0, 4.0), wall_s=15.0)
    assert timing.median == 3.0
    assert timing.iqr == 2.0
    assert timing.time_to_first_step == 5.0


def test_wall_time_includes_what_lies_between_the_steps(clock: Clock) -> None:
    timer = StepTimer(warmup=1)
    for _ in range(3):
        timer.start()
        clock.sleep(0.001)
        timer.stop()
        clock.sleep(0.002)
    timing = timer.timing()
    assert timing.step_s == pytest.approx((0.001, 0.001))
    assert timing.wall_s == pytest.approx(0.004)


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        measure(lambda: None, warmup=1, rounds=0, synchronise=None)
    with pytest.raises(ValueError, match="warmup is -1"):
        measure(lambda: None, warmup=-1, rounds=1, synchronise=None)
    timer = StepTimer(warmup=3)
    timer.start()
    timer.stop()
    with pytest.raises(ValueError, match="1 steps ran, all within the warm-up of 3"):
        timer.timing()
