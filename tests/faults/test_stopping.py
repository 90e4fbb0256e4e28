"""A run that is told to stop, or whose newest checkpoint is damaged, loses nothing: what goes on
from there ends in the same bits as a run that was never disturbed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.conftest import NoteFault
from faults.disturbed import (
    EPOCHS,
    LONGEST,
    assert_equal,
    assert_same,
    command,
    environment,
    final,
    run,
    unprivileged,
)
from faults.rank_jobs import running
from terminals import Terminal

from dlbench import checkpoint
from dlbench.report import records
from dlbench.runs import RunFolder


@pytest.mark.parametrize(
    ("ranks", "places"),
    [
        (1, [("2", "1", signal.SIGTERM)]),
        # An epoch has four steps of two ranks.
        pytest.param(
            2, [("2", "1", signal.SIGTERM), ("1", "2", signal.SIGINT)], marks=pytest.mark.slow
        ),
        pytest.param(1, [("1", "2", signal.SIGINT)], marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    street: Path,
    ranks: int,
    places: list[tuple[str, str, signal.Signals]],
    note_fault: NoteFault,
) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", ranks))
    assert status == 0, output
    for epoch, step, signal_number in places:
        name = f"stopped-{epoch}-{step}"
        status, output = run(
            folder, command(name, ranks), signal_number, PAUSE_EPOCH=epoch, PAUSE_STEP=step
        )
        assert status != 0
        if ranks == 1:
            assert status == 128 + signal_number
        else:  # what Horovod's launcher says of its own stands without the number of a rank
            output = "".join(re.findall(r"^\[\d\].*\n", output, re.M))
        assert f"stopped and saved after step {int(step) + 1} of epoch {epoch}" in output, output
        assert "Traceback" not in output
        stopped = output
        status, output = run(folder, command(name, ranks))
        assert status == 0, output
        done = f"epoch {int(epoch) - 1} of {EPOCHS} and {int(step) + 1} steps of the next"
        assert f"resuming after {done}" in output
        assert_equal(folder, name)
        note_fault(
            f"{signal_number.name} to a job of {ranks} rank(s)", stopped, "stopped and saved",
            "nothing: the same command ends in the same bits",
        )  # fmt: skip


def test_ctrl_c_before_the_first_step_is_told_in_one_line(
    street: Path, note_fault: NoteFault
) -> None:
    status, output = run(
        street.parent, command("early", 1), signal.SIGINT, PAUSE_EPOCH="0", PAUSE_STEP="0"
    )
    assert status == 128 + signal.SIGINT
    assert output.endswith("paused\ndlbench.train (rank 0): interrupted\n")
    note_fault(
        "Ctrl-C while nothing is trained (loading, counting, report)", output, "interrupted",
        "the time since the last checkpoint",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ranks", "before"),
    [
        (1, []),
        # The launcher itself would not hear of it.
        pytest.param(2, [sys.executable, "-m", "dlbench.supervise"], marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_terminal_is_closed_goes_on_to_the_same_bits(
    street: Path, ranks: int, before: list[str], note_fault: NoteFault
) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", ranks))
    assert status == 0, output
    words = command("left", ranks, "training.progress=bar")
    with Terminal() as terminal:
        place = environment(PAUSE_EPOCH="2", PAUSE_STEP="1")
        process = terminal.start([*before, *words], cwd=folder, env=place)
        try:
            terminal.read_to("paused")
            terminal.close()
            process.wait(LONGEST)
        finally:
            process.kill()
    assert not running(folder)
    status, output = run(folder, words)
    assert status == 0, output
    told = f"resuming after epoch 1 of {EPOCHS} and 2 steps of the next"
    assert told in output
    assert_equal(folder, "left")
    who = "dlbench.train" if ranks == 1 else f"dlbench.supervise, {ranks} ranks"
    note_fault(f"the terminal of {who} is closed", output, told, "nothing")


MIXED = ["training.precision=mixed_float16"]


@pytest.mark.slow  # five to eight runs each
@pytest.mark.parametrize(
    ("ranks", "steps", "every", "more"),
    [
        (1, 7, 3, []),
        (1, 4, 2, [*MIXED, "training.accumulate_steps=2"]),
        (2, 4, 3, []),
        (2, 4, 3, ["distributed.batch_norm=sync", "distributed.compression=bf16"]),
        (2, 4, 3, [*MIXED, "distributed.batch_norm=sync", "distributed.compression=fp16"]),
        (2, 2, 1, [*MIXED, "training.accumulate_steps=2"]),
    ],
)
def test_every_checkpoint_of_a_run_goes_on_to_the_same_bits(
    street: Path, ranks: int, steps: int, every: int, more: list[str]
) -> None:
    """``steps`` an epoch, a checkpoint after ``every`` so many."""
    folder = street.parent
    more = [*more, f"training.checkpoint_every={every}", "training.keep_checkpoints=100"]
    status, output = run(folder, command("whole", ranks, *more))
    assert status == 0, output
    assert f", {steps} steps an epoch" in output
    kept = sorted((folder / "runs/whole/checkpoints").glob("last-*.npz"))
    done = {checkpoint.load(path)[1]["step"] for path in kept}
    assert done == set(range(0, steps, every))
    assert len(kept) == EPOCHS * len(done) - 1
    for path in kept:
        copy = folder / "runs" / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        (copy / "checkpoints").mkdir(parents=True)
        shutil.copy(path, copy / "checkpoints" / "last.npz")
        text = (folder / "runs/whole/config.yaml").read_text()
        (copy / "config.yaml").write_text(text.replace("name: whole", "name: copy"))
        status, output = run(folder, command("copy", ranks, *more))
        assert status == 0, output
        assert_equal(folder, "copy")


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    street: Path, note_fault: NoteFault
) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    newest = folder / "runs/whole/checkpoints/last.npz"
    expected = final(folder, "whole")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    assert "warning: runs/whole/checkpoints/last.npz" in output
    assert newest.with_name("last.npz.damaged").read_bytes() == content
    assert "Going on from the checkpoint before, runs/whole/checkpoints/last-1.npz" in output
    assert f"resuming after epoch {EPOCHS - 1} of {EPOCHS}" in output
    assert_same(final(folder, "whole"), expected)
    note_fault(
        "a bit of the newest checkpoint has flipped", output, "Going on from the checkpoint before",
        "an epoch's time: it ends in the same bits",
    )  # fmt: skip


def test_checkpoints_that_are_deleted_cost_no_run(street: Path, note_fault: NoteFault) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    whole = RunFolder(folder / "runs/whole")
    expected, record = final(folder, "whole"), whole.record.read_bytes()
    whole.checkpoint("last").unlink()
    status, lost = run(folder, command("whole", 1))
    assert status == 0, lost
    told = "warning: there is no checkpoint runs/whole/checkpoints/last.npz. Going on from"
    assert f"{told} the checkpoint before, runs/whole/checkpoints/last-1.npz\n" in lost
    assert_same(final(folder, "whole"), expected)
    assert record != whole.record.read_bytes(), "an epoch was made again"

    record = whole.record.read_bytes()
    shutil.rmtree(whole.checkpoint("last").parent)
    status, gone = run(folder, command("whole", 1))
    assert status == 2, gone
    assert "holds the record of a run whose checkpoints are gone" in gone
    assert "Traceback" not in gone
    assert whole.record.read_bytes() == record
    note_fault(
        "the newest checkpoint is deleted", lost, "Going on from the checkpoint before",
        "an epoch's time: it ends in the same bits",
    )  # fmt: skip
    note_fault(
        "all checkpoints of a finished run are deleted", gone, "whose checkpoints are gone",
        "nothing more: the record stays",
    )  # fmt: skip


def test_a_run_whose_best_checkpoint_is_lost_gets_its_report(street: Path) -> None:
    """On its newest, and says so."""
    folder = street.parent
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    whole = RunFolder(folder / "runs/whole")
    arrays, meta = checkpoint.load(whole.checkpoint("last"))
    meta["history"][0]["val_miou"] = 1.0
    checkpoint.save(whole.checkpoint("last"), arrays, meta)
    for path in (whole.record, whole.summary, whole.model):
        path.unlink()
    whole.checkpoint("best").write_bytes(b"damaged")
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    assert "warning: runs/whole/checkpoints/best.npz is damaged" in output
    told = "best epoch: 1, whose weights are lost; scored and exported: those of epoch 3"
    assert told in output
    assert whole.summary.read_text().endswith(f"\n{told}\n")
    assert records.read(whole.record).quality["epoch"] == EPOCHS
    assert whole.model.exists()


def test_a_loss_that_is_no_number_ends_the_job_and_is_not_saved(
    street: Path, note_fault: NoteFault
) -> None:
    """The second step has a loss of weights near 1e20; the same command tells the same."""
    folder, checkpoints = street.parent, street.parent / "runs/diverged/checkpoints"
    words = command("diverged", 2, "training.checkpoint_every=1", "optimizer.learning_rate=1e20")
    for _ in range(2):
        status, output = run(folder, words)
        assert status != 0
        assert "the loss of epoch 1 up to step 2 is nan; " in output, output
        assert "/diverged/checkpoints/last.npz holds what was before; start anew with" in output
        assert "Traceback" not in "".join(re.findall(r"^\[\d\].*\n", output, re.M))
        assert [path.name for path in checkpoints.iterdir()] == ["last.npz"]
        arrays, meta = checkpoint.load(checkpoints / "last.npz")
        assert meta["step"] == 1
        assert all(np.isfinite(array).all() for array in arrays.values())
    note_fault(
        "the loss is no number", output, "the loss of epoch 1 up to step 2",
        "what came after the last checkpoint",
    )  # fmt: skip


def one_step(name: str, rate: str) -> list[str]:
    """A run of all seven samples in a single step, after which no loss is taken."""
    more = "training.batch=7", "training.epochs=1", f"optimizer.learning_rate={rate}"
    return command(name, 1, *more)


def test_weights_that_are_no_numbers_end_the_job_and_are_not_saved(
    street: Path, note_fault: NoteFault
) -> None:
    """Of a last step whose loss is that of the weights before it."""
    words = one_step("broken", "1e39")
    status, output = run(street.parent, words)
    assert status == 2, output
    assert "Traceback" not in output
    told = r"the loss of epoch 1 is \d\.\d+, but weights are no longer numbers after its last step"
    assert re.search(f"{told}; nothing has been saved before; start anew with", output), output
    assert not (street.parent / "runs/broken/checkpoints").exists()
    note_fault(
        "the last step makes weights that are no numbers", output, "the loss of epoch 1",
        "what came after the last checkpoint",
    )  # fmt: skip


def test_a_validation_loss_that_is_no_number_costs_no_report(
    street: Path, note_fault: NoteFault
) -> None:
    """Of a last step whose weights are still numbers, near 1e38; the same command ends alike."""
    words = one_step("enormous", "1e38")
    folder = RunFolder(street.parent / "runs/enormous")
    for _ in range(2):
        status, output = run(street.parent, words)
        assert status == 0, output
        assert "pixels have probabilities that are no numbers" in output
        quality = records.read(folder.record).quality
        assert quality["loss"] is None
        assert quality["not_finite_pixels"]
        assert folder.picture("curve").exists()
    assert "pixels were predicted as no number" in folder.summary.read_text()
    note_fault(
        "the validation loss is no number", output, "have probabilities that are no numbers",
        "nothing: the record has null for it",
    )  # fmt: skip


def test_a_second_run_into_the_same_folder_is_refused(street: Path, note_fault: NoteFault) -> None:
    folder = street.parent
    words = command("shared", 1)
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment(PAUSE_EPOCH="1", PAUSE_STEP="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        try:
            assert first.stdout is not None
            for line in first.stdout:
                if "paused" in line:
                    break
            status, output = run(folder, words)
        finally:
            first.kill()
    assert status == 2
    assert "another process trains into runs/shared; wait for its end" in output
    note_fault("two runs into one folder", output, "another process trains into", "nothing")


def refused(folder: Path, words: list[str]) -> str:
    """The one line that tells why the command, without root's power over files, ends."""
    status, output = run(folder, unprivileged(words))
    assert status == 2, output
    assert "Traceback" not in output
    (told,) = re.findall(r"^dlbench.*", output, re.M)
    return str(told)


def test_data_that_may_not_be_read_is_told_as_such(street: Path, note_fault: NoteFault) -> None:
    """Below a folder that may not be searched, and in one that may not be listed."""
    folder = street.parent
    locked = folder / "locked"
    shutil.copytree(street, locked / "street")
    words = command("unread", 1, "data.root=locked/street")
    for path, mode, named in ((locked, 0o666, "locked/street"), (locked / "street", 0, "locked/")):
        path.chmod(mode)
        told = refused(folder, words)
        path.chmod(0o755)
        assert told.startswith(f"dlbench.train (rank 0): cannot read {named}")
        assert "Permission denied; have its permissions and those of the folders above it" in told
    note_fault("the data may not be read", told, "cannot read locked", "nothing")


def test_a_run_folder_that_is_read_only_ends_the_run_with_one_message(
    street: Path, note_fault: NoteFault
) -> None:
    """The folder of all runs, or that of one which was interrupted."""
    folder = street.parent
    words = command("sealed", 1)
    (folder / "runs").mkdir()
    (folder / "runs").chmod(0o555)
    told = refused(folder, words)
    reason = "Permission denied; mend that, or choose another folder"
    assert told == f"dlbench.train (rank 0): cannot use runs/.sealed.lock: {reason}"
    (folder / "runs").chmod(0o755)
    (folder / "runs/sealed").mkdir(mode=0o555)
    told = refused(folder, words)
    assert "cannot write runs/sealed/config.yaml: Permission denied; " in told
    assert not list((folder / "runs/sealed").iterdir())
    note_fault("the run folder is read-only", told, "cannot write runs/sealed", "nothing")
