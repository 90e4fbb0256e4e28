"""A folder is held by one process, and where it cannot be, that is told."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from dlbench import locks
from dlbench.errors import FINAL, UserError, exit_status
from dlbench.runs import RunFolder

REFUSAL = UserError("another process holds it")


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "deep/er/.lock"
    refused = pytest.raises(UserError, match="another process")
    with locks.alone(file, REFUSAL), refused, locks.alone(file, REFUSAL):
        pass
    with locks.alone(file, REFUSAL):
        pass


def test_it_is_waited_for_no_longer_than_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, ends = tmp_path / ".lock", ExitStack()
    ends.enter_context(locks.alone(file, REFUSAL))
    with pytest.raises(UserError, match="another process"), locks.alone(file, REFUSAL, 0.3):
        pass
    threading.Timer(0.3, ends.close).start()
    with locks.alone(file, REFUSAL, 20.0):
        pass
    told = [f"another process holds {file}: waiting up to {seconds} s" for seconds in (0, 20)]
    assert capsys.readouterr().out.splitlines() == told


@pytest.mark.parametrize("output", ["file", "file/deeper", "link", "loop"])
def test_what_is_no_folder_is_told_and_final(
    output: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(FINAL, str(tmp_path / "final"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")

    def job() -> None:
        with RunFolder(tmp_path / output / "one").alone():
            pass

    assert exit_status("dlbench.x", job) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"dlbench.x (rank 0): cannot use {tmp_path}/{output}")
    assert "; mend that, or choose another folder" in told
    assert (tmp_path / "file").read_text() == "kept"
    assert (tmp_path / "final").exists()


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match=r"cannot use .*/\.aaa.*: File name too long; ")
    with refused, RunFolder(tmp_path / ("a" * 252)).alone():
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_and_used(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None can be had here: its answer stands in for it."""

    def answer(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", answer)
    done = False
    with locks.alone(tmp_path / ".one.lock", REFUSAL):
        done = True
    assert done
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"warning: the file system of {tmp_path}/.one.lock has no locks (")
    assert os.strerror(number) in told


def test_what_may_pass_is_no_error_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", answer)
    with pytest.raises(OSError, match="Input/output"), locks.alone(tmp_path / "lock", REFUSAL):
        pass
