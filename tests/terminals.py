"""A terminal that a test can close, as the end of a login does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

_TAKE = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal this session's own, so that its end is told to what comes in this place,
even where the tests run under nohup."""


class Terminal:
    """`close` it, or leave the ``with`` statement."""

    def __enter__(self) -> Terminal:
        self._own, self._end = pty.openpty()
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end)
        self.close()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """The session's first process, ``command``'s program by its whole path."""
        return subprocess.Popen(
            [sys.executable, "-c", _TAKE, *command],
            stdin=self._end,
            stdout=self._end,
            stderr=self._end,
            start_new_session=True,
            **options,
        )

    def read_to(self, text: str) -> str:
        """What is printed there until ``text`` has come."""
        read = ""
        while text not in read:
            read += os.read(self._own, 1000).decode(errors="replace")
        return read

    def close(self) -> None:
        """Let go of it: the kernel tells the session."""
        if self._is_open:
            self._is_open = False
            os.close(self._own)
