"""Start a training again when it dies: ``python -m dlbench.supervise COMMAND``.

    python -m dlbench.supervise --max-restarts 3 horovodrun -np 4 python -m dlbench.train X.yaml

On one host, Horovod ends the whole job when one of its ranks dies, and does not start another. The
same command goes on from the newest whole checkpoint; ``resume=false`` counts for the first start
alone. It is not given again after a success, after an error that only the user can mend, or when it
was told to stop: SIGTERM and Ctrl-C are handed on, and so is, as SIGTERM, the end of the terminal
(SIGHUP; not under nohup) or of this process.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from dlbench import processes
from dlbench.errors import FINAL, JOB, UserError, exit_status
from dlbench.stopping import StopRequest

BEYOND = 20.0
"""Seconds that a stopped job has to end by itself, beyond what its ranks have to save."""
POLL = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the first restart, doubled with each: what killed a rank may last a while."""


def supervise(command: list[str], restarts: int) -> int:
    """Run ``command`` until it is done, and return its last status."""
    pause, job = FIRST_PAUSE, secrets.token_hex(8)
    grace = processes.grace_s() + BEYOND
    for left in range(restarts, -1, -1):
        status, is_last = _run(command, job, grace)
        if is_last:
            return status
        told = f"{shlex.join(command)} ended with status {status}"
        if not left:
            _tell(f"{told}; it has been started {restarts + 1} times, and is not again")
            return status
        _tell(f"{told}; again in {pause:.0f} s (restarts left: {left})")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("the last run returns")


def _run(command: list[str], job: str, grace: float) -> tuple[int, bool]:
    """The command's status as a shell tells it, and whether to leave it at that; ``grace`` are
    the seconds that it has to end when it is told to."""
    with tempfile.TemporaryDirectory(prefix="dlbench-") as folder, StopRequest() as stop:
        final = Path(folder) / "final"
        variables = os.environ | {FINAL: str(final), JOB: job}
        try:
            process = subprocess.Popen(
                command,
                env=variables,
                start_new_session=True,
                preexec_fn=partial(processes.end_with, os.getpid()),
            )
        except OSError as error:
            raise UserError(f"cannot start {command[0]}: {error.strerror}") from None
        end = time.monotonic()
        try:
            while process.poll() is None and stop.received is None:
                time.sleep(POLL)
            end = time.monotonic() + grace
            if stop.received is not None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:
            processes.end(process, max(end - time.monotonic(), 1.0))
        status = process.returncode
        is_last = status == 0 or final.exists() or stop.received is not None
        return (128 - status if status < 0 else status), is_last


def _tell(text: str) -> None:
    print(f"dlbench.supervise: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Parse, supervise, and return the command's last status."""
    parser = argparse.ArgumentParser(
        "python -m dlbench.supervise", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--max-restarts", type=int, default=3, metavar="N", help="3 by default")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    chosen = parser.parse_args(arguments)
    if not chosen.command or chosen.max_restarts < 0:
        parser.error("give the command that trains, and --max-restarts of 0 or more before it")
    return exit_status("dlbench.supervise", lambda: supervise(chosen.command, chosen.max_restarts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
