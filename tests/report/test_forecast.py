"""The cost model on launches of known parameters: it finds them, and its intervals hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_launches as synthetic

from dlbench.errors import UserError
from dlbench.report import forecast as forecasts
from dlbench.report import forecast_page as forecasts_page
from dlbench.report.__main__ import main
from dlbench.report.cost_model import Launch, Model, fit
from dlbench.report.forecast import LEVEL, chosen_link, forecast, usable
from dlbench.report.records import Rank, Record, Workload

TRUE = Model(wait=0.008, hop=0.0004, host=1.5e-9, link=1.05, overlap=0.4, trailing=1.5)
COMPUTE, GRADIENTS = 0.2, 8_000_000
SIZES = [4, 65536, 262144, 1048576, 4194304]
LINKS = (np.inf, 1e9, 2e8)


def launch(
    ranks: int,
    link: float,
    generator: np.random.Generator,
    noise: float = 0.02,
    sums_overlap: bool = True,
) -> Launch:
    """By the formulas, written out again; every time is off by ``noise``, a launch's as a whole."""

    def off() -> float:
        return float(generator.normal(1.0, noise))

    machine = off()
    own = [COMPUTE * machine * float(generator.normal(1.0, noise / 2)) for _ in range(ranks)]
    if ranks == 1:
        return Launch(1, np.inf, own[0], tuple(own), GRADIENTS, ())
    small = TRUE.wait + TRUE.hop * (ranks - 1)
    byte = 2 * (ranks - 1) / ranks * (TRUE.host + TRUE.link / (link / 8))
    sums = [(size, (small + size * byte) * off()) for size in SIZES]
    hidden = TRUE.overlap * max(own) if sums_overlap else 0.0
    left = (small + GRADIENTS * byte) * off() - hidden
    exposed = max(left, 0.0) + TRUE.trailing * small
    step = max(own) + exposed + COMPUTE * float(generator.normal(0.0, noise))
    return Launch(ranks, link, step, tuple(own), GRADIENTS, tuple(sums), sums_overlap)


def launches(
    generator: np.random.Generator, counts: tuple[int, ...] = (1, 2, 3), each: int = 5, **more: Any
) -> list[Launch]:
    return [
        launch(ranks, link, generator, **more)
        for ranks in counts
        for link in (LINKS if ranks > 1 else LINKS[:1])
        for _ in range(each)
    ]


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


def record(one: Launch, number: int, link: float | None = None) -> Record:
    """What `benchmarks/` would have written of ``one``, 20 steps."""
    conditions: dict[str, Any] = {
        "gradients": {"tensors": 30, "bytes": one.gradients, "sums_overlap": one.sums_overlap}
    }
    if one.ranks > 1:
        sizes, seconds = zip(*one.sums, strict=True)
        conditions |= {
            "sums": {"bytes": list(sizes), "seconds": list(seconds)},
            "link_bits_per_s": link,
        }
    ranks = [
        Rank(
            rank=rank,
            host=f"node{rank if link else 0}",
            samples=80,
            wall_s=20 * one.step_s,
            step_s=(one.step_s,) * 20,
            input_wait_s=0.0,
            comm_wait_s=20 * (one.step_s - own),
            first_step_s=5.0,
            peak_bytes={},
            conditions=conditions if rank == 0 else {},
        )
        for rank, own in enumerate(one.own_s)
    ]
    workload = Workload(
        id="scaling-weak/segnet/float32", model="segnet", data=None, precision="float32",
        ranks=one.ranks, batch_per_rank=4, shape=(32, 48, 3), mode="train",
    )  # fmt: skip
    return synthetic.launch(number).model_copy(update={"workload": workload, "ranks": tuple(ranks)})


def written(folder: Path, each: int = 5) -> list[Path]:
    generator = np.random.default_rng(0)
    found = [
        record(launch(ranks, link, generator), number, None if np.isinf(link) else link)
        for ranks, link in ((1, np.inf), (2, np.inf), (2, 1e9), (3, 1e9))
        for number in range(each)
    ]
    for number, one in enumerate(found):
        (folder / f"{number:02d}.json").write_text(one.model_dump_json(by_alias=True))
    return sorted(folder.glob("*.json"))


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


def test_a_link_of_unknown_rate_is_forecast_as_it_is() -> None:
    generator = np.random.default_rng(0)
    launches = [launch(2, 1e9, generator) for _ in range(5)]
    found = [record(one, number, 1e9) for number, one in enumerate(launches)]
    for one in found:
        one.ranks[0].conditions["link_bits_per_s"] = None
    chosen, link = chosen_link(usable(found)[1], None)
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


@pytest.mark.parametrize("text", ["10", "gbit", "-1gbit", "0mbit", "nanmbit", "infgbit", "1 Gbps"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="no rate of a link; write 10gbit"):
        forecasts.parsed_rate(text)
    assert forecasts.parsed_rate("2.5gbit") == 2.5e9
    assert forecasts.rate(2.5e9) == "2.5gbit"


def test_a_wrong_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--ranks=0,2", "--ranks=2,", "--bandwidth=fast"):
        with pytest.raises(SystemExit, match="2"):
            main(["forecast", "x.json", "--ranks=2", option])
    assert "is no list of numbers such as 4,8,16" in capsys.readouterr().err
