"""Benchmarks as they are run: checked once, measured into a report, on two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from terminals import Terminal

from dlbench.report import load, records

ROOT = Path(__file__).parents[2]

FAILING = """
from benchmarks.pooling_cases import workload

def measure(benchmark, attach_record, name, right=True, judged=True):
    benchmark.pedantic(sum, args=([1, 2],), rounds=5)
    assert right, "the output is wrong"
    measured = workload("sum", name, (1, 1, 1, 2), "int", "forward")
    attach_record(measured, samples_per_step=2, judged=judged)

def bench_first(benchmark, attach_record):
    measure(benchmark, attach_record, "first")

def bench_wrong(benchmark, attach_record):
    measure(benchmark, attach_record, "wrong", right=False)

def bench_last(benchmark, attach_record):
    measure(benchmark, attach_record, "last", judged=False)
"""


PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


def place(**variables: str) -> dict[str, Any]:
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": python_path} | variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*PYTEST, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, **place(**variables)
    )


def run_sums(
    folder: Path, *options: str, more: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return run(*sums(folder, more), *options, **variables)


def sums(folder: Path, more: str = "") -> list[str]:
    """What has pytest run the benchmarks above, and ``more``."""
    (folder / "conftest.py").write_text((ROOT / "benchmarks" / "conftest.py").read_text())
    (folder / "bench_sums.py").write_text(FAILING + more)
    names = ["-o", "python_files=bench_*.py", "-o", "python_functions=bench_*"]
    return [str(folder), f"--rootdir={folder}", *names]


def test_a_failure_costs_its_own_record_alone(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    done = run_sums(tmp_path, f"--benchmark-json={report}")
    assert done.returncode == 1, done.stdout + done.stderr
    found = [record.workload.id for record in records.read_many([report])]
    assert found == ["sum/first/int/1x1x1x2", "sum/last/int/1x1x1x2"]
    content = json.loads(report.read_text())
    assert [one["name"] for one in content["benchmarks"]] == ["bench_first", "bench_last"]
    assert content["failed"] == ["bench_sums.py::bench_wrong"]
    assert list(load([report]).judged) == [True, False]
    table = done.stdout.partition("records of this launch")[2]
    assert "sum/first/int" in table
    assert "sum/wrong/int" not in table


def test_a_launch_that_is_told_to_end_writes_what_it_has(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    ended = "\n\ndef bench_ended(benchmark):\n    import os\n    os.kill(os.getpid(), 15)\n"
    done = run_sums(tmp_path, f"--benchmark-json={report}", more=ended)
    assert done.returncode == 2, done.stdout + done.stderr
    found = [record.workload.id for record in records.read_many([report])]
    assert found == ["sum/first/int/1x1x1x2", "sum/last/int/1x1x1x2"]


def test_a_launch_whose_terminal_is_closed_writes_what_it_has(tmp_path: Path) -> None:
    report, there = tmp_path / "out.json", tmp_path / "there"
    waits = (
        "\n\ndef bench_waits(benchmark):\n    import time\n"
        f"    open({str(there)!r}, 'w').close()\n    time.sleep(60)\n"
    )
    command = [*PYTEST, *sums(tmp_path, waits), f"--benchmark-json={report}"]
    with Terminal() as terminal:
        process = terminal.start(command, **place())
        try:
            while not there.exists():
                assert process.poll() is None
                time.sleep(0.05)
            terminal.close()
            assert process.wait(30.0) == 2
        finally:
            process.kill()
            process.wait()
    found = [record.workload.id for record in records.read_many([report])]
    assert found == ["sum/first/int/1x1x1x2", "sum/last/int/1x1x1x2"]


def test_a_planted_launch_says_so(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    fault = "slowdown:sum/last/*:0.05"
    done = run_sums(tmp_path, f"--benchmark-json={report}", DLBENCH_PLANTED=fault)
    assert f"planted: {fault}" in done.stdout
    assert f"{fault}: 1 of 2 records" in done.stdout
    first, last = records.read_many([report])
    assert first.ranks[0].conditions["planted"] == []
    assert last.ranks[0].conditions["planted"] == [fault]
    refused = run_sums(tmp_path, DLBENCH_PLANTED="slowdown:5%")
    assert refused.returncode != 0
    assert "DLBENCH_PLANTED holds 'slowdown:5%'; allowed are" in refused.stdout + refused.stderr


def test_a_device_is_that_of_nvidia_smi_and_part_of_the_setup(
    tmp_path: Path, nvml: ModuleType
) -> None:
    """Two made-up GPUs of one machine, in whose place CUDA by itself may put each other."""
    python_path = os.pathsep.join([str(Path(str(nvml.__file__)).parent), str(ROOT)])
    made_up = {"PYTHONPATH": python_path, "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    setups = []
    for number, name in enumerate(nvml.NAMES):
        report = tmp_path / f"{number}.json"
        done = run_sums(
            tmp_path, f"--devices={number}", "-k", "first", f"--benchmark-json={report}", **made_up
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (record,) = records.read_many([report])
        environment: Any = record.setup.environment
        assert [device["name"] for device in environment["gpu"]["devices"]] == [name]
        assert environment["variables"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        setups.append(record.setup.fingerprint)
    assert setups[0] != setups[1]
    absent = run_sums(tmp_path, "--devices=2", **made_up)
    told = f"--devices names [2]; this machine has 0 ({nvml.NAMES[0]}), 1 ({nvml.NAMES[1]})"
    assert told in absent.stdout + absent.stderr


@pytest.mark.parametrize("option", ["--devices=first", "--ranks=1;2"])
def test_lists_of_numbers_are_checked(tmp_path: Path, option: str) -> None:
    done = run_sums(tmp_path, option)
    assert done.returncode != 0
    assert "is no list of numbers such as 0,2" in done.stdout + done.stderr


def test_a_measured_run_leaves_records(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    names = ("convolution", "pooling_memory", "input_sets")
    files = [f"benchmarks/bench_{name}.py" for name in names]
    chosen = ["-k", "kernel_gradient or packed or (camvid and synthetic)"]
    done = run(*files, *chosen, f"--benchmark-json={report}")
    assert done.returncode == 0, done.stdout + done.stderr
    ours, peer, memory, control = records.read_many([report])
    assert list(load([report]).judged) == [True, False, True, False]
    assert (memory.workload.id, control.workload.id) == (
        "index-memory/packed/float32/12x360x480x64",
        "input-synthetic/camvid",
    )
    assert (memory.ranks[0].peak_bytes["indices"] or 0) > 2**20
    assert memory.throughput is None, "the time to start TensorFlow is no speed"
    assert ours.workload.id == "kernel-gradient/ours/float32/1x90x120x64"
    assert peer.workload.id == "kernel-gradient/tensorflow/float32/1x90x120x64"
    for record in (ours, peer):
        (rank,) = record.ranks
        assert len(rank.step_s) == rank.samples == 7
        assert rank.wall_s == pytest.approx(sum(rank.step_s))
        assert rank.conditions["planted"] == []
        assert "machine_load" in rank.conditions
        assert rank.peak_bytes["host_rss"] is None  # of this process it would tell nothing
    (ratio,) = [
        one["extra_info"]["ratio"]
        for one in json.loads(report.read_text())["benchmarks"]
        if "ratio" in one["extra_info"]
    ]
    assert f"{ratio['median']:.2f} (quartiles" in done.stdout
    assert "kernel-gradient/ours/float32" in done.stdout.partition("records of this launch")[2]


@pytest.mark.slow
def test_two_ranks_are_summed_and_checked() -> None:
    done = run("benchmarks/bench_allreduce.py", "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
