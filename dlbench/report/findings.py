"""Causes that the records themselves name: who was slow, what was waited for, what has changed.

A cause is told beside the verdicts and never changes one: nothing is discarded.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report import particulars, stragglers
from dlbench.report.records import Record

GREW = 0.05
"""Of the wall time: a share of waiting that grew by less is not named."""
GIB = 2**30


@dataclass(frozen=True)
class Cause:
    """What may explain a difference, or cast doubt on it."""

    kind: str
    """``straggler``, ``input stall``, ``communication``, ``memory growth``, ``throttling``, ``busy
    machine``, ``foreign process``, ``configuration``, ``code`` or ``order``."""
    workload: str | None
    """The label of the workload; None for what concerns all."""
    text: str
    """A sentence that names the setup, and rank and host where there is one."""

    def __str__(self) -> str:
        where = "" if self.workload is None else f"{self.workload}: "
        return f"{self.kind}: {where}{self.text}"


def of_setup(launches: pd.DataFrame, side: str) -> Iterator[Cause]:
    """What the launches of one setup, called ``side`` in sentences, tell without another's.

    ``launches`` has a column ``label`` beside those of `tables.load`.
    """
    for label, group in launches.groupby("label", sort=False):
        yield from _straggler(str(label), _records(group), side)
    # A launch is a file, with a record for each of its workloads.
    everything = [_records(group) for _, group in launches.groupby("file", sort=False)]
    yield from _conditions(everything, side)
    changed = sum(any(record.code.dirty is True for record in launch) for launch in everything)
    if changed:
        yield Cause(
            "code", None, f"{side} ran code with uncommitted changes in {changed} of its launches"
        )
    commits = sorted({commit[:12] for commit in launches.commit.dropna()})
    if len(commits) > 1:
        yield Cause("code", None, f"{side} mixes launches of commits {', '.join(commits)}")


def between(baseline: pd.DataFrame, candidate: pd.DataFrame) -> Iterator[Cause]:
    """What only the two together tell; the frames are as those of `of_setup`."""
    groups = dict(list(candidate.groupby("label", sort=False)))
    for label, before in baseline.groupby("label", sort=False):
        if label in groups:
            yield from _configuration(str(label), before, groups[label])
            yield from _waiting(str(label), before, groups[label])
    old, new = (sorted({c[:12] for c in side.commit.dropna()}) for side in (baseline, candidate))
    if old != new and old and new:
        commits = f"{', '.join(old)} and {', '.join(new)}"
        yield Cause("code", None, f"the two ran different commits: {commits}")
    first, second = sorted((baseline.created, candidate.created), key=lambda times: times.min())
    if len(first) > 1 and len(second) > 1 and first.max() < second.min():
        yield Cause(
            "order",
            None,
            "all launches of one setup came before those of the other: a drift of the machine "
            "looks like a difference. Launch in alternation, or repeat the first setup afterwards",
        )


def memory_growth(label: str, kinds: Mapping[str, Sequence[float]]) -> Cause:
    """The cause that grown peaks are: ``kinds`` gives bytes before and after of each."""
    grown = ", ".join(
        f"{kind} by {after / before - 1:.1%} ({before / GIB:.3f} to {after / GIB:.3f} GiB)"
        for kind, (before, after) in kinds.items()
    )
    return Cause("memory growth", label, f"the candidate's peak grew: {grown}")


def _records(launches: pd.DataFrame) -> list[Record]:
    return [record for record in launches.record if record is not None]


def _straggler(label: str, launches: Sequence[Record], side: str) -> Iterator[Cause]:
    """The rank that is one in most launches: any other may have been chance."""
    found = [one for one in (stragglers.find(record.ranks) for record in launches) if one]
    if not found:
        return
    (rank, count) = Counter(one.rank for one in found).most_common(1)[0]
    if 2 * count <= len(launches):
        return
    its = [one for one in found if one.rank == rank]
    cause = Counter(one.cause for one in its).most_common(1)[0][0]
    spent = {
        "compute": "on its own compute",
        "input": "waiting for its own input",
        "samples": "as it has more samples",
    }[cause]
    factor = statistics.median(one.factor for one in its)
    yield Cause(
        "straggler",
        label,
        f"rank {rank} on {its[0].host} holds up the others in {count} of {len(launches)} launches "
        f"of {side}: it is busy {factor:.2f} x as long, {spent}",
    )


def _conditions(launches: Sequence[Sequence[Record]], side: str) -> Iterator[Cause]:
    """What the devices were like (`dlbench.bench.conditions`) in each launch's records."""

    def hit(key: str) -> tuple[int, list[Record]]:
        """How many launches, and the records that say so."""
        found = [
            [one for one in launch if any(rank.conditions.get(key) for rank in one.ranks)]
            for launch in launches
        ]
        return sum(map(bool, found)), [one for launch in found for one in launch]

    count, throttled = hit("throttled")
    if throttled:
        reasons = sorted({str(r) for one in throttled for r in _reasons(one)})
        named = f" ({', '.join(reasons)})" if reasons else ""
        text = f"in {count} of {len(launches)} launches of {side}{named}"
        yield Cause("throttling", None, f"clocks were lowered {text}")
    count, foreign = hit("foreign_processes")
    if foreign:
        hosts = ", ".join(sorted(_hosts(foreign, "foreign_processes")))
        text = f"in {count} of {len(launches)} launches of {side} on {hosts}"
        yield Cause("foreign process", None, f"others used the GPU {text}")
    count, busy = hit("busy")
    if busy:
        loads = [rank.conditions.get("other_load") for one in busy for rank in one.ranks]
        most = max((load for load in loads if isinstance(load, int | float)), default=None)
        used = "" if most is None else f", up to {most:.1f} cores"
        hosts = ", ".join(sorted(_hosts(busy, "busy")))
        text = f"in {count} of {len(launches)} launches of {side} on {hosts}{used}"
        yield Cause("busy machine", None, f"other work ran {text}")


def _reasons(record: Record) -> Iterator[Any]:
    for rank in record.ranks:
        gpu = rank.conditions.get("gpu")
        found = gpu.get("throttle_reasons") if isinstance(gpu, dict) else None
        yield from found if isinstance(found, list) else []


def _hosts(launches: Iterable[Record], key: str) -> set[str]:
    return {rank.host for one in launches for rank in one.ranks if rank.conditions.get(key)}


def _configuration(label: str, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Iterator[Cause]:
    before, after = _records(baseline), _records(candidate)
    found = particulars.of_each([*before, *after])
    old, new = map(particulars.values, (found[: len(before)], found[len(before) :]))
    changed = [
        f"{name} is {', '.join(sorted(old[name]))} in the baseline and "
        f"{', '.join(sorted(new[name]))} in the candidate"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]
    if changed:
        yield Cause("configuration", label, f"the two did different work: {'; '.join(changed)}")


def _waiting(label: str, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Iterator[Cause]:
    kinds = {
        "input_wait": ("input stall", "waiting for input takes"),
        "comm_wait": ("communication", "waiting for other ranks takes"),
    }
    for column, (kind, what) in kinds.items():
        before, after = (side[column].dropna().to_numpy(float) for side in (baseline, candidate))
        if not len(before) or not len(after):
            continue
        old, new = float(np.median(before)), float(np.median(after))
        if new - old >= GREW and after.min() > old:
            text = f"{what} {new:.1%} of the candidate's time, {old:.1%} of the baseline's"
            yield Cause(kind, label, text)
