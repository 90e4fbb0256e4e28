"""Where a disk has no room a run ends with one message; with room the same command goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.conftest import NoteFault
from faults.disturbed import EPOCHS, assert_equal, command, run

from dlbench import checkpoint


def test_a_file_that_may_not_grow_ends_the_run_with_one_message(
    street: Path, note_fault: NoteFault
) -> None:
    """By a limit on the size of files, which stands in for the disk where none can be mounted."""
    folder = street.parent
    limited = ["bash", "-c", f"ulimit -f 40; trap '' XFSZ; exec {' '.join(command('full', 1))}"]
    status, output = run(folder, limited)
    assert status == 2, output
    assert "cannot write runs/full/checkpoints/" in output
    assert "Traceback" not in output
    assert not list((folder / "runs/full/checkpoints").glob(".*")), "a file that is half written"
    told = output
    status, output = run(folder, command("full", 1))
    assert status == 0, output
    note_fault(
        "a file would be larger than the system lets it (ulimit -f)", told, "cannot write",
        "the time since the last checkpoint",
    )  # fmt: skip


@pytest.fixture
def disk(street: Path) -> Iterator[Path]:
    """Of a run's folder alone, with room for three of its checkpoints and a half: one that is
    written beside the best and the newest, not beside the one before that too."""
    path = street.parent / "runs/small"
    path.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "dlbench", path])
    if mounted.returncode:
        pytest.skip("a disk of its own is root's to mount")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_when_its_full_disk_has_room(
    disk: Path, street: Path, note_fault: NoteFault
) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", 1))
    assert status == 0, output
    status, told = run(folder, command("small", 1))
    assert status == 2, told
    assert "cannot write runs/small/checkpoints/last.npz: No space left on device; what" in told
    assert "Traceback" not in told
    assert not list(disk.rglob(".*")), "a file that is half written"
    for path in disk.rglob("*.npz"):
        checkpoint.load(path)
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    status, output = run(folder, command("small", 1))
    assert status == 0, output
    assert f"resuming after epoch {EPOCHS - 1} of {EPOCHS}\n" in output
    assert_equal(folder, "small")
    note_fault(
        "the disk is full", told, "cannot write",
        "what came after the last checkpoint is made again, to the same bits",
    )  # fmt: skip
