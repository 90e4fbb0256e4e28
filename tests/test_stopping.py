"""What a process makes of signals while it may not be interrupted."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

from dlbench.stopping import SIGNALS, StopRequest, hear


def test_the_first_signal_is_noted_and_another_sigterm_ignored() -> None:
    """Batch systems and launchers tell a rank at the same time."""
    before = [signal.getsignal(one) for one in SIGNALS]
    with StopRequest() as stop:
        assert stop.received is None
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert [signal.getsignal(one) for one in SIGNALS] == before


@pytest.mark.parametrize(("before", "is_noted"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_terminal_that_is_closed_is_noted_but_under_nohup(
    before: signal.Handlers, is_noted: bool
) -> None:
    others = signal.signal(signal.SIGHUP, before)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received == (signal.SIGHUP if is_noted else None)
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, others)


def test_what_a_signal_has_begun_no_other_disturbs_but_ctrl_c() -> None:
    """A shell tells its jobs that the terminal closes, and then the kernel does."""

    def leave(number: int, frame: object) -> None:
        heard.append(number)
        raise SystemExit(number)

    heard: list[int] = []
    end = hear(leave)
    try:
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
    finally:
        end()
    assert heard == [signal.SIGTERM, signal.SIGINT]


def test_a_signal_counts_where_no_more_files_can_be_open() -> None:
    own, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with StopRequest() as stop:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            signal.raise_signal(signal.SIGTERM)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (own, most))
        assert stop.received == signal.SIGTERM


@pytest.mark.parametrize("is_read", [True, False])
def test_a_pipe_that_nobody_reads_any_more_is_left(is_read: bool) -> None:
    """As that of a rank whose launcher has ended; what is printed then is to be no error."""
    program = (
        "import os, signal\n"
        "from dlbench.stopping import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    input()\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('told', flush=True)\n"
        "    os._exit(5)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        if not is_read:
            process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert not is_read or process.stdout.read() == b"told\n"
        assert process.wait(60) == 5


def test_what_nobody_reads_is_no_error_on_another_host() -> None:
    program = (
        "import sys\n"
        "from dlbench import stopping\n"
        "stopping.tolerate_lost_outputs()\n"
        "input()\n"
        "for _ in range(3):\n"
        "    print('told', flush=True)\n"
        "print('end', file=sys.stderr, flush=True)\n"
        "import os; os._exit(5)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stderr.read() == b"end\n"
        assert process.wait(60) == 5


def test_a_second_ctrl_c_interrupts() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
