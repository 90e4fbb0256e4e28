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

from dlbench import fencing

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


def until(condition: Any) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


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


def test_one_that_takes_part_lives_and_so_it_does_without_a_launcher(
    server: HTTPServer, handler: Any, start: Any
) -> None:
    rank = start()
    fence = fence_of(rank)
    wait_for_questions(handler)
    assert not is_over(rank)
    server.shutdown()
    server.server_close()
    time.sleep(2 * fencing.MISSES * PERIOD_S)
    assert not is_over(fence)
    assert not is_over(rank)


def test_a_rank_that_starts_again_is_fenced_no_longer(handler: Any, start: Any) -> None:
    rank = start("again")
    fence = fence_of(rank)
    until(lambda: is_over(fence))
    del handler.answers[NOTE]
    assert not is_over(rank)
