"""What the benchmarks make of --ranks and --hosts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.profiles import most_on_a_host


@pytest.mark.parametrize(
    ("hosts", "ranks", "most"),
    [(None, (3,), 3), ("a:1,b:1,c:1", (3,), 1), ("a:1,b:4", (5,), 4), ("a:4,b:4", (2,), 2)],
)
def test_ranks_that_share_a_hosts_cores(
    hosts: str | None, ranks: tuple[int, ...], most: int
) -> None:
    options = {"hosts": hosts, "ranks": ranks}
    config: Any = SimpleNamespace(getoption=options.get)  # pytest's own needs a session
    assert most_on_a_host(config) == most
