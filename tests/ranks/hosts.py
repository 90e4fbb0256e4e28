"""Separate hosts on this machine, of Linux namespaces: each has an address, a name, processes, a
sshd and a link of its own, whose rate is set and which can be cut.

    with Hosts(folder, "abc", rate="1gbit") as hosts:
        process = hosts.start("a", ["horovodrun", "-H", "a:1,b:1,c:1", "-np", "3", ...])
        hosts.cut("c")

Files are shared, as on a cluster with one file system. Nothing of it but groups for shares of the
cores has a name outside of itself: when the first process of a host ends, which it does with this
one, the kernel ends all others there and removes the network.

    python tests/ranks/hosts.py FOLDER RATE CORES COMMAND ...    runs a command on "a" of three
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
APART = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
TOOLS = ("unshare", "nsenter", "ip", "tc", "ssh", "mount")
QUOTA = Path("/sys/fs/cgroup/cpu")
"""Where the kernel's groups of processes with a share of the cores lie (cgroup, version 1)."""
PERIOD_US = 10_000
"""A host that has had its share waits for the end of so long: less than a step takes."""
SHARES = 16 * 1024
TBF = "rate {} burst 256kb latency 50ms"
"""A burst is at least what one tick of the kernel's slowest clock lets through at 1 Gbit/s, so that
the rate is kept; a queue, as a switch's, holds 50 ms."""
SSH_CONFIG = "Host *\n    IdentityFile {}\n    UserKnownHostsFile /dev/null\n    LogLevel ERROR\n"


def missing(cores: bool = False) -> str | None:
    """What hosts (with a share of the ``cores``) need and this machine lacks; None if nothing."""
    if importlib.util.find_spec("asyncssh") is None:
        return (
            "asyncssh is not installed: .venv/bin/pip install -c install/constraints.txt asyncssh"
        )
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{lacking[0]} is not installed (Debian: iproute2, util-linux, openssh-client)"
    if os.geteuid() != 0:
        return "namespaces with networks of their own are for root"
    tried = "ip link add p type veth peer name q && tc qdisc add dev p root tbf " + TBF.format(
        "1gbit"
    )
    if subprocess.run(["unshare", *APART, "sh", "-c", tried], capture_output=True).returncode:
        return "this kernel or container lets nobody make namespaces, veth links or tbf"
    if cores and not os.access(QUOTA, os.W_OK):
        return f"{QUOTA} cannot be written: shares of the cores are of cgroup version 1"
    return None


class Hosts:
    """The hosts of ``names``, letters, with 10.77.0.1 the address of the first.

    ``rate`` is that of every host's link in each direction, as tc writes it; ``cores`` the share of
    the machine's cores that each host has, all by default.
    """

    def __init__(
        self, folder: Path, names: str = "abc", rate: str = "1gbit", cores: float | None = None
    ) -> None:
        self.folder, self.names, self.rate, self._cores = folder.resolve(), names, rate, cores
        self._processes: list[subprocess.Popen[Any]] = []
        self._first: dict[str, int] = {}

    def __enter__(self) -> Hosts:
        try:
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()  # unshare takes the host with it
        for process in self._processes:
            process.wait()
        for pid in self._first.values():
            with suppress(psutil.Error):
                psutil.Process(pid).wait(timeout=10)
        for name in self.names:
            with suppress(OSError):  # none, or still in use: the others go all the same
                self._group(name).rmdir()

    def start(self, host: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process on ``host``, in the folder; its HOME is there too."""
        options.setdefault("cwd", self.folder)
        environment = options.pop("env", os.environ) | {"HOME": str(self.folder)}
        inside = self._inside(host, "net", "uts", "mount", "pid")
        command = [*inside, f"--wd={options['cwd']}", "--", *command]
        if self._cores is not None:
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["sh", "-c", enter, str(self._group(host) / "cgroup.procs"), *command]
        process = subprocess.Popen(command, env=environment, **options)
        self._processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[Any], timeout_s: float) -> int:
        """The status of what `start` has started; `subprocess.TimeoutExpired` if it goes on."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                return process.wait(min(5.0, max(end - time.monotonic(), 0.0)))
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    raise
            # nsenter stops itself where its child was stopped, and stays so when all go on.
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)

    def shape(self, host: str, rate: str) -> None:
        """Set the rate of ``host``'s link, in each direction."""
        tbf = ["root", "tbf", *TBF.format(rate).split()]
        _run(*self._inside(host, "net"), "tc", "qdisc", "replace", "dev", "eth0", *tbf)
        _run(*self._switch, "tc", "qdisc", "replace", "dev", f"port-{host}", *tbf)

    def cut(self, host: str) -> None:
        """Pull the cable: nobody is told."""
        _run(*self._switch, "ip", "link", "set", f"port-{host}", "down")

    def join(self, host: str) -> None:
        """Plug it in again."""
        _run(*self._switch, "ip", "link", "set", f"port-{host}", "up")

    def running(self, host: str) -> list[psutil.Process]:
        """What runs on ``host`` beside its sshd."""
        first = self._first[host]
        place = os.readlink(f"/proc/{first}/ns/pid")
        found = []
        for process in psutil.process_iter():
            try:
                inside = os.readlink(f"/proc/{process.pid}/ns/pid") == place
                if inside and process.pid != first and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def left(self, within_s: float = 10.0) -> list[psutil.Process]:
        """What still runs on the hosts after so long; Python's own helpers end shortly after a
        job."""
        end = time.monotonic() + within_s
        while left := [one for host in self.names for one in self.running(host)]:
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        return left

    def address(self, host: str) -> str:
        return f"10.77.0.{self.names.index(host) + 1}"

    def _set_up(self) -> None:
        import asyncssh

        self.folder.mkdir(parents=True, exist_ok=True)
        for group in QUOTA.glob("dlbench-*"):  # the one thing that a killed test leaves
            if not psutil.pid_exists(int(group.name.split("-")[1])):
                with suppress(OSError):  # in use: of another container, whose pids are not ours
                    group.rmdir()
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.folder / "key")
        (self.folder / "key").chmod(0o600)
        key.write_public_key(self.folder / "key.pub")
        lines = [f"{self.address(name)} {name}\n" for name in self.names]
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(self.folder / "key"))

        # The switch's namespace lives as long as a process that reads what nobody writes.
        switch = self._begin(["unshare", "--net", "cat"])
        self._switch = ["nsenter", f"--target={switch.pid}", "--net"]
        _until(lambda: _namespace(switch.pid, "net") != _namespace(os.getpid(), "net"))
        _run(*self._switch, "ip", "link", "add", "switch", "type", "bridge")
        _run(*self._switch, "ip", "link", "set", "switch", "up")
        for name in self.names:
            self._add(name)

    def _add(self, name: str) -> None:
        server = [sys.executable, str(ROOT / "tests/ranks/ssh_server.py"), str(self.folder), name]
        process = self._begin(["unshare", *APART, *server])
        assert process.stdout is not None
        answer = process.stdout.readline()
        assert answer == b"ready\n", f"the sshd of {name} did not start: {answer!r}"
        (child,) = psutil.Process(process.pid).children()
        self._first[name] = child.pid
        if self._cores is not None:
            group = self._group(name)
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(self._cores * PERIOD_US)))
            # What a host may have is its own: who else is there waits.
            (group / "cpu.shares").write_text(str(SHARES))
            (group / "cgroup.procs").write_text(str(child.pid))
        # The end at the host is made there, so that nothing ever lies outside.
        end = ["peer", "name", "eth0", "netns", str(child.pid)]
        _run(*self._switch, "ip", "link", "add", f"port-{name}", "type", "veth", *end)
        _run(*self._switch, "ip", "link", "set", f"port-{name}", "master", "switch", "up")
        inside = self._inside(name, "net")
        _run(*inside, "ip", "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        _run(*inside, "ip", "link", "set", "eth0", "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        self.shape(name, self.rate)

    def _begin(self, command: list[str]) -> subprocess.Popen[Any]:
        process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._processes.append(process)
        return process

    def _inside(self, host: str, *kinds: str) -> list[str]:
        return ["nsenter", f"--target={self._first[host]}", *(f"--{kind}" for kind in kinds)]

    def _group(self, name: str) -> Path:
        return QUOTA / f"dlbench-{os.getpid()}-{name}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _until(condition: Any, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def main(folder: str, rate: str, cores: str, *command: str) -> int:
    with Hosts(Path(folder), rate=rate, cores=float(cores)) as hosts:
        process = hosts.start("a", command, cwd=Path.cwd())
        return hosts.wait(process, float("inf"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
