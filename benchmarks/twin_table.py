"""Our networks against their twins, launched in turn for some rounds, as a table.

    python -m benchmarks.twin_table OUT.jsonl [--rounds 5] [--only deepvel-float32-train ...]

In each round every peer steps each case in a process of its own (`twin_run`), in turned order; what
a launch found is a line of OUT.jsonl at once, and a second call goes on where the first stopped.
Prints the table of all that the file holds: seconds of a step are the median of the launches'
median steps; ratios are taken within a round, and shown with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks import twin_run
from benchmarks.rounds import compared, grouped, read
from benchmarks.rounds import measure as in_turn
from benchmarks.twin_cases import FULL, MODES, NETWORKS, PRECISIONS, Case
from benchmarks.twin_run import Launched, median

PEERS = {
    "train": ("ours", "torch_tuned", "keras", "convolutions"),
    "inference": ("ours", "torch_tuned"),
}
STEPS = {"float32": 4, "mixed_bfloat16": 8}
"""A launch's, after the warm-up; three times as many in inference."""
TIMEOUT_S = 1800.0
GIB = 2**30


def cases() -> dict[str, Case]:
    """By name, such as ``segnet-float32-train``."""
    found = {}
    for network, precision, mode in itertools.product(NETWORKS, PRECISIONS, MODES):
        name = f"{network}-{precision.removeprefix('mixed_')}-{mode}"
        found[name] = Case(network, precision, mode, **FULL[network])
    return found


def measure(path: Path, rounds: int, names: Iterable[str], threads: int) -> None:
    """Adds to ``path`` the launches that it lacks."""
    with tempfile.TemporaryDirectory() as folder:

        def launch(name: str, peer: str) -> Launched:
            case = cases()[name]
            steps = STEPS[case.precision] * (1 if case.mode == "train" else 3)
            weights = Path(folder) / f"{case.network}.npz"
            return twin_run.launch(peer, case, weights, steps, threads, TIMEOUT_S)

        in_turn(path, rounds, {name: PEERS[cases()[name].mode] for name in names}, launch)


def table(launches: list[Launched]) -> str:
    """Markdown, a row for each case and peer."""
    rows = [
        "| case | peer | launches | step, s | peer / ours | peak memory, GiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, peers in grouped(launches).items():
        for peer, those, step_s, ratio in compared(peers, "ours", median):
            peaks = [one["peak_bytes"]["host_rss_hwm"] / GIB for one in those]
            memory = "" if peer == "convolutions" else f"{statistics.median(peaks):.2f}"
            rows.append(f"| {name} | {peer} | {len(those)} | {step_s:.3f} | {ratio} | {memory} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="OUT.jsonl")
    parser.add_argument("--rounds", type=int, default=5, help="0 only prints the table")
    parser.add_argument("--only", nargs="+", choices=cases(), default=list(cases()))
    given = parser.parse_args()
    if given.rounds:
        measure(given.out, given.rounds, given.only, len(os.sched_getaffinity(0)))
    print(table(read(given.out)), end="")


if __name__ == "__main__":
    main()
