"""Which launches a forecast is made of, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.forecast_records import launch, record, written

from dlbench.errors import UserError
from dlbench.report.__main__ import main
from dlbench.report.forecast_launches import chosen_link, parsed_rate, rate, usable
from dlbench.report.records import Record


def refusal(found: list[Record], bandwidth: float | None = None, workload: Any = None) -> str:
    with pytest.raises(UserError) as told:
        chosen_link(usable(found, workload)[1], bandwidth)
    return str(told.value)


def test_what_cannot_be_forecast_is_told() -> None:
    generator = np.random.default_rng(0)
    slow = [record(launch(2, 1e9, generator), number, 1e9) for number in range(5)]
    fast = [record(launch(2, 1e10, generator), number, 1e10) for number in range(5)]
    assert "hold no 4 launches of a workload on several ranks" in refusal(slow[:3])
    assert "hold no 4 launches of other on several ranks" in refusal(slow, workload="other")
    assert "several links (10gbit, 1gbit)" in refusal(slow + fast)
    assert "at least two links are needed to forecast for 10gbit" in refusal(slow, 1e10)
    other = slow[0].setup.model_copy(update={"name": "B"})
    again = [one.model_copy(update={"setup": other}) for one in fast]
    told = refusal(slow + again)
    assert "these files hold scaling-weak/segnet/float32 at batch 4, A; scaling-weak" in told
    assert len(chosen_link(usable(slow + fast)[1], 5e9)[0]) == 10
    for one in (*slow[:4], *fast[:3]):
        one.ranks[0].conditions["link_bits_per_s"] = None
    assert "only 3 launches of several ranks are over a known link" in refusal(slow + fast, 5e9)


@pytest.mark.parametrize("option", ["--load", "--measured"])
def test_other_launches_are_not_set_beside_the_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    *fitted, last = written(tmp_path)
    other = json.loads(last.read_text())
    other["workload"]["precision"] = "mixed"
    last.write_text(json.dumps(other))
    arguments = ["--ranks=3", "--bandwidth=1gbit", option, str(last)]
    assert main(["forecast", *map(str, fitted), *arguments]) == 2
    told = capsys.readouterr().err
    assert f"the files of {option} hold no launch of scaling-weak/segnet/float32" in told


@pytest.mark.parametrize("text", ["10", "gbit", "-1gbit", "0mbit", "nanmbit", "infgbit", "1 Gbps"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="no rate of a link; write 10gbit"):
        parsed_rate(text)
    assert parsed_rate("2.5gbit") == 2.5e9
    assert rate(2.5e9) == "2.5gbit"
