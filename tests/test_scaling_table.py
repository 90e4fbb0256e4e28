"""The table of one process against ranks, of launches that are made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import launching, scaling_table
from benchmarks.launching import Spec
from benchmarks.rounds import read


@pytest.fixture
def over() -> list[str | None]:
    """The hosts of each launch."""
    return []


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, over: list[str | None]) -> list[tuple[Spec, int]]:
    """What was launched, by a stand-in: the n-th launch takes n s, and a rank waits for a tenth."""
    launched: list[tuple[Spec, int]] = []

    def launch(spec: Spec, ranks: int, hosts: str | None) -> dict[str, Any]:
        over.append(hosts)
        launched.append((spec, ranks))
        samples = spec.experiment["training"]["batch"] * spec.steps
        wall_s = float(len(launched))
        rank = {"samples": samples, "wall_s": wall_s, "comm_wait_s": wall_s / 10, "peak_bytes": {}}
        return {"ranks": [rank] * ranks}

    monkeypatch.setattr(launching, "launch", launch)
    return launched


def test_ways_share_the_cores_and_the_batch(
    launches: list[tuple[Spec, int]], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    scaling_table.measured(out, 2, ["shares", "overlap"], ["deepvel"])
    assert [ranks for _, ranks in launches] == [1, 2, 2, 2, 2, 1, 2, 2]
    assert [spec.kind for spec, _ in launches[2:4]] == ["train_and_sum", "train_then_sum"]
    for spec, ranks in launches:
        training = spec.experiment["training"]
        assert training["batch"] * ranks == scaling_table.GLOBAL_BATCH
    threads = [spec.experiment["training"]["threads"] * ranks for spec, ranks in launches]
    assert len(set(threads)) <= 2, "as many on all ranks together, but one each where cores lack"
    scaling_table.measured(out, 2, ["shares"], ["deepvel"])
    assert len(launches) == 8, "what is done stays"


def test_ways_over_hosts_are_cases_of_their_own(
    launches: list[tuple[Spec, int]], over: list[str | None], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    place = scaling_table.Place("a:1,b:1", "1gbit", threads=1)
    for where in (scaling_table.HERE, place):
        scaling_table.measured(out, 1, ["compression"], ["segnet_small"], where)
    assert over == [None] * 3 + ["a:1,b:1"] * 3
    assert {spec.experiment["model"]["name"] for spec, _ in launches} == {"segnet"}
    assert launches[-1][0].experiment["training"]["threads"] == 1
    cases = [row.split(" | ")[0] for row in scaling_table.table(read(out)).splitlines()[2:]]
    here = "| compression segnet_small"
    assert cases == [here] * 3 + [f"{here} on a:1,b:1 at 1gbit, threads=1"] * 3


def test_ranks_share_the_cores_of_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_table.os, "sched_getaffinity", lambda _: range(8))
    threads = {
        hosts: [scaling_table.Place(hosts).threads_of(ranks) for ranks in (1, 2)]
        for hosts in (None, "a:1,b:1", "a:2,b:2")
    }
    assert threads == {None: [8, 4], "a:1,b:1": [8, 8], "a:2,b:2": [8, 4]}


def test_table(launches: list[tuple[Spec, int]], tmp_path: Path) -> None:
    """Rounds take 1 and 2 s, then in turned order 4 and 3: ratios of 1/2 and 4/3."""
    out = tmp_path / "out.jsonl"
    scaling_table.measured(out, 2, ["shares"], ["deepvel"])
    samples = scaling_table.GLOBAL_BATCH * scaling_table.STEPS["deepvel"]
    first, second = (samples + samples / 4) / 2, (samples / 2 + samples / 3) / 2
    assert scaling_table.table(read(out)).splitlines()[2:] == [
        f"| shares deepvel | 1 process | 2 | {first:.3f} |  | 10.0% |",
        f"| shares deepvel | 2 ranks | 2 | {second:.3f} | 0.917 (0.500 to 1.333) | 10.0% |",
    ]


def test_table_without_the_first_way(launches: list[tuple[Spec, int]], tmp_path: Path) -> None:
    """Where no launch of it succeeded: nothing to divide by, and no row of its own."""
    out = tmp_path / "out.jsonl"
    scaling_table.measured(out, 1, ["shares"], ["deepvel"])
    left = [one for one in read(out) if one["peer"] != "1 process"]
    samples = scaling_table.GLOBAL_BATCH * scaling_table.STEPS["deepvel"]
    assert scaling_table.table(left).splitlines()[2:] == [
        f"| shares deepvel | 2 ranks | 1 | {samples / 2:.3f} |  | 10.0% |"
    ]


def test_the_committed_table_is_that_of_its_launches() -> None:
    (launched,) = (Path(__file__).parent.parent / "reports").glob("scaling_*/launches.jsonl")
    page = (launched.parent / "scaling.md").read_text(encoding="utf-8").splitlines()
    rows = scaling_table.table(read(launched)).splitlines()
    assert len(rows) > 8
    assert [row for row in rows if row not in page] == []
