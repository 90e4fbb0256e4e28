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


def test_table(launches: list[str], tmp_path: Path) -> None:
    """Ratios are those within a round: 1 / 0.5 in each, whatever the round's speed."""
    out = tmp_path / "twins.jsonl"
    twin_table.measure(out, 3, [CASE], 1)
    rows = twin_table.table(twin_table.read(out)).splitlines()[2:]
    assert rows == [
        f"| {CASE} | ours | 3 | 1.000 |  | 2.00 |",
        f"| {CASE} | torch_tuned | 3 | 2.000 | 2.00 (2.00 to 2.00) | 2.00 |",
    ]
