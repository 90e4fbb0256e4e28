"""Elastic jobs: hosts leave, join and die, and each sample still counts once an epoch."""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults.conftest import NoteFault
from faults.elastic_job import HOSTS, ROOT, ElasticJob, numbered_pictures
from ranks.noted import signature

from benchmarks import launching
from dlbench import checkpoint
from dlbench.data import build
from dlbench.data.augmentation import fit
from dlbench.report import records
from dlbench.runs import RunFolder

SAMPLES, BATCH, EPOCHS, RATE = 23, 2, 14, 0.005


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
        assert [red for red, *_ in seen] == [n * 32**2 for n in range(SAMPLES)], f"epoch {epoch}"


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


@pytest.mark.slow
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
    assert scores["global_accuracy"] > 1 / 3, "of three classes"
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert {number for row in rows for number in row["ranks"].split(">")} == {"2", "3"}
    assert set(folder.path.rglob(".*")) == {folder.job}, "a file that is half written"
    note_fault(
        "elastic: a host leaves, another joins", job.output, "-> 2 ranks",
        "nothing: each sample of an epoch counts once",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_dies(rank: int, tmp_path: Path, note_fault: NoteFault) -> None:
    numbered_pictures(tmp_path / "street", SAMPLES)
    with ElasticJob(tmp_path, arguments("training.checkpoint_every=2"), pace_s=0.3) as job:
        job.wait_for_step(1, 2, 3)
        job.process(rank).kill()
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


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_is_frozen(rank: int, tmp_path: Path, note_fault: NoteFault) -> None:
    """Gloo gives it up after 30 s, the launcher, which kills it then, when told to."""
    numbered_pictures(tmp_path / "street", SAMPLES)
    steps = arguments("training.checkpoint_every=2")
    with ElasticJob(tmp_path, steps, pace_s=0.3, timeout_s=40) as job:
        job.wait_for_step(1, 2, 3)
        frozen = job.process(rank)
        frozen.suspend()
        assert job.wait() == 0, job.output
        assert not frozen.is_running()
        assert_each_sample_once(job)
        assert [change["ranks"] for change in meta(tmp_path)["changes"]] == [3, 2]
    assert job.output.count("another rank is lost") == 2
    assert job.output.count("is given up with its host: no word of it") == 1
    assert "Traceback" not in job.output
    note_fault(
        f"elastic: rank {rank} of 3 is frozen (SIGSTOP)", job.output, "is given up with its host",
        "what came after the last checkpoint is made again; each sample counts once",
    )  # fmt: skip


@pytest.mark.slow
def test_a_rank_that_is_told_to_leave(tmp_path: Path, note_fault: NoteFault) -> None:
    """By SIGTERM; no step is made twice."""
    numbered_pictures(tmp_path / "street", SAMPLES)
    with ElasticJob(tmp_path, arguments(), pace_s=0.3) as job:
        job.wait_for_step(1, 1, 3)
        job.process(1).terminate()
        assert job.wait() == 0, job.output
        assert_each_sample_once(job)
        made = [note["step"] for note in job.notes() if "step" in note]
        assert len(made) == len(job.kept_steps())
        assert {note["ranks"] for note in job.kept_steps()} == {3, 2}
    assert "another rank is lost" not in job.output
    assert "Traceback" not in job.output
    note_fault("elastic: SIGTERM to the ranks of one host", job.output, "3 -> 2 ranks", "nothing")


@pytest.mark.slow
def test_a_host_on_which_nothing_starts(tmp_path: Path, note_fault: NoteFault) -> None:
    numbered_pictures(tmp_path / "street", SAMPLES)
    with ElasticJob(tmp_path, arguments(), broken=HOSTS[1]) as job:
        assert job.wait() == 0, job.output
        assert_each_sample_once(job)
        assert {note["ranks"] for note in job.kept_steps()} == {2}
    assert "Traceback" not in job.output
    note_fault(
        "elastic: on one of three hosts nothing starts", job.output, "another rank is lost",
        "some minutes: the others begin without it",
    )  # fmt: skip


@pytest.mark.slow
def test_an_error_that_only_the_user_can_mend_ends_all(
    tmp_path: Path, note_fault: NoteFault
) -> None:
    """In place of one rank after the other."""
    numbered_pictures(tmp_path / "street", SAMPLES)
    damaged = tmp_path / "street/train/007.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    # Whose weights would have all ranks read all samples first.
    unweighted = "training.class_weights={mode: none}"
    with ElasticJob(tmp_path, arguments(unweighted)) as job:
        assert job.wait() == 1, job.output
    assert job.output.count("cannot decode street/train/007.png") == 1
    assert "-> 2 ranks" not in job.output
    note_fault(
        "elastic: a sample that one rank cannot read", job.output, "cannot decode street",
        "what came after the last checkpoint",
    )  # fmt: skip


@pytest.mark.slow
def test_a_test_that_fails_leaves_no_process(tmp_path: Path) -> None:
    """Here while its ranks start: none of them is noted yet."""
    numbered_pictures(tmp_path / "street", SAMPLES)

    def there() -> list[str]:
        """The commands of the job's processes."""
        every = [process.info for process in psutil.process_iter(["cwd", "cmdline"])]
        return [" ".join(one["cmdline"] or []) for one in every if one["cwd"] == str(tmp_path)]

    with pytest.raises(RuntimeError, match="as a test may"), ElasticJob(tmp_path, arguments()):
        while sum(command.count("noted.py") for command in there()) < 3:
            time.sleep(0.1)
        raise RuntimeError("as a test may")
    # Less than the 5 s that Horovod gives ranks of a launcher that is gone.
    end = time.monotonic() + 4.0
    while there() and time.monotonic() < end:
        time.sleep(0.1)
    assert not there()


CAMVID_EPOCHS = 6


@pytest.mark.soak
def test_camvid_is_learned_as_well_as_by_the_same_ranks_throughout(tmp_path: Path) -> None:
    """SegNet-Basic at 120 x 160: 3 hosts, 2 and 3 again, beside 3 from the first step to the last;
    three seeds each."""
    root = Path(os.environ.get("DLBENCH_DATA", "")) / "camvid"
    if not root.is_dir():
        pytest.skip("DLBENCH_DATA names no folder with camvid/")
    static = [score_of_static_run(tmp_path / f"static-{s}", root, s) for s in range(3)]
    elastic = [score_of_elastic_run(tmp_path / f"elastic-{s}", root, s) for s in range(3)]
    assert min(static) <= np.mean(elastic) <= max(static), "more than seeds differ by"


def on_camvid(root: Path, seed: int) -> list[str]:
    return [
        str(ROOT / "configs/segnet_basic_camvid.yaml"), f"data.root={root}", f"seed={seed}",
        f"training.epochs={CAMVID_EPOCHS}", f"training.evaluate_every={CAMVID_EPOCHS}",
        "training.threads=1",
    ]  # fmt: skip


def score_of_elastic_run(folder: Path, root: Path, seed: int) -> float:
    dataset = build("camvid", root, (120, 160))
    pictures = [fit(*dataset.read("train", i), (120, 160))[0] for i in range(367)]
    expected = sorted(signature(picture) for picture in pictures)
    folder.mkdir()
    begun = time.monotonic()
    with ElasticJob(folder, on_camvid(root, seed), longest_s=3600.0) as job:
        job.wait_for_step(1, 10, 3)
        job.set_hosts(HOSTS[:2])
        job.wait_for_step(3, 10, 2)
        job.set_hosts(HOSTS)
        assert job.wait() == 0, job.output
        assert job.samples() == dict.fromkeys(range(CAMVID_EPOCHS), expected)
    changes = re.findall(r"\d -> \d ranks at .*", job.output)
    assert [change[:6] for change in changes] == ["3 -> 2", "2 -> 3"]
    return told("elastic", folder, seed, begun, *changes)


def score_of_static_run(folder: Path, root: Path, seed: int) -> float:
    folder.mkdir()
    begun = time.monotonic()
    launching.run(["-m", "dlbench.train", *on_camvid(root, seed)], 3, 3600.0, folder)
    return told("static", folder, seed, begun)


def told(kind: str, folder: Path, seed: int, begun: float, *more: str) -> float:
    """The last epoch's mean IoU."""
    with RunFolder(folder / "runs/segnet_basic-camvid").metrics.open(newline="") as file:
        score = float(list(csv.DictReader(file))[-1]["val_miou"])
    seconds = time.monotonic() - begun
    print(f"{kind}, seed {seed}: val mIoU {score:.4f}, {seconds:.0f} s", *more, flush=True)
    return score
