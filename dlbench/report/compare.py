"""Compare the launches of two setups: a verdict a workload and measure, and what may explain it.

Workloads are the same if all that their label tells is (`tables.WORKLOAD`). The launches of one
on a side have to be of one setup, by its fingerprint, and of one configuration; where the sides
differ in theirs (`dlbench.report.particulars`), it is named. Each measure is corrected for the
number of workloads that are compared in it: throughput is one family of comparisons, each kind of
memory another. That memory is looked at too does not cost the verdict on speed a launch more, nor
do the peers, bare kernels and controls that a launch has measured beside: no verdict is on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report import differences, findings, sides, statistics
from dlbench.report.differences import Difference
from dlbench.report.findings import Cause
from dlbench.report.sides import CompareError
from dlbench.report.statistics import ALPHA, MARGIN

CANNOT_TELL = "cannot tell"
WORDS = {
    "throughput": ("slower", "same", "faster", CANNOT_TELL),
    "more is better": ("worse", "same", "better", CANNOT_TELL),
    "less is better": ("better", "same", "worse", CANNOT_TELL),
}
AMOUNT = ("less", "same", "more", CANNOT_TELL)
"""Verdicts by LESS, SAME, MORE and UNKNOWN of `statistics`; `AMOUNT` of memory and all else."""

QUALITY = {
    **dict.fromkeys(("mean_iou", "global_accuracy", "kappa", "accuracy", "r"), "more is better"),
    **dict.fromkeys(("rmse", "loss"), "less is better"),
}
"""The scores that are compared, and which way they are better."""


@dataclass(frozen=True)
class Row:
    """One measure of one workload."""

    workload: str
    """All that defines it, in one line: `tables.label`."""
    name: str
    """The workload's id alone."""
    measure: str
    """A column of the table: ``throughput``, ``peak_host_rss``, ``quality.rmse``, ..."""
    baseline: list[float]
    """Every launch."""
    candidate: list[float]
    ratio: float | None
    """Candidate / baseline, of medians; None where it is not finite, as ``low`` and ``high``."""
    low: float | None
    """Of the bootstrap interval at the level 1 - alpha."""
    high: float | None
    p: float
    """Mann-Whitney's, corrected for the workloads compared in this measure."""
    verdict: str
    need: int | None
    """Launches more, of the setup that has fewest, that may bring a verdict; None if there is one,
    or if `statistics.MOST` launches of each would not."""
    detectable: float | None
    """Smallest relative difference that these launches show, given how they vary; None if none."""
    variation: float | None
    """Coefficient of variation from launch to launch."""


@dataclass(frozen=True)
class Comparison:
    """Two setups, compared."""

    baseline: str
    """The setup's name."""
    candidate: str
    rows: list[Row]
    quality: list[Row]
    """Scores of the same launches."""
    only_in_baseline: list[str]
    """Labels of workloads."""
    only_in_candidate: list[str]
    beside: int
    """Peers, bare kernels and controls that both sides have measured, and none is judged on."""
    differences: list[Difference]
    causes: list[Cause]
    margin: float
    alpha: float

    @property
    def wanted(self) -> int | None:
        """Launches of each setup that may bring open verdicts, those on speed before others."""
        rows = [row for row in (*self.rows, *self.quality) if row.need]
        rows = [row for row in rows if row.measure == "throughput"] or rows
        counts = [min(len(row.baseline), len(row.candidate)) + (row.need or 0) for row in rows]
        return max(counts, default=None)


def compare(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> Comparison:
    """Compare two tables of `tables.load`.

    Raises `CompareError` if they share no workload, if a launch is in both, or if a workload has
    launches of several setups or configurations on one side. A launch that a table holds twice
    counts once.
    """
    baseline, candidate = sides.agreeing(baseline, candidate)
    beside = [{*side.label[~side.judged]} for side in (baseline, candidate)]
    before, after = sides.launches(baseline, "baseline"), sides.launches(candidate, "candidate")
    old, new = set(before.label), set(after.label)
    if not old & new:
        raise CompareError(sides.nothing_in_common(sorted(old), sorted(new)))
    sides.refuse_shared(before, after)
    shared = [label for label in dict.fromkeys(before.label) if label in new]
    before_shared, after_shared = (side[side.label.isin(shared)] for side in (before, after))
    rows: list[Row] = []
    quality: list[Row] = []
    for measure in _measures(before_shared, after_shared):
        made = _compared(measure, before_shared, after_shared, shared, margin, alpha)
        (quality if measure.startswith("quality.") else rows).extend(made)
    return Comparison(
        baseline=_setup_name(before),
        candidate=_setup_name(after),
        rows=rows,
        quality=quality,
        only_in_baseline=sorted(old - new),
        only_in_candidate=sorted(new - old),
        beside=len(beside[0] & beside[1]),
        differences=differences.between(*map(_environments, (before_shared, after_shared))),
        causes=list(_causes(before_shared, after_shared, rows)),
        margin=margin,
        alpha=alpha,
    )


def _measures(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[str]:
    """The columns that both have, in the order they are told."""
    columns = ["throughput", "first_step_s", "energy_per_sample_j"]
    columns += [name for name in before if name.startswith("peak_")]
    columns += [f"quality.{name}" for name in QUALITY]
    for name in columns:
        if all(name in side and side[name].notna().any() for side in (before, after)):
            yield name


def _compared(
    measure: str,
    before: pd.DataFrame,
    after: pd.DataFrame,
    shared: list[str],
    margin: float,
    alpha: float,
) -> Iterator[Row]:
    pairs = {}
    groups = [dict(list(side.groupby("label")[measure])) for side in (before, after)]
    for label in shared:
        values = [group[label].dropna().to_numpy(float) for group in groups]
        if all(map(len, values)):
            pairs[label] = values
    count = len(pairs)
    p = statistics.holm([statistics.p_values(*pair) for pair in pairs.values()])
    names = dict(zip(before.label, before.workload, strict=True))
    kind = QUALITY.get(measure.removeprefix("quality."), measure)
    words = WORDS.get(kind, AMOUNT)
    for (label, (old, new)), corrected in zip(pairs.items(), p, strict=True):
        n, m = len(old), len(new)
        ratio = float(statistics.ratio_of_medians(old, new))
        low, high = map(float, statistics.interval(old, new, 1 - alpha))
        enough = statistics.enough(n, m, count, alpha)
        found = int(statistics.verdicts(corrected, low, high, enough, margin, alpha))
        cv = statistics.variation(old, new)
        wanted = shown = None
        if found == statistics.UNKNOWN:
            wanted = statistics.launches_wanted(ratio, cv, n, m, count, margin, alpha)
        if cv is not None:
            shown = statistics.detectable(cv, n, m, count, margin, alpha)
        yield Row(
            workload=label,
            name=names[label],
            measure=measure,
            baseline=old.tolist(),
            candidate=new.tolist(),
            ratio=_finite(ratio),
            low=_finite(low),
            high=_finite(high),
            p=float(corrected),
            verdict=words[found + 1],
            need=None if wanted is None else wanted - min(n, m),
            detectable=shown,
            variation=cv,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _setup_name(launches: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(launches.setup))


def _environments(launches: pd.DataFrame) -> list[Mapping[str, Any]]:
    # Equal fingerprints differ in nothing that matters.
    return list(launches.drop_duplicates("fingerprint").environment)


def _causes(before: pd.DataFrame, after: pd.DataFrame, rows: list[Row]) -> Iterator[Cause]:
    grown: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row.measure.startswith("peak_") and row.verdict == "more":
            peaks = float(np.median(row.baseline)), float(np.median(row.candidate))
            grown.setdefault(row.workload, {})[row.measure.removeprefix("peak_")] = peaks
    for label, kinds in grown.items():
        yield findings.memory_growth(label, kinds)
    yield from findings.between(before, after)
    for launches, side in ((after, "candidate"), (before, "baseline")):
        yield from findings.of_setup(launches, f"the {side} '{_setup_name(launches)}'")
