"""The process beside a rank ends it when the others have gone on without it, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from launcher_stand_in import serving

PERIOD_S = 0.1
NOTE, MINE, OTHER = "/dlbench/here-0", b"a:1", b"b:1"
RANK = f"""
import os, sys, time
from dlbench import fencing
fencing.fence("here-0", b"a:1", {PERIOD_S})
if sys.argv[1:]:
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(60)
"""
GRACE_S = 20 * PERIOD_S
"""Longer than a fence of such a period takes."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with serving() as server:
        yield server


@pytest.fixture
def answers(server: HTTPServer) -> dict[str, bytes]:
    handler: Any = server.RequestHandlerClass
    handler.answers[NOTE] = MINE
    return handler.answers


@pytest.fixture
def start(server: HTTPServer) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> psutil.Process:
        environment = os.environ | {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_port),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        started.append(subprocess.Popen([sys.executable, "-c", RANK, *arguments], env=environment))
        return psutil.Process(started[-1].pid)

    yield begin
    for process in started:
        process.kill()
        process.wait()


def fence_of(rank: psutil.Process) -> psutil.Process:
    end = time.monotonic() + 20.0
    while not (children := rank.children()):
        assert time.monotonic() < end, "no process came beside it"
        time.sleep(0.01)
    return children[0]


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("now", [OTHER, None])
def test_a_rank_without_which_the_others_went_on_is_killed(
    now: bytes | None, is_frozen: bool, answers: dict[str, bytes], start: Any
) -> None:
    """Its number is another's, or nobody's."""
    rank = start()
    fence = fence_of(rank)
    if is_frozen:
        rank.suspend()
    if now is None:
        del answers[NOTE]
    else:
        answers[NOTE] = now
    assert rank.wait(20.0) == -signal.SIGKILL
    psutil.wait_procs([fence], timeout=20.0)
    assert not fence.is_running()


@pytest.mark.usefixtures("answers")
def test_one_that_takes_part_lives_and_so_it_does_without_a_launcher(
    server: HTTPServer, start: Any
) -> None:
    rank = start()
    fence_of(rank)
    time.sleep(GRACE_S)
    assert rank.status() == psutil.STATUS_SLEEPING
    server.shutdown()
    server.server_close()
    time.sleep(GRACE_S)
    assert rank.status() == psutil.STATUS_SLEEPING


def test_a_rank_that_starts_again_is_fenced_no_longer(
    answers: dict[str, bytes], start: Any
) -> None:
    rank = start("again")
    psutil.wait_procs([fence_of(rank)], timeout=20.0)
    del answers[NOTE]
    time.sleep(GRACE_S)
    assert rank.status() == psutil.STATUS_SLEEPING
