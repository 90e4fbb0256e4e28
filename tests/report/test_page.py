"""The Markdown page says what the record says, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import summary
from dlbench import environment
from dlbench.metrics import ConfusionMatrix, Moments
from dlbench.report import page, records, tables

DESCRIBED = environment.describe()
REPORTS = Path(__file__).parents[2] / "reports"


def measured(**changes: Any) -> records.Rank:
    unknown: dict[str, Any] = dict.fromkeys(("input_wait_s", "comm_wait_s", "first_step_s"))
    content = {
        "rank": 0,
        "host": "node0",
        "samples": 30,
        "wall_s": 4.0,
        "step_s": (1.0, 3.0),
        "conditions": {},
        "peak_bytes": {"host_rss": 3 << 29},
    }
    return records.Rank(**{**unknown, **content, **changes})


def record(
    *ranks: records.Rank, described: dict[str, Any] = DESCRIBED, **changes: object
) -> records.Record:
    matrix = ConfusionMatrix(3)
    matrix.update([0, 0, 1, 1], [0, 1, 1, 1])
    quality = {
        "best_epoch": 7,
        "split": "val",
        "samples": 2,
        "loss": 0.5,
        "training_size": matrix.summary(["road", "tree", "car"]),
        "native_size": None,
    }
    ranks = ranks or (measured(),)
    workload = records.Workload(
        id="train/segnet/vaihingen",
        model="segnet",
        data="vaihingen",
        precision="float32",
        ranks=len(ranks),
        batch_per_rank=4,
        shape=(128, 128, 3),
        mode="train",
    )
    content = {"quality": quality, **changes}
    return records.now(workload, ranks, setup=records.setup("laptop", described), **content)  # type: ignore[arg-type]


def test_figures_are_those_of_the_record() -> None:
    text = page.markdown(record())
    assert "# train/segnet/vaihingen" in text
    assert "| throughput | 7.50 samples/s |" in text
    assert "| median step | 2.000 s over 2 steps |" in text
    assert "| peak memory per rank | 1.50 GiB |" in text
    assert "| setup | laptop: " in text
    assert "Global accuracy (G) 0.7500" in text
    assert "| road | 2 | 0.500 | 0.500 | 0.667 |" in text
    assert "native size" not in text


def test_means_without_what_the_benchmark_leaves_out() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update([0, 0, 1, 1], [0, 1, 1, 1])
    scores = matrix.summary(["road", "clutter"], ["clutter"])
    told = "Means without clutter, as the data set's benchmark has them"
    quality = {"split": "val", "samples": 2, "training_size": scores}
    text = page.markdown(record(quality=quality))
    assert f"{told}: accuracy 0.5000, IoU 0.5000, F1 0.6667\n" in text
    assert "Means without" not in page.markdown(record())


def test_steps_are_those_of_the_slowest_rank(tmp_path: Path) -> None:
    """All ranks make a step together: two ranks with three steps each made three."""
    fast = measured(wall_s=3.0, step_s=(1.0, 1.0, 1.0))
    slow = measured(rank=1, wall_s=6.0, step_s=(1.5, 2.5, 2.0))
    launched = record(fast, slow)
    assert "| median step | 2.000 s over 3 steps |" in page.markdown(launched)
    (_, row) = summary.records_table([launched])
    assert " 2000 ms " in row
    records.write(launched, tmp_path / "record.json")
    in_table = tables.load([tmp_path / "record.json"]).iloc[0]
    assert (in_table.median_step_s, in_table.steps) == (2.0, 3)


def test_gpus_are_named() -> None:
    """As pynvml describes them; made up, since no machine here has one."""
    devices = [{"name": "NVIDIA A100-SXM4-40GB"}, {"name": "NVIDIA H100 PCIe"}]
    found = page.markdown(
        record(described={**DESCRIBED, "gpu": {"driver": "550", "devices": devices}})
    )
    assert ", NVIDIA A100-SXM4-40GB, NVIDIA H100 PCIe |" in found
    without: dict[str, Any] = {"driver": None, "devices": []}
    assert "| setup | laptop: " in page.markdown(record(described={**DESCRIBED, "gpu": without}))


def test_where_the_time_of_a_step_goes() -> None:
    unknown = page.markdown(record())
    for line in ("time of a step", "straggler", "first step", "energy", "disturbed"):
        assert line not in unknown

    known = measured(input_wait_s=0.5, comm_wait_s=1.0, first_step_s=7.26)
    text = page.markdown(record(known, energy_j=600.0))
    shares = "own work 62.5%, waiting for input 12.5%, waiting for other ranks 25.0%"
    assert f"| time of a step | {shares} |" in text
    assert "| time to the first step | 7.3 s from the start of the process |" in text
    assert "| energy | 600.0 J, 20.000 J a sample |" in text

    traced = page.markdown(record(measured(input_wait_s=0.5)))
    assert "the rest 87.5%, waiting for input 12.5%, waiting for other ranks unknown |" in traced


def test_a_straggler_and_what_disturbed_a_launch() -> None:
    busy = {"busy": True, "other_load": 1.26, "throttled": False, "foreign_processes": None}
    hot = {"throttled": True, "gpu": {"throttle_reasons": ["power cap"]}, "foreign_processes": 2}
    ranks = [
        measured(input_wait_s=0.0, comm_wait_s=2.0, conditions=busy),
        measured(rank=1, input_wait_s=0.0, comm_wait_s=0.0, conditions={**busy, **hot}),
    ]
    text = page.markdown(record(*ranks))
    assert "| time of a step | rank 0: own work 50.0%" in text
    assert "| straggler | rank 1 on node0: 2.00 x the others' time, compute |" in text
    assert (
        "| disturbed | node0: other processes kept 1.3 cores busy; rank 1 on node0: clocks were "
        "throttled (power cap); rank 1 on node0: 2 other process(es) on its GPU |"
    ) in text


def test_velocities() -> None:
    moments = Moments(2)
    moments.update([[0.0, 1.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 2.0]])
    quality = {
        "best_epoch": 3,
        "split": "val",
        "samples": 1,
        "loss": 0.75,
        "rmse": 0.8660254,
        "unit": "km/s",
        "components": moments.summary(["vx", "vy"]),
    }
    text = page.markdown(record(quality=quality))
    assert "RMSE over all 0.866 km/s; epoch 3" in text
    assert "| vx | 1.000 | 1.000 | 1.000 | – |" in text
    assert "| vy | 0.707 | 0.000 | – | – |" in text


def test_what_is_undefined_is_a_dash() -> None:
    assert "| car | 0 | – | – | – |" in page.markdown(record())
    assert "Scores" not in page.markdown(record(quality={}))


def test_pixels_that_were_predicted_as_no_number_are_told() -> None:
    made = record()
    assert "no number" not in page.markdown(made)
    made = record(quality={**made.quality, "loss": None, "not_finite_pixels": 1234})
    assert page.markdown(made).count("**1,234 of ") == 1


def test_command_prints_files_and_explains_bad_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write(record(), tmp_path / "r.json")
    assert page.main([str(tmp_path / "r.json")]) == 0
    assert "# train/segnet/vaihingen" in capsys.readouterr().out
    (tmp_path / "cut.json").write_text('{"schema": "dlb')
    assert page.main([str(tmp_path / "cut.json")]) == 2
    assert "cut.json is not whole JSON" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*/record.json")), ids=lambda p: p.parent.name)
def test_the_pages_kept_here_say_what_their_records_say(path: Path) -> None:
    """Some have a note in them."""
    kept = path.with_name("summary.md").read_text().splitlines()
    lines = page.markdown(records.read(path)).splitlines()
    assert [line for line in lines if line not in kept] == []
