"""What the user can mend is told in one line; everything else keeps its traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlbench import errors
from dlbench.data import DataError
from dlbench.errors import UserError, exit_status


def raising(error: BaseException) -> None:
    raise error


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("dlbench.x", lambda: None) == 0
    assert exit_status("dlbench.x", lambda: Path("run")) == 0
    assert capsys.readouterr().err == ""


def test_a_job_may_tell_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("dlbench.x", lambda: 137) == 137
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [UserError, DataError])
def test_user_errors_become_one_line(
    kind: type[UserError],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOROVOD_RANK", "3")
    assert exit_status("dlbench.x", lambda: raising(kind("a.tif is cut off; fetch it again"))) == 2
    assert capsys.readouterr().err == "dlbench.x (rank 3): a.tif is cut off; fetch it again\n"


def test_ctrl_c_becomes_one_line_and_is_not_started_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(errors.FINAL, str(tmp_path / "final"))
    assert exit_status("dlbench.x", lambda: raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "dlbench.x (rank 0): interrupted\n"
    assert (tmp_path / "final").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "Full", "a.csv"), "cannot write a.csv: Full; make room, or make"),
        (OSError(errno.EDQUOT, "Full"), "cannot write the output: Full; make room, or make"),
        (OSError(errno.EROFS, "Read-only", "a"), "cannot write a: Read-only; make room, or make"),
        (PermissionError(errno.EACCES, "Denied", "a.tif"), "cannot use a.tif: Denied; change its"),
    ],
)
def test_what_the_system_refuses_is_told_as_what_it_is(
    error: OSError, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("dlbench.x", lambda: raising(error)) == 2
    assert capsys.readouterr().err.startswith(f"dlbench.x (rank 0): {told}")


def test_a_full_disk_under_the_output() -> None:
    """The system does not say which file."""
    script = (
        "from dlbench.errors import exit_status\n"
        "print(exit_status('x', lambda: print('result', flush=True)))\n"
    )
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True
        )
    told = ended.stderr.splitlines()[0]
    assert told == (
        "x (rank 0): cannot write the output: No space left on device; make room, or make it "
        "writable"
    )


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        exit_status("dlbench.x", lambda: raising(ValueError("a bug")))


def unmet_by_numpy() -> None:
    np.empty(2**52)


def unmet_by_tensorflow() -> None:
    import tensorflow as tf

    tf.random.uniform([2**20, 2**26])


def unmet_by_python() -> None:
    bytearray(2**60)


@pytest.mark.parametrize(
    ("job", "quoted"),
    [
        (
            unmet_by_numpy,
            " (Unable to allocate 32.0 PiB for an array with shape (4503599627",
        ),
        (unmet_by_tensorflow, " (OOM when allocating tensor with shape[1048576,67108864] and type"),
        (unmet_by_python, "; take a smaller training.batch"),
    ],
)
def test_memory_that_is_not_there_is_answered_and_not_asked_for_again(
    job: Callable[[], None],
    quoted: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than any machine has, so that nothing is taken."""
    monkeypatch.setenv(errors.FINAL, str(tmp_path / "final"))
    told_others: list[str] = []
    assert exit_status("dlbench.x", job, on_final=lambda: told_others.append("final")) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"dlbench.x (rank 0): out of memory{quoted}")
    assert told.endswith(errors.LESS_MEMORY)
    assert (tmp_path / "final").exists(), "a supervisor would start it again"
    assert told_others == ["final"]


GLOO = "[/tmp/horovod-0.28.1/third_party/compatible17_gloo/gloo/transport/tcp"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("node valid_pixels: Horovod has been shut down. This was caused by ...", "shut down"),
        (
            f"{GLOO}/pair.cc:589] Read error [::1]:58240: Connection reset by peer\n\t [[node]]",
            "pair.cc:589] Read error [::1]:58240: Connection reset by peer",
        ),
        (
            f"{GLOO}/unbound_buffer.cc:81] Timed out waiting 30000ms for recv operation",
            "Timed out waiting 30000ms for recv operation",
        ),
        ("Application timeout caused pair closure", "pair closure"),
        ("NCCL async error: unhandled system error", "unhandled system error"),
        (
            "ncclAllReduce failed: remote process exited or there was a network error",
            "remote process exited or there was a network error",
        ),
    ],
)
def test_a_rank_that_is_cut_off_lets_the_failed_one_end_first(
    text: str, quoted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    lost = RuntimeError(f"Graph execution error:\n\n{text}")
    assert errors.exit_status("program", lambda: raising(lost)) == 1
    assert waited == [errors.LAUNCHER_REACTS]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("program (rank 0): stopped: another rank")
    assert f"{quoted}); see what is told" in told


def test_a_wrong_call_of_nccl_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="invalid argument"):
        exit_status("x", lambda: raising(RuntimeError("ncclAllReduce failed: invalid argument")))
