"""The first process of a host of `hosts.py`: ``python ssh_server.py FOLDER NAME``.

Gives the host its name, its hosts file and its ssh client's settings, prints "ready", and lets in
by ssh whoever has the key FOLDER/key. Ends, and the host with it, when its standard input does. As
with sshd, what a command has started lives on when the connection is lost.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import asyncssh

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
"""As little as sshd gives: what a rank needs beyond it, the launcher has to bring."""


async def execute(process: asyncssh.SSHServerProcess[bytes]) -> None:
    assert process.command is not None, "there is no shell to log in to"
    child = await asyncio.create_subprocess_shell(
        process.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    await process.redirect(stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await process.stdout.drain()
    await process.stderr.drain()
    process.exit(status if status >= 0 else 128 - status)


async def serve(folder: Path, name: str) -> None:
    socket.sethostname(name)
    for file, place in (("hosts", "/etc/hosts"), ("ssh_config", "/etc/ssh/ssh_config")):
        subprocess.run(["mount", "--bind", folder / file, place], check=True)
    await asyncssh.listen(
        port=22,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        authorized_client_keys=str(folder / "key.pub"),
        process_factory=execute,
        encoding=None,
    )
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
