"""One process against ranks, and what steers the ranks' sums, launched in turn for some rounds.

    python -m benchmarks.scaling_table OUT.jsonl [--rounds 5] [--studies shares ...]
                                                 [--models segnet deepvel]
                                                 [--hosts a:1,b:1 --link 1gbit] [--threads N]

A study is a few ways to train a network on synthetic input with one global batch on all cores. In
each round every way is a job of its own, in turned order; a job is a line of OUT.jsonl at once, and
a second call goes on where the first stopped. Prints the table of all that the file holds:
throughput is all samples by the slowest rank's time, as the median of the launches, and is divided
by that of the study's first way in the same round (median, smallest, largest). Waiting for other
ranks is a step's share of time in which its pass stood still for a sum: the median over all
launches' ranks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import launching, links, training_cases
from benchmarks.launching import Spec
from benchmarks.rounds import Launched, compared, grouped, measure, read

GLOBAL_BATCH = 8
WARMUP = 2
STEPS = {"segnet": 4, "deepvel": 12, "segnet_basic": 12, "segnet_small": 12}
SMALL: dict[str, dict[str, Any]] = {
    "segnet_small": {"model": "segnet", "size": (64, 96), "options": {"width": 0.5}}
}
"""For a link between hosts: 29 MB of gradients, and little to compute."""


@dataclass(frozen=True)
class Way:
    """How the cores are used."""

    ranks: int = 2
    distributed: dict[str, Any] = field(default_factory=dict)
    kind: str = "train"


@dataclass(frozen=True)
class Place:
    """Where the ranks are."""

    hosts: str | None = None
    """Such as "a:1,b:1"; this machine by default."""
    link: str | None = None
    threads: int | None = None
    """Of each rank; its share of a host's cores by default."""

    @property
    def told(self) -> str:
        """What is added to the name of a case: other places are other cases."""
        told = "" if self.hosts is None else f" on {self.hosts}"
        told += "" if self.link is None else f" at {self.link}"
        return told if self.threads is None else f"{told}, threads={self.threads}"

    def threads_of(self, ranks: int) -> int:
        where = f"here:{ranks}" if self.hosts is None else launching.first_slots(self.hosts, ranks)
        on_a_host = max(links.slots(where))
        return self.threads or max(1, len(os.sched_getaffinity(0)) // on_a_host)


HERE = Place()


STUDIES: dict[str, dict[str, Way]] = {
    "shares": {"1 process": Way(ranks=1), "2 ranks": Way()},
    "overlap": {
        "beside the backward pass": Way(kind="train_and_sum"),
        "after it": Way(kind="train_then_sum"),
    },
    "fusion": {
        f"{megabytes} MB, {cycle_ms} ms": Way(
            distributed={"fusion_threshold_mb": megabytes, "cycle_time_ms": cycle_ms}
        )
        for cycle_ms in (10, 1, 50)
        for megabytes in (128, 16, 0)
    },
    "compression": {
        name: Way(distributed={"compression": name}) for name in ("none", "fp16", "bf16")
    },
}


def measured(
    path: Path,
    rounds: int,
    studies: Sequence[str],
    models: Sequence[str],
    place: Place = HERE,
) -> None:
    """Add to ``path`` the launches that it lacks."""
    with tempfile.TemporaryDirectory() as folder:

        def launch(case: str, peer: str) -> Launched:
            study, model, *_ = case.split(" ")
            way = STUDIES[study][peer]
            content = training_cases.content(
                **{"model": model, **SMALL.get(model, {})},
                folder=Path(folder),
                threads=place.threads_of(way.ranks),
                batch=GLOBAL_BATCH // way.ranks,
            )
            content["distributed"] = way.distributed
            spec = Spec(way.kind, f"{case} {peer}", content, WARMUP, STEPS[model])
            found = launching.launch(spec, way.ranks, hosts=place.hosts)["ranks"]
            kept = ("samples", "wall_s", "comm_wait_s", "peak_bytes")
            return {"ranks": [{name: rank[name] for name in kept} for rank in found]}

        cases = {
            f"{study} {model}{place.told}": tuple(STUDIES[study])
            for study in studies
            for model in models
        }
        measure(path, rounds, cases, launch)


def throughput(launched: Launched) -> float:
    """Samples a second."""
    ranks = launched["ranks"]
    return float(sum(rank["samples"] for rank in ranks) / max(rank["wall_s"] for rank in ranks))


def table(launches: list[Launched]) -> str:
    """Markdown, a row for each study, network and way."""
    rows = [
        "| study | way | launches | samples/s | / the first | waiting for other ranks |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case, peers in grouped(launches).items():
        first = next(iter(STUDIES[case.split(" ")[0]]))
        for peer, those, speed, ratio in compared(peers, first, throughput, digits=3):
            waits = [rank["comm_wait_s"] / rank["wall_s"] for one in those for rank in one["ranks"]]
            rows.append(
                f"| {case} | {peer} | {len(those)} | {speed:.3f} | {ratio} | "
                f"{statistics.median(waits):.1%} |"
            )
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="OUT.jsonl")
    parser.add_argument("--rounds", type=int, default=5, help="0 only prints the table")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--models", nargs="+", choices=STEPS, default=["segnet", "deepvel"])
    parser.add_argument("--hosts", type=links.hosts, help="such as a:1,b:1 (default: here)")
    parser.add_argument("--link", help="what the network between --hosts is made for: 1gbit")
    parser.add_argument("--threads", type=int, help="of each rank (default: its host's cores)")
    given = parser.parse_args()
    if given.rounds:
        place = Place(given.hosts, given.link, given.threads)
        measured(given.out, given.rounds, given.studies, given.models, place)
    print(table(read(given.out)), end="")


if __name__ == "__main__":
    main()
