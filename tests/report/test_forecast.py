"""The cost model on launches of known parameters: it finds them, and its intervals hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.forecast_records import COMPUTE, LINKS, TRUE, launch, launches, record, written

from dlbench.report import forecast as forecasts
from dlbench.report import forecast_page as forecasts_page
from dlbench.report.__main__ import main
from dlbench.report.cost_model import Launch, fit
from dlbench.report.forecast import LEVEL, forecast
from dlbench.report.forecast_launches import chosen_link, usable

ROOT = Path(__file__).parents[2]


def test_without_noise_the_parameters_are_found() -> None:
    found = fit([one for one in launches(np.random.default_rng(0), noise=1e-9) if one.ranks > 1])
    for name in ("wait", "hop", "host", "link", "overlap", "trailing"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-3), name


def after_the_pass(generator: np.random.Generator, **more: Any) -> list[Launch]:
    """On one host the sums come after the pass, over a link beside it."""
    return [
        launch(ranks, link, generator, sums_overlap=not np.isinf(link), **more)
        for ranks in (2, 3)
        for link in LINKS
        for _ in range(5)
    ]


def test_sums_after_the_pass_tell_nothing_of_what_it_hides() -> None:
    generator = np.random.default_rng(0)
    found = after_the_pass(generator, noise=1e-9)
    assert fit(found).overlap == pytest.approx(TRUE.overlap, rel=1e-3)
    taken_for_beside = fit([replace(one, sums_overlap=True) for one in found])
    assert abs(taken_for_beside.overlap - TRUE.overlap) > 0.05
    for link in LINKS:
        (made,) = forecast(found, [4], link, draws=20)
        seen = launch(4, link, generator, 1e-9, not np.isinf(link))
        assert made.exposed_s.middle == pytest.approx(seen.exposed_s, rel=1e-3)


@pytest.mark.parametrize("after", [0, 2, 4])
def test_the_page_tells_where_nothing_hides(after: int) -> None:
    generator = np.random.default_rng(0)
    links = [np.inf, np.inf, 1e9, 1e9]
    found = [launch(2, link, generator, sums_overlap=i >= after) for i, link in enumerate(links)]
    text = forecasts_page.markdown(found, forecast(found, [2], 1e9, draws=20), 1e9)
    assert ("hides communication, but over one host none: there" in text) == (after == 2)
    assert ("They are summed after the backward pass, which hides nothing;" in text) == (after == 4)


def test_older_records_were_summed_beside_the_pass() -> None:
    one = record(launch(2, 1e9, np.random.default_rng(0)), 0, 1e9)
    told = one.ranks[0].conditions["gradients"]
    assert isinstance(told, dict)
    for value in (True, False):
        told["sums_overlap"] = value
        assert getattr(Launch.of(one), "sums_overlap", None) is value
    del told["sums_overlap"]
    assert getattr(Launch.of(one), "sums_overlap", None) is True


def test_older_records_do_not_tell_when_their_steps_were() -> None:
    one = record(launch(2, 1e9, np.random.default_rng(0)), 0, 1e9)
    written = one.created.timestamp()
    assert getattr(Launch.of(one), "when", None) == (written - one.ranks[0].wall_s, written)
    one.ranks[0].conditions["steps_at"] = [written - 60.0, written - 50.0]
    assert getattr(Launch.of(one), "when", None) == (written - 60.0, written - 50.0)


@pytest.mark.parametrize(("counts", "link"), [((1, 2), 5e8), ((1, 2, 3), 5e8), ((1, 2, 3), 5e7)])
def test_the_interval_holds_further_launches_at_the_stated_rate(
    counts: tuple[int, ...], link: float
) -> None:
    """On ranks and over a link that were not measured, one slower than any that was."""
    held = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        (made,) = forecast(launches(generator, counts), [6], link=link, draws=200)
        seen = [launch(6, link, generator) for _ in range(10)]
        held.append(np.mean([made.step_s.holds(one.step_s) for one in seen]))
    # 40 fits: their mean is known to 0.03 or so. Of one number of ranks the interval also covers
    # what cannot be known.
    assert np.mean(held) > LEVEL - 0.06
    assert len(counts) == 2 or np.mean(held) < LEVEL + 0.06


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in written(tmp_path)]
    fitted, unseen = paths[:15], paths[15:]
    page = tmp_path / "page.md"
    arguments = ["--ranks=2,3,16", "--bandwidth=1gbit", "--measured", *unseen]
    assert main(["forecast", *fitted, *arguments, "--markdown", str(page)]) == 0
    text = capsys.readouterr().out
    assert page.read_text() == text
    assert "1 rank(s): 5; 2 rank(s) over 1gbit: 5; 2 rank(s) over one host: 5" in text
    assert "All launches of several ranks have 2" in text
    steps = [line.split("|") for line in text.splitlines() if line.startswith(("| 2 ", "| 16 "))]
    few, many = (float(row[2].split()[0]) for row in steps[:2])
    assert few < many, "16 ranks send more"
    (beside,) = [line for line in text.splitlines() if line.startswith("| 3 ") and "/5" in line]
    assert "5/5" in beside


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
def test_the_page_tells_how_gradients_were_compressed(compression: str) -> None:
    generator = np.random.default_rng(0)
    options: dict[str, Any] = {"configuration": {"distributed": {"compression": compression}}}
    made = [launch(2, 1e9, generator) for _ in range(4)]
    records = [record(one, i, 1e9).model_copy(update=options) for i, one in enumerate(made)]
    text = forecasts_page.markdown(made, forecast(made, [2], 1e9, draws=20), 1e9, records=records)
    told = f"- Gradients were on their way in {compression} (distributed.compression)."
    assert ("compression" in text) == (told in text) == (compression != "none")


def test_the_committed_page_is_that_of_its_records(tmp_path: Path) -> None:
    found, page = ROOT / "reports/forecast_2-core-xeon_2026-11-29", tmp_path / "forecast.md"
    arguments = ["--ranks=2,3,4,8,16", "--bandwidth=1gbit", f"--markdown={page}"]
    for option in ("measured", "load"):
        arguments += [f"--{option}", str(found / f"{option}.json")]
    assert main(["forecast", str(found / "fitted.json"), *arguments]) == 0
    assert page.read_text() == (found / "forecast.md").read_text()


def test_compute_under_load_is_taken_as_it_is() -> None:
    generator = np.random.default_rng(0)
    found = launches(generator, noise=0.005)
    (bare,) = forecast(found, [3], 1e9, draws=100)
    slow = [replace(launch(1, np.inf, generator), own_s=(0.3,)) for _ in range(6)]
    (loaded,) = forecast(found, [3], 1e9, slow, draws=100)
    assert bare.compute_s.middle == pytest.approx(COMPUTE, rel=0.05)
    assert loaded.compute_s.middle == pytest.approx(0.3)
    # Backward passes that last longer hide more.
    hidden = TRUE.overlap * (0.3 - COMPUTE)
    assert bare.exposed_s.middle - loaded.exposed_s.middle == pytest.approx(hidden, rel=0.25)


def test_a_link_of_unknown_rate_is_forecast_as_it_is() -> None:
    generator = np.random.default_rng(0)
    launches = [launch(2, 1e9, generator) for _ in range(5)]
    found = [record(one, number, 1e9) for number, one in enumerate(launches)]
    for one in found:
        one.ranks[0].conditions["link_bits_per_s"] = None
    chosen, link = chosen_link(usable(found).launches, None)
    (unknown,) = forecast(chosen, [2], link, draws=50)
    (known,) = forecast(launches, [2], 1e9, draws=50)
    assert unknown.step_s.middle == pytest.approx(known.step_s.middle, rel=1e-6)


def test_the_page_of_an_unknown_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured over it is found again, and it is not taken for one host."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(10):
        one = record(launch(2, 1e9, generator), number, 1e9)
        one.ranks[0].conditions["link_bits_per_s"] = None
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(one.model_dump_json(by_alias=True))
    fitted, beside = map(str, paths[:5]), map(str, paths[5:])
    assert main(["forecast", *fitted, "--ranks=2", "--measured", *beside]) == 0
    text = capsys.readouterr().out
    assert "step over a link of unknown rate" in text
    assert "2 rank(s) over a link of unknown rate: 5" in text
    assert "5/5" in text
    assert "one host" not in text
    assert "hides and what trails behind it cannot be told apart" in text


def test_launches_side_by_side_are_each_others_ranks() -> None:
    """Three times at levels of their own, at each of which ranks differ by a hundredth."""
    levels, apart = (0.15, 0.16, 0.17), (0.99, 1.0, 1.01)
    load = [
        replace(
            launch(1, np.inf, np.random.default_rng(0)),
            own_s=(level * share,),
            when=(60.0 * time, 60.0 * time + 7),
        )
        for share in apart
        for time, level in enumerate(levels)
    ]
    found = forecasts.side_by_side(load)
    assert [len(one.own_s) for one in found] == [3, 3, 3]
    assert [np.mean(one.own_s) for one in found] == pytest.approx(levels)
    (made,) = forecast(launches(np.random.default_rng(0)), [3], 1e9, load)
    # The slowest of three, at a level that may be any: neither the highest level of all, nor
    # bounded by it.
    assert made.compute_s.middle == pytest.approx(0.16 * 1.01, rel=0.03)
    assert made.compute_s.low < 0.15
    assert made.compute_s.high > 0.17 * 1.01


def test_one_launch_on_more_ranks_does_not_hide_the_spread() -> None:
    generator = np.random.default_rng(0)
    found = [launch(2, 1e9, generator) for _ in range(6)] + [launch(3, 1e9, generator)]
    compute = forecast(found, [4], 1e9, draws=200)[0].compute_s
    own = [np.mean(one.own_s) for one in found[:6]]
    assert compute.high - compute.low > np.max(own) - np.min(own)


def test_a_wrong_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--ranks=0,2", "--ranks=2,", "--bandwidth=fast"):
        with pytest.raises(SystemExit, match="2"):
            main(["forecast", "x.json", "--ranks=2", option])
    assert "is no list of numbers such as 4,8,16" in capsys.readouterr().err
