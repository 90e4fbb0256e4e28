"""Steps on three hosts, forecast from launches on one and two over links of other rates.

Each host has three tenths of two cores. They share memory and its bandwidth all the same, so how
fast a rank computes is taken from three that compute side by side and do not communicate.
``DLBENCH_FORECAST=FOLDER`` keeps the records and the page.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from ranks.hosts import ROOT, Hosts, missing

from dlbench.report import forecast, records
from dlbench.report.__main__ import main
from dlbench.report.cost_model import Launch
from dlbench.report.forecast_launches import alike, chosen_link, parsed_rate, usable

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(missing(cores=True) is not None, reason=str(missing(cores=True))),
]
WORKLOAD = "scaling-weak/segnet/float32"
CORES = 0.6
FITTED = [(1, "1gbit"), (2, "500mbit"), (2, "2gbit")]
"""(Ranks, link): what the model is fitted to."""
UNSEEN = (3, "1gbit")
LAUNCHES = int(os.environ.get("DLBENCH_FORECAST_LAUNCHES", "3"))


def measure(hosts: Hosts, ranks: int, link: str, path: Path) -> None:
    """One launch, from the first host; nothing if ``path`` is there."""
    if path.exists():
        return
    for host in hosts.names:
        hosts.shape(host, link)
    job = hosts.start("a", command(ranks, link, path), cwd=ROOT)
    assert hosts.wait(job, 600.0) == 0
    Path(f"{path}.part").rename(path)


def measure_side_by_side(hosts: Hosts, paths: list[Path]) -> None:
    """One launch on one rank on each host, at once."""
    if all(path.exists() for path in paths):
        return
    jobs = [
        hosts.start(host, command(1, UNSEEN[1], path), cwd=ROOT)
        for host, path in zip(hosts.names, paths, strict=True)
    ]
    assert [hosts.wait(job, 600.0) for job in jobs] == [0] * len(jobs)
    for path in paths:
        Path(f"{path}.part").rename(path)


def command(ranks: int, link: str, path: Path) -> list[str]:
    return [
        sys.executable, "-m", "pytest", "-q", "benchmarks/bench_scaling.py", "-k",
        f"segnet-weak-{ranks}", "--profile=full", f"--ranks={ranks}", "--hosts=a:1,b:1,c:1",
        f"--link={link}", "--compute-threads=1", f"--setup-name=hosts of {CORES} cores",
        "-p", "no:cacheprovider", f"--benchmark-json={path}.part",
    ]  # fmt: skip


def together(paths: list[str]) -> str:
    """The records of all files as one; without what pytest-benchmark adds."""
    found = [
        {"fullname": one["fullname"], "extra_info": one["extra_info"]}
        for path in paths
        for one in json.loads(Path(path).read_text())["benchmarks"]
    ]
    return json.dumps({"benchmarks": found}, indent=1) + "\n"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="three hosts need 1.8 cores")
def test_three_hosts_step_as_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ.get("DLBENCH_FORECAST") or tmp_path).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[tuple[int, str], list[str]] = {}
    load: list[str] = []
    with Hosts(tmp_path / "hosts", cores=CORES) as hosts:
        # In turn, so that what changes on the machine meanwhile changes all alike; but what an
        # earlier call has left to this one runs later: the page tells when each ran.
        for number in range(LAUNCHES):
            for ranks, link in (*FITTED, UNSEEN):
                path = folder / f"{ranks}-{link}-{number}.json"
                measure(hosts, ranks, link, path)
                files.setdefault((ranks, link), []).append(str(path))
            beside = [folder / f"side-{host}-{number}.json" for host in hosts.names]
            measure_side_by_side(hosts, beside)
            load += map(str, beside)
    fitted = [path for place in FITTED for path in files[place]]
    for name, paths in (("fitted", fitted), ("load", load), ("measured", files[UNSEEN])):
        (folder / f"{name}.json").write_text(together(paths))
    page = folder / "forecast.md"
    arguments = ["--ranks=2,3,4,8,16", f"--bandwidth={UNSEEN[1]}", f"--workload={WORKLOAD}"]
    measured = ["--measured", str(folder / "measured.json"), "--load", str(folder / "load.json")]
    assert (
        main(["forecast", str(folder / "fitted.json"), *arguments, *measured, f"--markdown={page}"])
        == 0
    )
    print(capsys.readouterr().out)

    fit = usable(records.read_many(map(Path, fitted)), WORKLOAD)
    chosen, rate = chosen_link(fit.launches, parsed_rate(UNSEEN[1]))
    loaded = alike(records.read_many(map(Path, load)), fit, "load.json").launches
    (made,) = forecast.forecast(chosen, [UNSEEN[0]], rate, loaded)
    seen = [
        launch
        for record in records.read_many(map(Path, files[UNSEEN]))
        if (launch := Launch.of(record)) is not None
    ]
    assert len(seen) == LAUNCHES
    # The median launch: one in ten is told to lie outside.
    assert made.step_s.holds(float(np.median([one.step_s for one in seen])))
    assert made.exposed_s.holds(float(np.median([one.exposed_s for one in seen])))
    hosts_of = json.loads(Path(files[UNSEEN][0]).read_text())["benchmarks"][0]["extra_info"]
    assert {rank["host"] for rank in hosts_of["record"]["ranks"]} == {"a", "b", "c"}
