"""What the user can mend is told in one line; everything else keeps its traceback."""

from __future__ import annotations

import pytest

from dlbench import errors
from dlbench.data import DataError
from dlbench.errors import UserError, exit_status


def raising(error: Exception) -> None:
    raise error


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("dlbench.x", lambda: None) == 0
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


def test_a_readers_error_is_found_inside_tensorflows(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError(
        "{{function_node __wrapped__IteratorGetNext}} DataError: cannot read a.tif; fetch it "
        "again\nTraceback (most recent call last):\n  File ..."
    )
    assert exit_status("dlbench.x", lambda: raising(wrapped)) == 2
    assert capsys.readouterr().err == "dlbench.x (rank 0): cannot read a.tif; fetch it again\n"


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        exit_status("dlbench.x", lambda: raising(ValueError("a bug")))


def test_a_rank_that_is_cut_off_lets_the_failed_one_end_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)

    def job() -> None:
        raise RuntimeError("node valid_pixels: Horovod has been shut down. This was caused by ...")

    assert errors.exit_status("program", job) == 1
    assert waited == [errors.LAUNCHER_REACTS]
    assert capsys.readouterr().err.startswith("program (rank 0): stopped: another rank")
