"""Launches of real pytest-benchmark processes, with `benchmarks/conftest.py` and one benchmark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dlbench.bench.__main__ import main
from dlbench.report import records

ROOT = Path(__file__).parents[2]
BENCHMARK = """
import os
import time
from dlbench.report.records import Workload

def test_sleep(benchmark, attach_record):
    benchmark.pedantic(time.sleep, args=(float(os.environ["NAP"]),), rounds=3, iterations=1)
    workload = Workload(
        id="python/sleep", model=None, data=None, precision="none", ranks=1,
        batch_per_rank=1, shape=None, mode="forward",
    )
    attach_record(workload, samples_per_step=1)

def test_unchosen(benchmark):
    raise AssertionError("not selected")
"""


@pytest.mark.slow
def test_a_nap_that_is_longer_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # With what conftest.py imports: pytest's importlib mode looks for it nowhere else.
    others = shutil.ignore_patterns("bench_*", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=others)
    (tmp_path / "benchmarks" / "bench_naps.py").write_text(BENCHMARK)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "short.yaml").write_text('name: short\nvariables: {NAP: "0.2"}\n')
    (tmp_path / "long.yaml").write_text('name: long\nvariables: {NAP: "0.4"}\n')
    monkeypatch.chdir(tmp_path)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", python_path)
    command = ["run", "--launches", "5", "--interleave", "short.yaml", "long.yaml"]
    assert main([*command, "--select", "sleep"]) == 0, capfd.readouterr()
    found = records.read_many(sorted((tmp_path / "runs" / "bench" / "long").glob("*.json")))
    assert [record.setup.name for record in found] == ["long"] * 5
    for record in found:
        assert record.throughput == pytest.approx(1 / 0.4, rel=0.2)
    assert "slower" in capfd.readouterr().out
    # One that fails costs its own record alone.
    assert main(["run", "--launches", "1", "short.yaml", "--out", "all"]) == 1
    told = capfd.readouterr()
    assert "1 of 1 launches of 'short' are in" in told.out
    assert "benchmarks/bench_naps.py::test_unchosen (1)" in told.err
    assert len(records.read_many([tmp_path / "all" / "short" / "01.json"])) == 1


@pytest.mark.slow
def test_a_selection_of_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """pytest-benchmark's own status and report where no benchmark is chosen."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "base.yaml").write_text("name: base\n")
    command = ["run", str(tmp_path / "base.yaml"), "--out", str(tmp_path / "out")]
    assert main([*command, "--select", "no_such_thing"]) == 2
    assert "-k no_such_thing selects no benchmark" in capfd.readouterr().err
