"""Elastic jobs: hosts leave, join and die, and each sample still counts once an epoch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.conftest import NoteFault
from faults.elastic_job import HOSTS, ElasticJob, numbered_pictures

from dlbench import checkpoint
from dlbench.report import records
from dlbench.runs import RunFolder

SAMPLES, BATCH, EPOCHS, RATE = 23, 2, 10, 0.02

pytestmark = pytest.mark.slow


def arguments(*more: str) -> list[str]:
    return [
        "name=elastic", "data.name=camvid", "data.root=street", "data.size=[32,32]",
        "data.augmentation.flip_left_right=false", "model.name=segnet_basic",
        "model.options.width=0.1", f"training.batch={BATCH}", f"training.epochs={EPOCHS}",
        f"optimizer.learning_rate={RATE}", "optimizer.warmup_epochs=0",
        "optimizer.scale_by_ranks=true", "training.threads=1", *more,
    ]  # fmt: skip


def assert_each_sample_once(job: ElasticJob) -> None:
    samples = job.samples()
    assert sorted(samples) == list(range(EPOCHS))
    for epoch, seen in samples.items():
        assert seen == list(range(SAMPLES)), f"epoch {epoch}: {seen}"


def assert_rates_follow(job: ElasticJob, changes: list[dict[str, Any]]) -> None:
    """The configured cosine at the place of the training in epochs, times the ranks; the place is
    that of the first sample of the step, plus what a part of an epoch that was shared anew lacks of
    a whole step."""
    for note in job.kept_steps():
        (epoch, _), ranks = note["step"], note["ranks"]
        per_epoch = math.ceil(SAMPLES / (BATCH * ranks))
        peers = [n["step"][1] for n in job.kept_steps() if n["step"][0] == epoch]
        left = max(peers) - note["step"][1]
        if any(n["ranks"] != ranks and n["step"] > note["step"] for n in job.kept_steps()
               if n["step"][0] == epoch):  # fmt: skip
            continue  # the rest of its epoch was made by others
        # `rate` is that of the step after this one.
        place = epoch + 1 - left / per_epoch
        expected = RATE * ranks * 0.5 * (1.0 + math.cos(math.pi * place / EPOCHS))
        assert note["rate"] == pytest.approx(expected, rel=1e-4, abs=1e-7), note
    assert len({change["ranks"] for change in changes}) > 1


def meta(folder: Path) -> dict[str, Any]:
    return checkpoint.load(folder / "runs/elastic/checkpoints/last.npz")[1]


def test_hosts_that_leave_and_join(tmp_path: Path, note_fault: NoteFault) -> None:
    numbered_pictures(tmp_path / "street", SAMPLES)
    with ElasticJob(tmp_path, arguments("resume=false"), pace_s=0.3) as job:
        job.wait_for_step(1, 0, 3)
        job.set_hosts(HOSTS[:2])
        job.wait_for_step(3, 0, 2)
        job.set_hosts(HOSTS)
        assert job.wait() == 0, job.output
        assert_each_sample_once(job)
        changes = meta(tmp_path)["changes"]
        assert [change["ranks"] for change in changes] == [3, 2, 3]
        assert_rates_follow(job, changes)
    for before, change in itertools.pairwise(changes):
        told = (
            f"{before['ranks']} -> {change['ranks']} ranks at epoch {change['epoch']}, "
            f"{change['samples']} of {SAMPLES} samples done"
        )
        assert told in job.output
    assert f"{HOSTS[2]} has left the job" in job.output
    assert "Traceback" not in job.output
    assert "set the earlier run aside" not in job.output
    folder = RunFolder(tmp_path / "runs/elastic")
    record = records.read(folder.record)
    assert (record.workload.ranks, record.workload.id) == (3, "train/segnet_basic/camvid/elastic")
    assert record.quality["rank_changes"] == changes
    scores: Any = record.quality["training_size"]
    assert scores["global_accuracy"] > 0.9, "colours tell the classes"
    rows = [line.split(",") for line in folder.metrics.read_text().splitlines()]
    column = rows[0].index("ranks")
    assert {row[column][0] for row in rows[1:]} == {"2", "3"}
    assert not list(folder.path.rglob(".*")), "a file that is half written"
    note_fault(
        "elastic: a host leaves, another joins", job.output, "-> 2 ranks",
        "nothing: each sample of an epoch counts once",
    )  # fmt: skip


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_dies(rank: int, tmp_path: Path, note_fault: NoteFault) -> None:
    numbered_pictures(tmp_path / "street", SAMPLES)
    with ElasticJob(tmp_path, arguments("training.checkpoint_every=2"), pace_s=0.3) as job:
        job.wait_for_step(1, 2, 3)
        job.kill(rank)
        assert job.wait() == 0, job.output
        assert_each_sample_once(job)
        changes = meta(tmp_path)["changes"]
        assert [change["ranks"] for change in changes] == [3, 2]
        assert_rates_follow(job, changes)
    assert job.output.count("another rank is lost") == 2
    assert "3 -> 2 ranks at epoch 2" in job.output
    assert "Traceback" not in job.output
    values = checkpoint.load(tmp_path / "runs/elastic/checkpoints/last.npz")[0]
    assert all(np.isfinite(value).all() for value in values.values())
    note_fault(
        f"elastic: rank {rank} of 3 is killed", job.output, "another rank is lost",
        "what came after the last checkpoint is made again; each sample counts once",
    )  # fmt: skip


def test_an_error_that_only_the_user_can_mend_ends_all(
    tmp_path: Path, note_fault: NoteFault
) -> None:
    """In place of one rank after the other."""
    numbered_pictures(tmp_path / "street", SAMPLES)
    damaged = tmp_path / "street/train/007.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with ElasticJob(tmp_path, arguments()) as job:
        assert job.wait() == 1, job.output
    assert job.output.count("cannot read street/train/007.png") == 1
    assert "-> 2 ranks" not in job.output
    note_fault(
        "elastic: a sample that one rank cannot read", job.output, "cannot read street",
        "what came after the last checkpoint",
    )  # fmt: skip
