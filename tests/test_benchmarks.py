"""`benchmarks/`, used as the README says; its conftest.py on a benchmark of a few microseconds."""

import importlib.util
import json
import os
import re
import shutil
import statistics
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

def bench_sum(benchmark, attach_record, attach_ratio, compute_threads):
    open(RAN, "a").write(f"{compute_threads}\\n")
    assert benchmark.pedantic(sum, args=([1, 2],), rounds=5, iterations=2, warmup_rounds=1) == 3
    workload = Workload(
        id="python/sum", model=None, data=None, precision="int", ranks=1,
        batch_per_rank=None, shape=(2,), mode="forward",
    )
    attach_record(workload, samples_per_step=2, quality={"right": True})
    if benchmark.enabled:
        peer_s = benchmark.stats.stats.data
        times = [4.0, 2.0, 3.0, 1.0, 5.0]
        attach_ratio("peer", "ours", [s / t for s, t in zip(peer_s, times)], wanted=3.5)
"""


def run(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "benchmarks" / "conftest.py", folder)
    (folder / "bench_sum.py").write_text(BENCHMARK)
    command = [str(folder), f"--rootdir={folder}", "-o", "python_files=bench_*.py"]
    command += ["-o", "python_functions=bench_*", *options]
    return run_pytest(folder, *command, RAN=str(folder / "ran"), **variables)


def run_pytest(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env=os.environ | {"PYTHONPATH": python_path} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_two_records_of_one_workload_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bench_again.py").write_text(BENCHMARK)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "a record of python/sum already" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


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

    ratio = content["benchmarks"][0]["extra_info"]["ratio"]
    assert ratio["median"] == pytest.approx(3.0)
    assert ratio["quartiles"] == pytest.approx([2.0, 4.0])
    table = "peer / ours    3.00 (quartiles 2.00 - 4.00, 5 pairs), wanted >= 3.5: MISSED"
    assert table in done.stdout

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


def test_several_ranks_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--benchmark-disable", HOROVOD_SIZE="2")
    assert done.returncode != 0
    assert "run them without horovodrun" in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_benchmark_puts_the_precision_back(tmp_path: Path) -> None:
    after = tmp_path / "bench_after.py"
    after.write_text(
        "import keras\n"
        "def test_policy():\n"
        "    assert keras.config.dtype_policy().name == 'float32'\n"
    )
    name = "test_network[segnet_basic-mixed_bfloat16-2x32x32-inference]"
    done = run_pytest(
        ROOT, f"benchmarks/bench_training.py::{name}", str(after), "--benchmark-disable"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.slow
def test_every_benchmark_gives_right_outputs() -> None:
    done = run_pytest(ROOT, "benchmarks", "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr
    # PyTorch is an optional peer: nothing else may be left out.
    if importlib.util.find_spec("torch") is None:
        assert " 5 skipped" in done.stdout
    else:
        assert "skipped" not in done.stdout


@pytest.mark.slow
def test_benchmarks_of_a_launch_leave_comparable_records(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    chosen = "(45x60x512-float32 and unpool-gradient and test_tensorflow and not xla)"
    chosen += " or (test_network and segnet_basic and float32)"
    done = run_pytest(ROOT, "benchmarks", f"--benchmark-json={report}", "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr

    found = {record.workload.id: record for record in records.read_many([report])}
    training = {"train-step/segnet_basic/float32", "inference/segnet_basic/float32"}
    names = ("ours_gather", "ours_gather_packed", "tensorflow_gather")
    ops = {f"unpool-gradient/{name}/float32/1x45x60x512" for name in names}
    assert set(found) == training | ops
    assert len({record.setup.fingerprint for record in found.values()}) == 1
    # Each its own: the smaller one, measured later, shows nothing of what the larger one used.
    train, inference = (
        found[f"{name}/segnet_basic/float32"].ranks[0].peak_bytes["host_rss"] or 0
        for name in ("train-step", "inference")
    )
    assert 2**28 < inference < train
    loss = found["train-step/segnet_basic/float32"].quality
    assert loss["mean_loss"] < loss["first_loss"]  # type: ignore[operator]

    for benchmark in json.loads(report.read_text())["benchmarks"]:
        if ratio := benchmark["extra_info"].get("ratio"):
            pairs = zip(benchmark["stats"]["data"], ratio["ours_s"], strict=True)
            assert ratio["median"] == pytest.approx(statistics.median(a / b for a, b in pairs))
            line = rf"{ratio['peer']} +/ {ratio['ours']} +{ratio['median']:.2f} "
            assert re.search(line, done.stdout), line
