import statistics
import subprocess
import sys
import time

import pytest

from dlbench.bench.timing import measure, since_process_start


def spin(seconds: float) -> float:
    """Keep the core busy for that long; returns how long it really was, preemption included."""
    start = time.perf_counter_ns()
    while time.perf_counter_ns() < start + seconds * 1e9:
        pass
    return (time.perf_counter_ns() - start) * 1e-9


def test_a_known_duration_is_measured_within_one_percent() -> None:
    truth: list[float] = []
    timing = measure(lambda: truth.append(spin(0.005)), 21)
    assert len(timing.step_s) == 21
    assert statistics.median(timing.step_s) == pytest.approx(statistics.median(truth), rel=0.01)


@pytest.mark.slow
def test_a_nominal_duration_is_measured_within_one_percent() -> None:
    """Needs a core to itself: what other processes take from the step is part of its time."""
    assert statistics.median(measure(lambda: spin(0.02), 51).step_s) == pytest.approx(
        0.02, rel=0.01
    )


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
    launches = [measure(lambda: None, 500) for _ in range(9)]
    # Inside the reported time, and in all, with what lies between the steps.
    assert min(statistics.median(timing.step_s) for timing in launches) < 0.005 * 1e-3
    assert min(timing.wall_s / 500 for timing in launches) < 0.005 * 1e-3


def test_wall_time_includes_what_lies_between_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 1, 3, 4, 6, 7])  # ms
    clock = "dlbench.bench.timing.time.perf_counter_ns"
    monkeypatch.setattr(clock, lambda: next(now) * 10**6)
    timing = measure(lambda: None, 3)
    assert timing.step_s == pytest.approx((0.001, 0.001, 0.001))
    assert timing.wall_s == pytest.approx(0.007)


def test_a_measurement_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        measure(lambda: None, 0)
