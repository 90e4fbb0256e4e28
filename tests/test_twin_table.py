"""The table of our networks against their twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import twin_run, twin_table

CASE = "deepvel-bfloat16-inference"
STEP_S = {"ours": 0.5, "torch_tuned": 1.0}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The peers that were launched, by a stand-in whose n-th launch is n times as slow."""
    launched: list[str] = []

    def launch(peer: str, *_: Any) -> dict[str, Any]:
        launched.append(peer)
        slow = launched.count(peer)
        return {
            "step_s": [STEP_S[peer] * slow] * 3,
            "peak_bytes": {"host_rss_hwm": slow * 2**30},
        }

    monkeypatch.setattr(twin_run, "launch", launch)
    return launched


def test_peers_take_turns_and_what_is_done_stays(launches: list[str], tmp_path: Path) -> None:
    out = tmp_path / "twins.jsonl"
    twin_table.measure(out, 2, [CASE], 1)
    assert launches == ["ours", "torch_tuned", "torch_tuned", "ours"]
    twin_table.measure(out, 3, [CASE], 1)
    assert launches[4:] == ["ours", "torch_tuned"]
    assert [one["round"] for one in twin_table.read(out)] == [0, 0, 1, 1, 2, 2]


def test_a_launch_that_fails_costs_itself_alone(
    launches: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So does a line that a kill has cut short; the next call makes up for both."""
    out, works = tmp_path / "twins.jsonl", twin_run.launch

    def fail(peer: str, *arguments: Any) -> dict[str, Any]:
        if peer == "ours":
            raise RuntimeError("out of memory")
        return works(peer, *arguments)

    monkeypatch.setattr(twin_run, "launch", fail)
    twin_table.measure(out, 1, [CASE], 1)
    assert [one["peer"] for one in twin_table.read(out)] == ["torch_tuned"]
    assert "ours" not in twin_table.table(twin_table.read(out)).splitlines()[2]
    out.write_text(out.read_text() + '{"round": 0, "case"')
    monkeypatch.setattr(twin_run, "launch", works)
    twin_table.measure(out, 1, [CASE], 1)
    assert sorted(one["peer"] for one in twin_table.read(out)) == ["ours", "torch_tuned"]


def test_table(launches: list[str], tmp_path: Path) -> None:
    """Ratios are those within a round: 1 / 0.5 in each, whatever the round's speed."""
    out = tmp_path / "twins.jsonl"
    twin_table.measure(out, 3, [CASE], 1)
    rows = twin_table.table(twin_table.read(out)).splitlines()[2:]
    assert rows == [
        f"| {CASE} | ours | 3 | 1.000 |  | 2.00 |",
        f"| {CASE} | torch_tuned | 3 | 2.000 | 2.00 (2.00 to 2.00) | 2.00 |",
    ]


def test_the_committed_table_is_that_of_its_launches() -> None:
    (launched,) = (Path(__file__).parent.parent / "reports").glob("twins_*/launches.jsonl")
    page = (launched.parent / "twins.md").read_text(encoding="utf-8").splitlines()
    rows = twin_table.table(twin_table.read(launched)).splitlines()
    assert len(rows) > 20
    assert [row for row in rows if row not in page] == []
