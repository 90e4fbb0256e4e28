"""What the benchmarks make of --ranks and --hosts."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import bench_allreduce, bench_scaling, profiles
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


def parameters(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, places: int, **options: Any
) -> list[Any]:
    """What a benchmark has for ``ranks`` where there are so many GPUs, made up."""
    for one in (profiles, module):
        monkeypatch.setattr(one, "places", lambda: places)
    given = {"profile": "default", **options}
    found: dict[Any, list[Any]] = {}
    metafunc = SimpleNamespace(
        config=SimpleNamespace(getoption=given.get), parametrize=found.__setitem__
    )
    module.pytest_generate_tests(metafunc)
    return found.get("ranks") or [case.values[2] for case in next(iter(found.values()))]


def test_a_single_gpu_sums_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second rank would find none, and the benchmark fail."""
    assert parameters(bench_allreduce, monkeypatch, places=4) == [2]
    (skipped,) = parameters(bench_allreduce, monkeypatch, places=1)
    (mark,) = skipped.marks
    assert mark.name == "skip"
    assert "needs two ranks, and here is a place for 1" in mark.kwargs["reason"]
    assert parameters(bench_allreduce, monkeypatch, places=1, ranks=(2,)) == [2], "as asked for"


def test_the_smoke_test_takes_as_many_ranks_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = {"benchmark_disable": True}
    assert parameters(bench_scaling, monkeypatch, places=2, **smoke) == [2]
    assert parameters(bench_scaling, monkeypatch, places=1, **smoke) == [1]
