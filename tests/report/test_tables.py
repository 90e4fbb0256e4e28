"""The table says what the records say, for our files and for other projects'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_launches as synthetic

from dlbench.report import load, records, stragglers, tables
from dlbench.report.records import RecordError

PLAIN: dict[str, Any] = {
    "machine_info": {"node": "ci-7", "system": "Linux", "cpu": {"brand_raw": "Xeon", "count": 4}},
    "commit_info": {"id": "c0ffee", "dirty": True},
    "benchmarks": [
        {
            "fullname": "tests/test_sort.py::test_sort[1000]",
            "extra_info": {},
            "stats": {"median": 0.02, "iqr": 0.001, "rounds": 5, "data": [0.02, 0.02, 0.021]},
        }
    ],
    "datetime": "2026-11-24T10:00:00.5+00:00",
    "version": "5.1.0",
}


def test_a_row_is_a_launch(tmp_path: Path) -> None:
    quality = {
        "rmse": 0.25,
        "best_epoch": 3,
        "split": "val",
        "training_size": {"mean_iou_all_classes": 0.5, "classes": {"car": {"iou": None}}},
    }
    made = synthetic.launch(step_s=0.1, input_wait=(0.05, 0.05), quality=quality, energy_j=320.0)
    row = load(synthetic.write([made], tmp_path)).iloc[0]
    # 160 samples in 20 steps of 0.1 s
    assert row.throughput == pytest.approx(80)
    assert row.energy_per_sample_j == pytest.approx(2)
    assert (row.median_step_s, row.steps) == (pytest.approx(0.1), 20)
    assert (row.input_wait, row.comm_wait) == (pytest.approx(0.05), pytest.approx(0.1))
    assert row.compute == pytest.approx(0.85)
    assert row.peak_host_rss == 1 << 30
    assert "peak_gpu_allocated" not in row
    assert (row["quality.rmse"], row["quality.mean_iou"]) == (0.25, 0.5)
    assert row.record == made
    assert row.created == pd.Timestamp("2026-11-24", tz="UTC")
    expected = "train/segnet/miniature, float32, 2 x 4, 32x48x3, train"
    assert tables.label(row) == expected


def test_steps_and_waits_are_those_of_the_slowest_rank(tmp_path: Path) -> None:
    fast = synthetic.launch().ranks[0]
    slow = fast.model_copy(
        update={"rank": 1, "wall_s": 4.0, "step_s": (1.0, 2.0, 1.0), "input_wait_s": 1.0}
    )
    made = synthetic.launch(ranks=(fast, slow))
    row = load(synthetic.write([made], tmp_path)).iloc[0]
    assert row.throughput == pytest.approx(160 / 4.0)
    assert (row.median_step_s, row.iqr_step_s, row.steps) == (1.0, 0.5, 3)
    assert row.p95_step_s == pytest.approx(np.percentile([1.0, 2.0, 1.0], 95))
    assert row.input_wait == pytest.approx(0.25)


def test_what_is_unknown_is_missing(tmp_path: Path) -> None:
    rank = (
        synthetic.launch()
        .ranks[0]
        .model_copy(update={"step_s": (), "comm_wait_s": None, "first_step_s": None, "wall_s": 0.0})
    )
    workload = synthetic.launch(busy=(0.9,)).workload.model_copy(
        update={"shape": None, "model": None, "batch_per_rank": None}
    )
    record = synthetic.launch(busy=(0.9,)).model_copy(
        update={"ranks": (rank,), "workload": workload}
    )
    row = load(synthetic.write([record], tmp_path)).iloc[0]
    for name in ("throughput", "median_step_s", "first_step_s", "comm_wait", "compute", "energy_j"):
        assert pd.isna(row[name]), name
    assert row["shape"] is None
    assert row.model is None
    assert row.straggler is pd.NA
    assert tables.label(row) == "train/segnet/miniature, float32, 1 rank(s), train"


@pytest.mark.parametrize(
    ("busy", "waits", "expected"),
    [
        ((0.8, 0.8, 0.8, 0.8), (0.0,) * 4, None),
        ((0.8, 0.8, 0.87, 0.8), (0.0,) * 4, None),  # not clearly
        ((0.5, 0.5, 0.9, 0.5), (0.0,) * 4, (2, 1.8, "compute")),
        ((0.5, 0.5, 0.5, 0.9), (0.1, 0.1, 0.1, 0.45), (3, 1.8, "input")),
        ((0.9, 0.6), (0.0, 0.0), (0, 1.5, "compute")),
        ((0.9,), (0.0,), None),
    ],
)
def test_the_straggler_is_named(
    busy: tuple[float, ...], waits: tuple[float, ...], expected: tuple[int, float, str] | None
) -> None:
    found = stragglers.find(synthetic.launch(busy=busy, input_wait=waits).ranks)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.rank, found.cause) == (expected[0], expected[2])
    assert found.factor == pytest.approx(expected[1])
    assert found.host == f"node{expected[0]}"


def test_a_rank_with_more_samples_is_not_called_slow() -> None:
    few, many = synthetic.launch(busy=(0.45, 0.9)).ranks
    found = stragglers.find([few, many.model_copy(update={"samples": 160})])
    assert found is not None
    assert (found.rank, found.cause) == (1, "samples")


def test_plain_pytest_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(PLAIN))
    row = load([path]).iloc[0]
    assert row.workload == "tests/test_sort.py::test_sort[1000]"
    assert row["mode"] == "pytest-benchmark, calls/s"
    assert row.throughput == pytest.approx(50)
    assert (row.commit, row.dirty, row.record) == ("c0ffee", True, None)
    # The same kind of machine under another name and clock is the same setup.
    other = json.loads(json.dumps(PLAIN))
    other["machine_info"]["node"] = "ci-8"
    other["machine_info"]["cpu"]["hz_actual"] = [1, 0]
    path.write_text(json.dumps(other))
    assert load([path]).iloc[0].fingerprint == row.fingerprint
    other["machine_info"]["cpu"]["count"] = 8
    path.write_text(json.dumps(other))
    assert load([path]).iloc[0].fingerprint != row.fingerprint


def test_our_own_benchmarks_are_records(tmp_path: Path) -> None:
    made = synthetic.launch()
    ours = {"fullname": "bench_a.py::bench_a", "extra_info": {"record": made.to_json()}}
    path = tmp_path / "ours.json"
    path.write_text(json.dumps(PLAIN | {"benchmarks": [ours, *PLAIN["benchmarks"]]}))
    table = load([path])
    assert list(table.record) == [made, None]
    assert list(table.benchmark) == ["bench_a.py::bench_a", PLAIN["benchmarks"][0]["fullname"]]


def test_benchmarks_of_ours_without_a_record_measured_nothing(tmp_path: Path) -> None:
    """Such as the twins', which the default profile runs once to compare what they compute."""
    machine = PLAIN["machine_info"] | {"setup": {"name": None, "fingerprint": "f" * 16}}
    made = synthetic.launch()
    ours = {"fullname": "bench_a.py::bench_a", "extra_info": {"record": made.to_json()}}
    content = PLAIN | {"machine_info": machine, "benchmarks": [ours, *PLAIN["benchmarks"]]}
    path = tmp_path / "ours.json"
    path.write_text(json.dumps(content))
    assert list(load([path]).record) == [made]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmarks": 3}, "'benchmarks' is no list"),
        ({"benchmarks": [3]}, "a benchmark is 3, expected a mapping"),
        ({"benchmarks": [{"fullname": "x"}]}, "benchmark 'x' lacks its fullname or stats"),
        ({"benchmarks": [{"fullname": "x", "stats": {"median": "1"}}]}, "stats.median is '1'"),
        ({"machine_info": [], "commit_info": "x", "datetime": None}, "datetime is None"),
        ({"datetime": "yesterday"}, "datetime is 'yesterday'"),
    ],
)
def test_damaged_files_of_others_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(PLAIN | change))
    with pytest.raises(RecordError, match=r"other\.json") as error:
        load([path])
    assert message in str(error.value)


def test_patterns(tmp_path: Path) -> None:
    paths = synthetic.write([synthetic.launch(0), synthetic.launch(1)], tmp_path)
    assert list(load([f"{tmp_path}/A*.json"]).file) == list(map(str, paths))
    with pytest.raises(RecordError, match=r"no file fits the pattern '.*B\*\.json'"):
        load([f"{tmp_path}/B*.json"])
    with pytest.raises(RecordError, match="there is no result record"):
        load([tmp_path / "absent.json"])
    with pytest.raises(RecordError, match="Is a directory"):
        load([tmp_path])
    assert list(load([]).columns) == list(tables.DTYPES)


def test_other_schemas_and_cut_files_are_named(tmp_path: Path) -> None:
    (path,) = synthetic.write([synthetic.launch()], tmp_path)
    whole = path.read_text()
    path.write_text(whole.replace(records.SCHEMA, "dlbench.result/1"))
    with pytest.raises(RecordError, match=r"A0\.json has schema 'dlbench.result/1'"):
        load([path])
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"A0\.json is not whole JSON"):
        load([path])


def test_no_tensorflow_is_loaded() -> None:
    script = "import sys; from dlbench.report import load; load([])\n" + (
        "print([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert loaded.strip() == "[]"
