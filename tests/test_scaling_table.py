"""The table of one process against ranks, of launches that are made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import launching, scaling_table
from benchmarks.launching import Spec
from benchmarks.rounds import read


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Spec, int]]:
    """What was launched, by a stand-in: the n-th launch takes n s, and a rank waits for a tenth."""
    launched: list[tuple[Spec, int]] = []

    def launch(spec: Spec, ranks: int) -> dict[str, Any]:
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
