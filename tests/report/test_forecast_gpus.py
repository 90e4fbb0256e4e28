"""Forecasts of launches on several GPUs, whose steps do not tell what they waited for others.

There is no GPU here: the records are made up, with the wait unknown where there are several ranks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report.forecast_records import COMPUTE, GRADIENTS, TRUE, launch, launches, record

from dlbench.errors import UserError
from dlbench.report.__main__ import main
from dlbench.report.cost_model import Launch
from dlbench.report.forecast import LEVEL, forecast
from dlbench.report.forecast_launches import usable
from dlbench.report.records import Record


def on_gpus(made: list[Launch]) -> list[Record]:
    return [
        record(one, number, None if np.isinf(one.link or 0.0) else one.link, one.ranks == 1)
        for number, one in enumerate(made)
    ]


def test_what_is_exposed_is_what_one_rank_takes_less() -> None:
    made = launches(np.random.default_rng(0), noise=1e-9)
    found = usable(on_gpus(made)).launches
    assert len(found) == len(made)
    for one, true in zip(found, made, strict=True):
        assert one.exposed_s == pytest.approx(true.exposed_s, rel=1e-6)
        assert one.waits_seen == (one.ranks == 1)
    (told,) = forecast(found, [6], 5e8, draws=20)
    exposed = TRUE.exposed_s(GRADIENTS, COMPUTE, 6, 5e8)
    assert told.exposed_s.middle == pytest.approx(exposed, rel=1e-2)
    assert told.compute_s.middle == pytest.approx(COMPUTE, rel=1e-6)


def test_the_interval_holds_further_launches() -> None:
    """At the stated rate or more: with few launches of one rank it is wider than it has to be."""
    held = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        fitted = usable(on_gpus(launches(generator))).launches
        (made,) = forecast(fitted, [6], 5e8, draws=200)
        seen = [launch(6, 5e8, generator) for _ in range(10)]
        held.append(np.mean([made.step_s.holds(one.step_s) for one in seen]))
    assert np.mean(held) > LEVEL - 0.06


def test_without_launches_of_one_rank_they_are_asked_for() -> None:
    found = on_gpus(launches(np.random.default_rng(0), (2,)))
    with pytest.raises(UserError) as told:
        usable(found)
    assert (
        "steps of scaling-weak/segnet/float32 at batch 4 on 2 GPUs do not tell what they waited "
        "for others, so the work of a rank is taken from launches of one, and these files hold "
        "none: launch pytest benchmarks/bench_scaling.py --ranks=1,2"
    ) in str(told.value)
    with pytest.raises(UserError, match="hold no 4 launches of other"):
        usable(found, "other")


def test_the_page_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    paths = []
    for number, one in enumerate(
        on_gpus([launch(ranks, 1e9, generator) for ranks in (1, 2, 3) for _ in range(5)])
    ):
        paths.append(str(tmp_path / f"{number:02d}.json"))
        Path(paths[-1]).write_text(one.model_dump_json(by_alias=True))
    arguments = ["forecast", *paths[:10], "--ranks=3", "--measured", *paths[10:]]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "Compute is a rank's own work as measured on one rank: the forecast" in text
    assert "On GPUs the waiting cannot be seen within a step: compute is that of one rank" in text
    (beside,) = [line for line in text.splitlines() if line.startswith("| 3 ") and "/5" in line]
    cells = [cell.strip() for cell in beside.split("|")]
    assert cells[5] == cells[11] == "5/5"
    assert cells[7:9] == ["–", "–"], "their own work is not measured"
    assert main([*arguments, "--load", *paths[10:]]) == 2
    assert "give launches on one rank each, started side by side" in capsys.readouterr().err
