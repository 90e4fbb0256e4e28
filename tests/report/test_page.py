"""The Markdown page says what the record says, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlbench import environment
from dlbench.metrics import ConfusionMatrix, Moments
from dlbench.report import page, records

DESCRIBED = environment.describe()


def record(**changes: object) -> records.Record:
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
    rank = records.Rank(
        rank=0,
        host="node0",
        samples=30,
        wall_s=4.0,
        step_s=(1.0, 3.0),
        input_wait_s=None,
        comm_wait_s=None,
        first_step_s=None,
        conditions={},
        peak_bytes={"host_rss": 3 << 29},
    )
    workload = records.Workload(
        id="train/segnet/vaihingen",
        model="segnet",
        data="vaihingen",
        precision="float32",
        ranks=1,
        batch_per_rank=4,
        shape=(128, 128, 3),
        mode="train",
    )
    content = {"quality": quality, **changes}
    return records.now(workload, [rank], setup=records.setup("laptop", DESCRIBED), **content)  # type: ignore[arg-type]


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


def test_command_prints_files_and_explains_bad_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write(record(), tmp_path / "r.json")
    assert page.main([str(tmp_path / "r.json")]) == 0
    assert "# train/segnet/vaihingen" in capsys.readouterr().out
    (tmp_path / "cut.json").write_text('{"schema": "dlb')
    assert page.main([str(tmp_path / "cut.json")]) == 2
    assert "cut.json is not whole JSON" in capsys.readouterr().err
