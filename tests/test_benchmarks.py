"""`benchmarks/conftest.py`, used as the README says, on a benchmark of a few microseconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.report import records

ROOT = Path(__file__).parents[1]

BENCHMARK = """
import os
from dlbench.report.records import Workload

RAN = os.environ["RAN"]

def bench_sum(benchmark, attach_record, compute_threads):
    open(RAN, "a").write(f"{compute_threads}\\n")
    assert benchmark.pedantic(sum, args=([1, 2],), rounds=5, iterations=2, warmup_rounds=1) == 3
    workload = Workload(
        id="python/sum", model=None, data=None, precision="int", ranks=1,
        batch_per_rank=None, shape=(2,), mode="forward",
    )
    attach_record(workload, samples_per_step=2, quality={"right": True})
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "benchmarks" / "conftest.py", folder)
    (folder / "bench_sum.py").write_text(BENCHMARK)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}", "-q"]
    command += ["-o", "python_files=bench_*.py", "-o", "python_functions=bench_*", *options]
    return subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": python_path, "RAN": str(folder / "ran")},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_report_holds_the_setup_and_the_record(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    done = run(
        tmp_path, f"--benchmark-json={report}", "--setup-name=baseline", "--compute-threads=1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "ran").read_text() == "1\n"

    (record,) = records.read_many([report])
    content = json.loads(report.read_text())
    timed = content["benchmarks"][0]["stats"]
    assert record.workload.id == "python/sum"
    assert record.ranks[0].step_s == pytest.approx(timed["data"])
    assert record.ranks[0].samples == 10
    assert record.throughput == pytest.approx(2 / timed["mean"])
    assert record.quality == {"right": True}

    setup = content["machine_info"]["setup"]
    assert setup["name"] == record.setup.name == "baseline"
    assert setup["fingerprint"] == record.setup.fingerprint
    assert setup["environment"]["variables"]["TF_NUM_INTRAOP_THREADS"] == "1"


def test_disabled_benchmarks_run_once(tmp_path: Path) -> None:
    done = run(tmp_path, "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert len((tmp_path / "ran").read_text().splitlines()) == 1


def test_a_bad_thread_count_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--benchmark-disable", "--compute-threads=0")
    assert done.returncode != 0
    assert "--compute-threads is 0; at least 1 is needed" in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()
