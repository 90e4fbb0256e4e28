"""The HTTP server of Horovod's launcher: it gives the ranks of an elastic job their numbers, and
keeps what they leave there for each other until the ranks change."""

from __future__ import annotations

import errno
import http
import http.client
import os
import socket
from contextlib import suppress

from dlbench.errors import UserError

NOTES = "dlbench"
"""What the ranks leave lies under this name: ``final``, that another start would end alike;
``lost``, that a rank has left; ``here-R``, which process has come as rank R."""
CONNECT_S = 30.0
KEEPALIVE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 20,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
}
"""A rank waits long for its new number: a launcher whose host is gone is found in two minutes, and
no firewall takes the connection for one that nobody uses."""
SILENT = (
    "Horovod's launcher does not answer ({}): it has ended the job, for want of hosts or ranks, or "
    "is out of reach; the same command goes on from the last checkpoint"
)


def is_here() -> bool:
    """Whether the launcher runs on this host; also where no launcher is told of."""
    address = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
    with socket.socket() as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True


def note(what: str, content: bytes = b"1") -> None:
    """Leave word for the others, if the launcher is still there."""
    with suppress(UserError):  # then nobody asks either
        ask(f"{NOTES}/{what}", content=content)


def noted(what: str) -> bytes | None:
    """The content of what a rank has left; None if none has, or the ranks have changed since."""
    return ask(f"{NOTES}/{what}")


def ask(path: str, timeout_s: float = 30.0, content: bytes | None = None) -> bytes | None:
    """GET, or PUT the ``content``, on the launcher's server; None where it has nothing.

    `UserError` where it does not answer within ``timeout_s``, or its host is gone.
    """
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]
    port = int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    connection = http.client.HTTPConnection(address, port, timeout=CONNECT_S)
    try:
        try:
            connection.connect()
        except TimeoutError as error:
            # It has no number. A launcher that is stopped, which is none that has ended, can be
            # connected to for a while.
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
        for option, value in KEEPALIVE.items():
            connection.sock.setsockopt(*option, value)
        connection.sock.settimeout(timeout_s)
        connection.request("GET" if content is None else "PUT", f"/{path}", content)
        answer = connection.getresponse()
        found = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(SILENT.format(error)) from error
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.NOT_FOUND:
        return None
    if answer.status != http.HTTPStatus.OK:
        raise UserError(SILENT.format(f"{answer.status} {answer.reason}"))
    return found
