"""Hosts of namespaces: what they say that they need, and what they leave."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ranks import hosts


def test_shares_of_the_cores_need_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "QUOTA", tmp_path / "none")
    if (other := hosts.missing()) is not None:
        pytest.skip(other)
    told = hosts.missing(cores=True)
    assert told is not None
    assert f"{tmp_path / 'none'} cannot be written" in told
    monkeypatch.setattr(hosts, "QUOTA", tmp_path)
    assert hosts.missing(cores=True) is None


def test_a_group_in_use_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders stand in for groups: one that holds something is not removed either."""
    monkeypatch.setattr(hosts, "QUOTA", tmp_path)
    made = hosts.Hosts(tmp_path / "hosts", "abc")
    groups = [tmp_path / f"dlbench-{os.getpid()}-{name}" for name in "ac"]
    for group in groups:
        group.mkdir()
    (groups[0] / "busy").touch()
    gone = subprocess.Popen(["true"])
    gone.wait()
    made._first["a"] = gone.pid
    made.__exit__()
    assert [group.exists() for group in groups] == [True, False]
