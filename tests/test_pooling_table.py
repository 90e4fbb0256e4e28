"""benchmarks/pooling_table.py on reports made here."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pooling_cases, pooling_table
from dlbench.report import records
from dlbench.report.records import RecordError


def entry(name: str, ratio: dict[str, Any] | None, operation: str = "pool") -> dict[str, Any]:
    workload = pooling_cases.workload(operation, name, (1, 4, 4, 64), "float32", "forward")
    setup = records.Setup(
        name=None,
        fingerprint="f" * 16,
        environment={
            "tensorflow": {"intra_op_threads": 2},
            "cpu": {"model": "A processor", "cores": 2},
            "op": {"isa": "avx2"},
            "variables": {"MALLOC_ARENA_MAX": "1"},
        },
    )
    rank = records.Rank(
        rank=0,
        host="here",
        samples=1,
        wall_s=1.0,
        step_s=(1.0,),
        input_wait_s=None,
        comm_wait_s=None,
        first_step_s=None,
        conditions={},
        peak_bytes={},
    )
    record = records.now(workload, [rank], setup=setup, quality=None)
    extra = {"repeats": 10, "record": record.to_json(), "ratio": ratio}
    return {"extra_info": extra, "stats": {"median": 0.02}}


def ratio(median: float, wanted: float | None = None) -> dict[str, Any]:
    return {"median": median, "wanted": wanted, "ours_s": [0.01, 0.02, 0.03]}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"benchmarks": entries}))
    return path


def test_ratios_times_and_what_was_missed(tmp_path: Path) -> None:
    report = write(
        tmp_path / "out.json",
        entry("ours_pool", None),
        entry("peer_a", ratio(3.25, wanted=2.0)),
        entry("peer_b", ratio(0.5, wanted=1.0)),
    )
    text = pooling_table.markdown([report])
    assert "2 thread(s) of 2 cores of A processor, kernels avx2" in text
    assert "MALLOC_ARENA_MAX=1" in text
    assert "## pool, 2 threads\n\n| input | ours, ms | peer a | peer b |" in text
    # The median of ours, 0.02 s, is that of ten operations.
    assert "| 1 × 4 × 4 × 64 float32 | 2.000 | 3.25 | **0.50** (1.00) |" in text


def test_the_faster_bare_kernel_is_the_limit(tmp_path: Path) -> None:
    report = write(
        tmp_path / "out.json",
        entry("bare-bytes", ratio(0.95, 0.9), "pool-limit"),
        entry("bare_streaming-bytes", ratio(0.8, 0.9), "pool-limit"),
        entry("bare-packed", ratio(0.93, 0.9), "pool-limit"),
    )
    text = pooling_table.markdown([report])
    assert "| 1 × 4 × 4 × 64 float32 | **0.80** (0.90) | 0.93 | – | – | – | – |" in text


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(RecordError, match=r"other.json is not a report of the pooling"):
        pooling_table.markdown([other])
