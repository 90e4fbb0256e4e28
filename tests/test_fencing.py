"""The process beside a rank ends it when the others have gone on without it, and only then."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from launcher_stand_in import serving

from dlbench import fencing, rendezvous
from dlbench.errors import UserError

PERIOD_S = 0.1
NOTE, MINE, OTHER = "/dlbench/here-0", b"a:1", b"b:1"
RANK = f"""
import os, sys, time
from dlbench import fencing
fencing.fence("here-0", sys.argv[1].encode(), {PERIOD_S})
if sys.argv[2:]:
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(60)
"""
LONGEST_S = 60.0


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with serving() as server:
        yield server


@pytest.fixture
def handler(server: HTTPServer) -> Any:
    handler: Any = server.RequestHandlerClass
    handler.answers[NOTE] = MINE
    return handler


@pytest.fixture
def start(server: HTTPServer) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, content: str = "a:1", **variables: str) -> psutil.Process:
        environment = (
            os.environ
            | variables
            | {
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_port),
                "PYTHONPATH": str(Path(__file__).parents[1]),
            }
        )
        command = [sys.executable, "-c", RANK, content, *arguments]
        started.append(subprocess.Popen(command, env=environment))
        return psutil.Process(started[-1].pid)

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(condition: Any) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def end(server: HTTPServer) -> None:
    server.shutdown()
    server.server_close()


def fence_of(rank: psutil.Process) -> psutil.Process:
    until(rank.children)
    return rank.children()[0]


def is_over(process: psutil.Process) -> bool:
    """Also where nobody has asked for its status."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_questions(handler: Any) -> None:
    """More than it takes until a rank is killed."""
    enough = len(handler.asked) + fencing.MISSES + 2
    until(lambda: len(handler.asked) >= enough)


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("now", [OTHER, None])
def test_a_rank_without_which_the_others_went_on_is_killed(
    now: bytes | None, is_frozen: bool, handler: Any, start: Any
) -> None:
    """Its number is another's, or nobody's."""
    rank = start()
    fence = fence_of(rank)
    if is_frozen:
        rank.suspend()
    if now is None:
        del handler.answers[NOTE]
    else:
        handler.answers[NOTE] = now
    assert rank.wait(LONGEST_S) == -signal.SIGKILL
    until(lambda: is_over(fence))


def test_one_that_takes_part_lives(handler: Any, start: Any) -> None:
    rank = start()
    wait_for_questions(handler)
    assert not is_over(rank)


def test_a_rank_without_a_note_lives_as_long_as_the_launcher_answers(
    handler: Any, start: Any
) -> None:
    del handler.answers[NOTE]
    rank = start(content="")
    wait_for_questions(handler)
    assert not is_over(rank)


@pytest.mark.parametrize("content", ["a:1", ""])
def test_when_the_launcher_has_ended_a_rank_is_told_to(
    server: HTTPServer, start: Any, content: str
) -> None:
    rank = start(content=content)
    fence = fence_of(rank)
    end(server)
    assert rank.wait(LONGEST_S) == -signal.SIGTERM
    until(lambda: is_over(fence))


def test_one_that_hears_nothing_is_killed_then(server: HTTPServer, start: Any) -> None:
    rank = start(DLBENCH_GRACE_S="1")
    fence_of(rank)
    rank.suspend()
    end(server)
    assert rank.wait(LONGEST_S) == -signal.SIGKILL


def test_a_launcher_that_is_stopped_has_not_ended(server: HTTPServer, start: Any) -> None:
    """It takes connections, as many as the kernel lets wait, and answers none."""
    rank = start()
    fence = fence_of(rank)
    server.shutdown()
    time.sleep(4 * fencing.MISSES * PERIOD_S)
    assert not is_over(fence)
    assert not is_over(rank)


class EnoughError(Exception):
    """It was asked more often than it takes."""


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ECONNRESET, []), (errno.ETIMEDOUT, []), (errno.EHOSTUNREACH, [signal.SIGTERM])],
)
def test_only_a_host_that_is_gone_for_long_counts(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: list[signal.Signals]
) -> None:
    """What cannot be had here, a host that is gone, is made up."""
    periods = fencing.SILENCES[errno.EHOSTUNREACH]
    asked = 0
    now = iter(range(1000))
    told: list[signal.Signals] = []

    def noted(note: str) -> bytes | None:
        nonlocal asked
        asked += 1
        assert not told
        if asked > periods + 2:
            raise EnoughError
        raise UserError("silent") from OSError(number, "gone")

    monkeypatch.setattr(rendezvous, "noted", noted)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(fencing, "_is_over", lambda *_: bool(told))
    monkeypatch.setattr(os, "kill", lambda pid, what: told.append(what))
    before = signal.getsignal(signal.SIGTERM)
    with suppress(EnoughError):
        fencing.main("1", "here-0", "a:1", "1")
    signal.signal(signal.SIGTERM, before)
    assert told == expected
    assert asked == (periods + 1 if expected else periods + 3)


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", True), ("203.0.113.1", False)])
def test_a_launcher_of_this_host_sees_its_ranks_itself(
    monkeypatch: pytest.MonkeyPatch, address: str, expected: bool
) -> None:
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", address)
    fenced: list[Any] = []
    monkeypatch.setattr(fencing, "fence", lambda *given: fenced.append(given))
    fencing.fence_from_afar()
    assert rendezvous.is_here() == expected
    assert bool(fenced) != expected


def test_a_rank_that_starts_again_is_fenced_no_longer(start: Any) -> None:
    fence = fence_of(start("again"))
    until(lambda: is_over(fence))
