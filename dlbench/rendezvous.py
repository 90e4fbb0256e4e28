"""The HTTP server of Horovod's launcher: it gives the ranks of an elastic job their numbers, and
keeps what they leave there for each other until the ranks change."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from contextlib import suppress

from dlbench.errors import UserError

NOTES = "dlbench"
"""What the ranks leave lies under this name: ``final``, that another start would end alike;
``lost``, that a rank has left; ``here-R``, which process has come as rank R."""


def note(what: str, content: bytes = b"1") -> None:
    """Leave word for the others, if the launcher is still there."""
    with suppress(UserError):  # then nobody asks either
        ask(f"{NOTES}/{what}", content=content)


def noted(what: str) -> bytes | None:
    """The content of what a rank has left; None if none has, or the ranks have changed since."""
    return ask(f"{NOTES}/{what}")


def ask(path: str, timeout: float = 30.0, content: bytes | None = None) -> bytes | None:
    """GET, or PUT the ``content``, on the launcher's server; None where it has nothing.

    `UserError` where it does not answer within ``timeout`` seconds.
    """
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]
    port = os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]
    request = urllib.request.Request(
        f"http://{address}:{port}/{path}", content, method="GET" if content is None else "PUT"
    )
    # No proxy: the address is of the ranks' own network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.read()
    except urllib.error.HTTPError:
        return None
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"Horovod's launcher does not answer ({error}): it has ended the job, for want of "
            "hosts or ranks, or is out of reach; the same command goes on from the last checkpoint"
        ) from error
