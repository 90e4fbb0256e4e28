"""Which launches a forecast is made of, and which are refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_launches as synthetic
from report.forecast_records import launch, record, written

from dlbench.errors import UserError
from dlbench.report.__main__ import main
from dlbench.report.forecast_launches import chosen_link, parsed_rate, rate, usable
from dlbench.report.records import Record


def refusal(found: list[Record], bandwidth: float | None = None, workload: Any = None) -> str:
    with pytest.raises(UserError) as told:
        chosen_link(usable(found, workload).launches, bandwidth)
    return str(told.value)


def test_what_cannot_be_forecast_is_told() -> None:
    generator = np.random.default_rng(0)
    slow = [record(launch(2, 1e9, generator), number, 1e9) for number in range(5)]
    fast = [record(launch(2, 1e10, generator), number, 1e10) for number in range(5)]
    assert "hold no 4 launches of a workload on several ranks" in refusal(slow[:3])
    assert "hold no 4 launches of other on several ranks" in refusal(slow, workload="other")
    assert "several links (10gbit, 1gbit)" in refusal(slow + fast)
    assert "at least two links are needed to forecast for 10gbit" in refusal(slow, 1e10)
    strong = slow[0].workload.model_copy(update={"id": "scaling-strong/segnet/float32"})
    again = [one.model_copy(update={"workload": strong}) for one in fast]
    told = refusal(slow + again)
    assert "these files hold scaling-weak/segnet/float32 at batch 4; scaling-strong" in told
    assert len(chosen_link(usable(slow + fast).launches, 5e9)[0]) == 10
    for one in (*slow[:4], *fast[:3]):
        one.ranks[0].conditions["link_bits_per_s"] = None
    assert "only 3 launches of several ranks are over a known link" in refusal(slow + fast, 5e9)


def test_the_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each does what it says, with launches on one rank and two over the links of its files."""
    generator = np.random.default_rng(0)
    for link in ("10gbit", "1gbit"):
        for number in range(5):
            alone, both = (launch(ranks, parsed_rate(link), generator) for ranks in (1, 2))
            made = [record(alone, number), record(both, number, both.link)]
            synthetic.write_benchmarks(made, tmp_path / f"{link}_{number}.json")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    commands = re.findall(r"^python -m dlbench\.report (forecast .*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(shlex.split(re.sub(r"\[--.*?\]", "", command), comments=True)) == 0, command


def with_threads(one: Record, threads: int) -> Record:
    one.ranks[0].conditions["threads"] = threads
    return one


def test_launches_that_are_no_repeats_are_refused() -> None:
    """Of a longer list of ranks, each has fewer threads."""
    generator = np.random.default_rng(0)
    two, four = (
        [record(launch(ranks, 1e9, generator), number, 1e9) for number in range(5)]
        for ranks in (2, 4)
    )
    assert len(usable(two + four).launches) == 10
    four = [with_threads(one, 1) for one in four]
    assert len(usable(two + four).launches) == 10, "what a record does not tell is no difference"
    two = [with_threads(one, 2) for one in two]
    assert (
        "scaling-weak/segnet/float32 at batch 4 differ in more than ranks, hosts and link: "
        "training.threads 2 in 5 launch(es) on 2 rank(s); training.threads 1 in 5 launch(es) on 4 "
        "rank(s). Launch all on one setup, with one configuration and one list of --ranks"
    ) in refusal(two + four)


def test_other_options_and_setups_are_refused() -> None:
    generator = np.random.default_rng(0)
    plain = [record(launch(2, 1e9, generator), number, 1e9) for number in range(5)]
    whole, half = (
        [
            one.model_copy(update={"configuration": {"distributed": {"compression": kind}}})
            for one in plain
        ]
        for kind in ("none", "fp16")
    )
    assert "distributed.compression none in 5 launch(es)" in refusal(whole + half)
    # A name is given by hand, and stays where what it stands for has changed.
    newer = synthetic.launch(fingerprint="b" * 16, described=synthetic.environment(gpu="H100"))
    assert newer.setup.name == plain[0].setup.name
    again = [one.model_copy(update={"setup": newer.setup}) for one in plain[:2]]
    assert (
        f"setup A (A000000000000000) in 5 launch(es) on 2 rank(s); setup A ({'b' * 16}) in "
        "2 launch(es) on 2 rank(s); gpu is – in the first and H100 in the second"
    ) in refusal(plain + again)
    elsewhere = synthetic.launch(described=synthetic.environment(platform={"hostname": "node9"}))
    moved = [one.model_copy(update={"setup": elsewhere.setup}) for one in plain]
    assert len(usable(plain + moved).launches) == 10


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
    other["workload"]["precision"] = "float32"
    other["setup"]["fingerprint"] = "b" * 16
    last.write_text(json.dumps(other))
    assert main(["forecast", *map(str, fitted), *arguments]) == 2
    assert "differ in more than ranks, hosts and link: setup A" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["10", "gbit", "-1gbit", "0mbit", "nanmbit", "infgbit", "1 Gbps"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="no rate of a link; write 10gbit"):
        parsed_rate(text)
    assert parsed_rate("2.5gbit") == 2.5e9
    assert rate(2.5e9) == "2.5gbit"
