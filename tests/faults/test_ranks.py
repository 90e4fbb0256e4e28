"""A rank that fails, is silent, or is not like the others ends the job soon and is told of."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.conftest import NoteFault
from faults.rank_jobs import ROOT, SOON, arguments, epochs, from_ranks, running


def test_an_error_on_one_rank_ends_the_job_and_is_told(
    street: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """Validation pictures 2 and 3, a chunk of two, are of rank 1's share alone."""
    bad = street / "val" / "3.png"
    bad.write_bytes(bad.read_bytes()[:80])
    command = [*arguments("broken"), "training.evaluation_batch=2"]
    broken = launch(["-m", "dlbench.train", *command], street.parent, ranks=2, timeout=2 * SOON)
    assert broken.status != 0
    told = [line for line in broken.output.splitlines() if "dlbench.train (rank 1): " in line]
    assert len(told) == 1, broken.output
    assert f"cannot decode {bad.relative_to(street.parent)}" in told[0]
    assert not from_ranks(broken.output, "Traceback")
    assert "Process name: 1\nExit code: 2" in broken.output
    assert not running(street.parent)
    note_fault(
        "a file is damaged", broken.output, "(rank 1): ", "the time since the last checkpoint"
    )


def test_unreadable_samples_are_left_out_and_counted_if_so_chosen(
    street: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """Two of seven pictures, so that some batch of one is of them alone."""
    bad = [street / "train" / f"{number}.png" for number in (2, 5)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:80])
    weights = "training.class_weights.mode=none"
    command = ["-m", "dlbench.train", *arguments("skipped"), "training.batch=1", weights]
    stopped = launch(command, street.parent, ranks=2)
    assert stopped.status != 0
    assert "cannot decode street/train/" in stopped.output
    ended = launch([*command, "data.on_unreadable=skip"], street.parent, ranks=2)
    assert ended.status == 0, ended.output
    for path in bad:
        told = f"warning: left out of training: cannot decode street/train/{path.name}"
        assert told in ended.output
    with (street.parent / "runs/skipped/metrics.csv").open(newline="") as text:
        found = list(csv.DictReader(text))
    assert found[-1]["unreadable"] == "2"
    assert all(np.isfinite(float(row["loss"])) for row in found)
    note_fault(
        "files are damaged, data.on_unreadable=skip", ended.output, "warning: left out",
        "those samples, which the record counts",
    )  # fmt: skip


@pytest.mark.slow  # 30 s until Gloo gives up, 10 s for the launcher
def test_a_frozen_rank_ends_the_job(
    street: Path,
    launch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    note_fault: NoteFault,
) -> None:
    monkeypatch.setenv("DYING_SIGNAL", "SIGSTOP")
    job = [str(ROOT / "tests/ranks/dying.py"), "2", "1", *arguments("frozen")]
    frozen = launch(job, street.parent, ranks=2, timeout=2 * SOON)
    assert frozen.status != 0
    assert from_ranks(frozen.output, "(rank 0): stopped: another rank has ended or is silent")
    assert not from_ranks(frozen.output, "Traceback")
    assert not running(street.parent)
    assert epochs(street.parent / "runs/frozen") == ["1"]
    note_fault(
        "a rank is frozen (SIGSTOP)", frozen.output, "(rank 0): stopped: another rank",
        "the time since the last checkpoint",
    )  # fmt: skip


@pytest.mark.slow  # 10 s for the launcher
def test_a_rank_that_is_stuck_ends_the_job(
    street: Path,
    launch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    note_fault: NoteFault,
) -> None:
    """Its threads answer the others; what they wait for never comes."""
    monkeypatch.setenv("DYING_SIGNAL", "none")
    # It hears no signal either: the launcher waits for it as long as for one that saves.
    monkeypatch.setenv("DLBENCH_GRACE_S", "5")
    job = [str(ROOT / "tests/ranks/dying.py"), "2", "1", *arguments("stuck")]
    stuck = launch([*job, "distributed.stall_shutdown_s=8"], street.parent, ranks=2)
    # Written right before.
    took_s = time.time() - (street.parent / "runs/stuck/metrics.csv").stat().st_mtime
    assert stuck.status != 0
    assert took_s < SOON
    assert from_ranks(stuck.output, "(rank 0): stopped: another rank has ended or is silent")
    assert "Missing ranks:\n[0]<stderr>:1!: [" in stuck.output, "Horovod names it"
    assert not from_ranks(stuck.output, "Traceback")
    assert not running(street.parent)
    assert epochs(street.parent / "runs/stuck") == ["1"]
    note_fault(
        "a rank is stuck, its threads answer", stuck.output, "(rank 0): stopped: another rank",
        "the time since the last checkpoint",
    )  # fmt: skip


def test_ranks_with_other_samples_are_told(
    street: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """Each would take its share of another list."""
    for rank in range(2):
        shutil.copytree(street, street.with_name(f"street{rank}"))
    listed = street.with_name("street1") / "train.txt"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:-1]))
    command = ["-m", "dlbench.train", *arguments("apart"), "data.root=street$HOROVOD_RANK"]
    ended = launch(command, street.parent, ranks=2)
    assert ended.status != 0
    told = "the number of samples of 'train' of rank 1 is not that of rank 0 (7 and 6)"
    assert from_ranks(ended.output, told)
    assert not from_ranks(ended.output, "Traceback")
    note_fault("a host's copy of the data lacks a file", ended.output, told, "nothing")


@pytest.mark.parametrize(
    ("file", "content", "told", "happens"),
    [
        # A comment changes nothing: what a change does is not to be known.
        (
            "dlbench/schedule.py",
            "# changed on this host alone\n",
            "dlbench/schedule.py of rank 1 is not that of rank 0; every host needs the same "
            "versions",
            "a host's checkout is another",
        ),
        # What pip would note of a NumPy 1.26 stands in for one: there is no other here.
        (
            "numpy-1.26.4.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n",
            f"numpy of rank 1 is not that of rank 0 ({np.__version__} and 1.26.4)",
            "a host has another version of a library",
        ),
    ],
)
def test_ranks_that_run_something_else_are_told(
    street: Path,
    launch: Callable[..., Any],
    note_fault: NoteFault,
    file: str,
    content: str,
    told: str,
    happens: str,
) -> None:
    """Rank r runs the copy of dlbench in ``checkout<r>``."""
    place = street.parent
    for rank in range(2):
        shutil.copytree(ROOT / "dlbench", place / f"checkout{rank}" / "dlbench")
    changed = place / "checkout1" / file
    changed.parent.mkdir(exist_ok=True)
    with changed.open("a") as text:
        text.write(content)
    script = place / "apart.py"
    script.write_text(
        "import os, sys\n"
        "sys.path.insert(0, f'checkout{os.environ[\"HOROVOD_RANK\"]}')\n"
        "from dlbench import train\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    ended = launch([str(script), *arguments("apart")], place, ranks=2)
    assert ended.status != 0
    assert from_ranks(ended.output, told)
    assert not from_ranks(ended.output, "Traceback")
    assert not (place / "runs").exists()
    note_fault(happens, ended.output, told, "nothing")


@pytest.mark.slow  # 10 s for the launcher
def test_a_rank_that_is_killed_within_a_sum_ends_the_job(
    tmp_path: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """Of the sum that is in flight Gloo itself tells, in words of its own."""
    killed = launch([str(ROOT / "tests/ranks/large_sums.py")], tmp_path, ranks=2)
    assert "Process name: 1\nExit code: 137" in killed.output
    assert from_ranks(killed.output, "(rank 0): stopped: another rank has ended or is silent")
    assert not from_ranks(killed.output, "Traceback")
    note_fault(
        "a rank is killed within a sum", killed.output, "(rank 0): stopped: another rank",
        "the time since the last checkpoint",
    )  # fmt: skip
