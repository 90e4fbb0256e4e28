"""An end that was asked for: SIGTERM, Ctrl-C or a terminal that is closed (SIGHUP) lets the step in
hand end, on all ranks alike."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], object]
"""As `signal.signal` takes one."""


def hear(handler: Handler, signals: Iterable[signal.Signals] = SIGNALS) -> Callable[[], None]:
    """Have ``handler`` called on ``signals``, by the main thread, until what is returned is called.

    Once, and on Ctrl-C again: batch systems, launchers and a terminal that closes tell a process
    several times, which is not to disturb what the first has begun. The end of a terminal is not
    heard under nohup, and what is printed after it goes nowhere.
    """
    is_heard = False

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal is_heard
        if is_heard and number != signal.SIGINT:
            return
        is_heard = True
        _leave_lost_outputs()
        handler(number, frame)

    before = {
        one: signal.signal(one, heard)
        for one in signals
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN
    }

    def end() -> None:
        for one, handler_before in before.items():
            signal.signal(one, handler_before)

    return end


def tolerate_lost_outputs() -> None:
    """Have what Python prints go nowhere, without an error, when nobody reads it any more."""
    sys.stdout, sys.stderr = _Tolerant(sys.stdout), _Tolerant(sys.stderr)


class _Tolerant:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(BrokenPipeError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self._stream.flush()


class StoppedError(Exception):
    """The job has saved where it is and ends; ``status`` is what a shell expects of the signal."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.status = 128 + received


class StopRequest:
    """While entered, the first of `SIGNALS` is noted in `received`; a Ctrl-C after it interrupts.

    For the main thread, which alone hears signals, and not before what it calls outside Python has
    returned.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> StopRequest:
        self._end = hear(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave_lost_outputs() -> None:
    """Print to nowhere in place of a terminal that is gone, or a pipe that nobody reads any more,
    which would be an error before the job has saved where it is."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]  # pytest has a copy
    except OSError:
        descriptors = [1, 2]
    for descriptor in descriptors:
        with suppress(OSError):  # the signal counts
            if _is_lost(descriptor):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor, inheritable=os.get_inheritable(descriptor))
                os.close(null)


def _is_lost(descriptor: int) -> bool:
    place = os.readlink(f"/proc/self/fd/{descriptor}")
    if descriptor in (1, 2) and place.startswith(("pipe:", "socket:")):
        poll = select.poll()
        poll.register(descriptor, 0)
        return bool(poll.poll(0))  # of nothing but its end
    if not place.startswith(("/dev/pts/", "/dev/tty")):
        return False
    try:
        os.write(descriptor, b"")
    except OSError as error:
        return error.errno == errno.EIO
    return False
