"""An end that was asked for: SIGTERM, Ctrl-C or a terminal that is closed (SIGHUP) lets the step in
hand end, on all ranks alike."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], object]


def hear(
    handler: Handler, signals: Iterable[signal.Signals] = SIGNALS
) -> dict[signal.Signals, Any]:
    """Have ``handler`` called on ``signals``, by the main thread; return what was called before.

    The end of a terminal is not heard under nohup, and what is printed after it goes nowhere.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        _leave_lost_terminal()
        handler(number, frame)

    return {
        one: signal.signal(one, heard)
        for one in signals
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN
    }


class StoppedError(Exception):
    """The job has saved where it is and ends; ``status`` is what a shell expects of the signal."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.status = 128 + received


class StopRequest:
    """While entered, the first of `SIGNALS` is noted in `received`; a Ctrl-C after it interrupts.

    A second SIGTERM does nothing: batch systems tell every process of a job, and so do launchers.
    For the main thread, which alone hears signals, and not before what it calls outside Python has
    returned.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> StopRequest:
        self._before = hear(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave_lost_terminal() -> None:
    """Print to nowhere in place of a terminal that is gone, which would be an error before the job
    has saved where it is."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # pytest has a copy of its own
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(("/dev/pts/", "/dev/tty")):
                os.write(descriptor, b"")
        except OSError as error:
            if error.errno == errno.EIO:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor, inheritable=os.get_inheritable(descriptor))
                os.close(null)
