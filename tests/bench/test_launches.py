"""Launches in turn, with a stand-in for the python that would measure (`stand_in.py`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlbench.bench import launches
from dlbench.bench.launches import Failure, in_turn
from dlbench.bench.setups import Setup
from dlbench.config import ConfigError
from dlbench.report import records


def setup(name: str, **changes: object) -> Setup:
    return Setup.model_validate({"name": name, "python": "python", **changes})


def launched(out: Path) -> list[str]:
    return (out.parent / "journal").read_text().split("\n")[:-1]


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.json"))


def run(setups: list[Setup], count: int, out: Path, **options: Any) -> list[Failure]:
    return launches.run(in_turn(setups, count, out), [], tell=lambda text: None, **options)


def test_setups_take_turns_and_keep_their_names(out: Path) -> None:
    one = setup("A", variables={"TF_ENABLE_ONEDNN_OPTS": "0"}, compute_threads=1)
    two = setup("B", devices=[])
    assert run([one, two], 2, out) == []
    assert launched(out) == ["A", "B", "A", "B"]
    assert files(out) == ["A/01.json", "A/02.json", "B/01.json", "B/02.json"]
    for name in "AB":
        found = records.read_many([out / name / "01.json", out / name / "02.json"])
        assert [record.setup.name for record in found] == [name, name]
    log = (out / "A" / "01.log").read_text()
    assert "variables 0 " in log
    assert '"--compute-threads=1"' in log
    assert (out / "B" / "01.log").read_text().endswith("variables 1 \n")
    assert not list(out.rglob(".launch-*")), "scratch is left"


def test_shuffled_turns_have_every_setup_and_stay_when_more_follow() -> None:
    setups = [setup(name) for name in "ABCD"]
    names = [one.setup.name for one in in_turn(setups, 8, Path(), shuffle=1)]
    turns = [names[i : i + 4] for i in range(0, 32, 4)]
    assert all(sorted(turn) == list("ABCD") for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert [one.setup.name for one in in_turn(setups, 3, Path(), shuffle=1)] == names[:12]
    assert [one.setup.name for one in in_turn(setups, 8, Path(), shuffle=2)] != names


def test_what_is_there_is_not_launched_again_and_more_are_added(out: Path) -> None:
    setups = [setup("A"), setup("B")]
    run(setups, 1, out)
    before = (out / "A" / "01.json").stat().st_mtime_ns
    (out / "B" / "01.json").unlink()
    told: list[str] = []
    launches.run(in_turn(setups, 2, out), [], tell=told.append)
    assert launched(out) == ["A", "B", "B", "A", "B"]
    assert (out / "A" / "01.json").stat().st_mtime_ns == before
    assert told[0].startswith("1 of 4 launches are there already")
    assert [line.split(";")[0] for line in told[1:]] == [
        "launch 2 of 4: B, number 1",
        "launch 3 of 4: A, number 2",
        "launch 4 of 4: B, number 2",
    ]
    assert "left" not in told[1]
    assert all("; about " in line for line in told[2:])


def test_launches_of_another_kind_are_not_mixed_in(out: Path) -> None:
    run([setup("A")], 1, out)
    with pytest.raises(ConfigError, match="compute_threads: None there, 1 now.*--out"):
        run([setup("A", compute_threads=1)], 2, out)
    with pytest.raises(ConfigError, match=r"options: \[\] there, \['-k', 'x'\] now"):
        launches.run(in_turn([setup("A")], 2, out), ["-k", "x"])
    assert launched(out) == ["A"]


def test_a_failing_launch_is_told_once_and_the_others_go_on(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_AT", "2")
    failures = run([setup("A"), setup("B")], 2, out)
    assert launched(out) == ["A", "B", "A", "B"]
    assert files(out) == ["A/01.json", "A/02.json", "B/02.json"]
    (failure,) = failures
    assert "B/01.log: it ended with status 1" in str(failure)
    assert str(failure).endswith("    E   AssertionError: the output is wrong")
    assert run([setup("A"), setup("B")], 2, out) == []
    assert launched(out)[4:] == ["B"]


def test_a_failing_benchmark_costs_its_own_record_alone(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "bench_pooling.py::test_unpool[large]")
    told: list[str] = []
    planned = in_turn([setup("A"), setup("B")], 2, out)
    assert launches.run(planned, [], tell=told.append) == []
    assert files(out) == ["A/01.json", "A/02.json", "B/01.json", "B/02.json"]
    assert len(records.read_many([out / "B" / "02.json"])) == 1
    assert launches.failed_benchmarks(planned) == {"bench_pooling.py::test_unpool[large]": 4}
    assert f"{out}/A/01.log: failed and left out: bench_pooling.py::test_unpool[large]" in told
    launches.run(planned, [], tell=told.append)
    assert launched(out) == ["A", "B", "A", "B"], "what was measured is launched again"


def test_a_failing_experiment_leaves_nothing(out: Path) -> None:
    python = out.parent / "python"
    python.write_text(python.read_text() + "sys.exit(1)\n")
    (failure,) = run([setup("A", experiment=[])], 1, out)
    assert failure.reason == "it ended with status 1"
    assert files(out) == []


def test_a_report_that_was_cut_off_does_not_count(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUT", "500")
    (failure,) = run([setup("A")], 1, out)
    assert "is not whole JSON" in failure.reason
    assert files(out) == []


def test_a_report_without_measurements_does_not_count(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = out.parent / "empty.json"
    empty.write_text('{"benchmarks": []}')
    monkeypatch.setenv("TEMPLATE", str(empty))
    (failure,) = run([setup("A")], 1, out)
    assert failure.reason == "no benchmark measured anything"
    monkeypatch.setenv("WRONG", "the only one")
    (failure,) = run([setup("A")], 1, out)
    assert failure.reason == "it ended with status 1: no benchmark measured anything"


def test_a_selection_of_nothing_is_the_users_mistake(out: Path) -> None:
    (out.parent / "python").write_text("#!/bin/sh\nexit 5\n")
    with pytest.raises(ConfigError, match="-k nothing selects no benchmark"):
        launches.run(in_turn([setup("A")], 6, out), ["-k", "nothing"])


def test_a_python_that_does_not_start_is_a_failure(out: Path) -> None:
    (out.parent / "python").write_text("#!/nowhere/python\n")
    (failure,) = run([setup("A")], 1, out)
    assert "it did not start" in failure.reason


def test_an_experiment_becomes_a_record_with_the_name_of_its_setup(out: Path) -> None:
    assert run([setup("long training", experiment=["training.epochs=1"])], 1, out) == []
    record = records.read(out / "long-training" / "01.json")
    assert record.setup.name == "long training"
    assert "training.epochs=1" in (out / "long-training" / "01.log").read_text()
    assert [path.name for path in (out / "long-training").iterdir() if path.is_dir()] == []


def hanging(out: Path) -> psutil.Process:
    return psutil.Process(int((out.parent / "hanging").read_text()))


def test_a_launch_beyond_the_limit_is_ended_with_its_children(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_AT", "1")
    monkeypatch.setattr(launches, "GRACE", 0.5)
    spawned: list[psutil.Process] = []
    watch = threading.Thread(target=lambda: spawned.append(_soon(lambda: hanging(out))))
    watch.start()
    (failure,) = run([setup("A")], 1, out, limit=5.0)
    watch.join()
    assert failure.reason == "it was stopped after 5 s, the limit of a launch"
    assert ended(spawned[0])
    assert files(out) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_launch_and_keeps_the_others(
    out: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("HANG_AT", "2")
    monkeypatch.setattr(launches, "GRACE", 0.5)
    # Both: what a shell has started in the background ignores SIGINT.
    before = signal.signal(number, signal.default_int_handler)
    spawned: list[psutil.Process] = []

    def interrupt() -> None:
        spawned.append(_soon(lambda: hanging(out)))
        os.kill(os.getpid(), number)

    watch = threading.Thread(target=interrupt)
    watch.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run([setup("A"), setup("B")], 2, out)
    finally:
        signal.signal(number, before)
        watch.join()
    assert ended(spawned[0])
    assert files(out) == ["A/01.json"]
    assert not list(out.rglob(".launch-*"))
    monkeypatch.delenv("HANG_AT")
    assert run([setup("A"), setup("B")], 2, out) == []
    assert launched(out) == ["A", "B", "B", "A", "B"]


def test_a_command_that_is_killed_takes_its_launch_along(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves would be measured beside, by the same command given again."""
    (out.parent / "setup.yaml").write_text("name: A\npython: python\n")
    words = ["-m", "dlbench.bench", "run", "--launches=1", f"--out={out}", "setup.yaml"]
    own = {"HANG_AT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = subprocess.Popen([sys.executable, *words], env=os.environ | own)
    child = _soon(lambda: hanging(out))
    launch = child.parent()
    command.kill()
    command.wait()
    try:
        assert launch is not None
        assert ended(launch)
    finally:
        child.kill()
    assert list(out.rglob(".launch-*")), "nothing is left: remove this test's last lines"
    assert run([setup("A")], 1, out) == []
    assert not list(out.rglob(".launch-*"))


def test_two_commands_do_not_launch_into_one_folder(out: Path) -> None:
    refused = pytest.raises(ConfigError, match="another command is launching")
    with launches.alone(out), refused, launches.alone(out):
        pass
    with launches.alone(out):
        pass


def test_a_cooldown_passes_between_launches_alone(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(launches.time, "sleep", slept.append)
    run([setup("A")], 3, out, cooldown=7.0)
    assert slept == [7.0, 7.0]


def ended(process: psutil.Process) -> bool:
    """Whether a process that was killed is gone within seconds, or waits to be reaped."""
    for _ in range(100):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def _soon(get: Callable[[], psutil.Process]) -> psutil.Process:
    for _ in range(600):
        try:
            return get()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            time.sleep(0.1)
    raise AssertionError("the launch never came to hang")
