"""Gates: thresholds that a comparison has to keep, in a YAML file.

    strict: false                 # true: "cannot tell" breaches, too
    gates:
      "train/segnet/*":           # a pattern of workload ids, or of whole labels
        min_throughput_ratio: 0.95      # candidate / baseline
        max_memory_ratio: 1.05          # of every kind of peak memory that both have
        min_mean_iou: 0.70              # of the candidate alone
        max_mean_iou_drop: 0.01         # baseline - candidate
        max_rmse: 0.40
        max_rmse_rise: 0.02

A ratio, drop or rise breaches if its whole interval lies beyond the threshold, and keeps the gate
if its whole interval lies within; else, or with too few launches, one cannot tell. That is printed,
and breaches only where ``strict`` is true. How many launches are enough follows from the workloads
that are gated in the same measure: six of each setup for up to four. An absolute score is the
median of the launches there are: even one wrong run is wrong. A workload or a score that the
candidate lacks breaches: it may have crashed. What the baseline does not know of a workload either,
as the throughput of a benchmark of memory, breaches only where the gate names that workload, or
where none that it fits has it. Peers, bare kernels and controls fit no pattern.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, ValidationError

from dlbench import config
from dlbench.config import ConfigError
from dlbench.report import sides, statistics
from dlbench.report.compare import Comparison, Row

Ratio = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Outcome = Literal["kept", "breached", "cannot tell"]
MEMORY = "peak memory"
"""The measure of workloads without a peak that both sides know."""


class Thresholds(config.Section):
    """What the workloads of one pattern have to keep; see the module."""

    min_throughput_ratio: Ratio | None = None
    max_memory_ratio: Ratio | None = None
    min_mean_iou: Score | None = None
    max_mean_iou_drop: Score | None = None
    max_rmse: Score | None = None
    max_rmse_rise: Score | None = None


class Gates(config.Section):
    """A file of gates."""

    strict: bool = False
    gates: Annotated[dict[str, Thresholds], Field(min_length=1)]


@dataclass(frozen=True)
class _Held:
    """A workload with thresholds that it has to keep."""

    label: str
    thresholds: Thresholds
    fitted: frozenset[str]
    """All labels that the gate fits; none where it names the workload."""


@dataclass(frozen=True)
class Result:
    """What one threshold says of one workload."""

    workload: str
    outcome: Outcome
    text: str


def load(path: Path) -> Gates:
    """Read a file of gates; `ConfigError` names what is wrong in it and what is allowed."""
    content = config.read_yaml(path)
    try:
        gates = Gates.model_validate(content)
    except ValidationError as error:
        faults = "\n".join(f"  {_explained(fault)}" for fault in error.errors())
        raise ConfigError(f"{path} holds no valid gates:\n{faults}") from None
    for pattern, thresholds in gates.gates.items():
        if not thresholds.model_dump(exclude_none=True):
            raise ConfigError(f"{path}: '{pattern}' has no threshold; known: {_known(Thresholds)}")
    return gates


def check(
    gates: Gates, made: Comparison, baseline: pd.DataFrame, candidate: pd.DataFrame
) -> list[Result]:
    """Hold ``made``, the comparison of two tables, against every gate.

    `ConfigError` where a pattern fits no workload of either: it would guard nothing.
    """
    baseline, candidate = sides.agreeing(baseline, candidate)
    names = {
        label: name
        for side in (baseline, candidate)
        for label, name in zip(side.label[side.judged], side.workload[side.judged], strict=True)
    }
    present = set(candidate.label)
    results = []
    rows: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in (*made.rows, *made.quality):
        rows[row.workload][row.measure] = row
    held: list[_Held] = []
    for pattern, thresholds in gates.gates.items():
        labels = [label for label, name in names.items() if _fits(pattern, name, label)]
        if not labels:
            known = ", ".join(sorted(set(names.values())))
            raise ConfigError(f"the gate '{pattern}' fits no workload; there are {known}")
        is_name = pattern in names or pattern in names.values()
        fitted = frozenset[str]() if is_name else frozenset(labels)
        for label in labels:
            if label in present:
                held.append(_Held(label, thresholds, fitted))
            else:
                results.append(Result(label, "breached", "the candidate has no launch of it"))
    # A family of comparisons is the workloads that are gated, not all that a launch has measured.
    gated = {
        (one.label, measure)
        for one in held
        for measure in _limits(one.thresholds, rows[one.label])
        if measure in rows[one.label]
    }
    family = _Family(Counter(measure for _, measure in gated), made.alpha)
    measured = _known_measures(baseline)
    for one in held:
        results += _held(one, rows[one.label], family, measured, candidate)
    return results


def breached(gates: Gates, results: list[Result]) -> list[Result]:
    """Those that fail the job."""
    failing = ("breached", "cannot tell") if gates.strict else ("breached",)
    return [result for result in results if result.outcome in failing]


def _fits(pattern: str, name: str, label: str) -> bool:
    # Names of parametrised benchmarks hold brackets, which a pattern takes for a set of letters.
    return pattern in (name, label) or fnmatchcase(name, pattern) or fnmatchcase(label, pattern)


@dataclass(frozen=True)
class _Family:
    """How many workloads are gated in each measure."""

    counts: Counter[str]
    alpha: float

    def lacks(self, row: Row) -> str:
        """What is said of a row with too few launches for any verdict; empty where they suffice."""
        n, m, count = len(row.baseline), len(row.candidate), self.counts[row.measure]
        if statistics.enough(n, m, count, self.alpha):
            return ""
        needed = statistics.least(count, self.alpha)
        return f"; of {count} gated workloads {n} + {m} launches tell nothing, {needed} of each may"


def _limits(thresholds: Thresholds, rows: dict[str, Row]) -> dict[str, float]:
    """The measures in which the two sides are compared, with what is allowed."""
    peaks = [measure for measure in rows if measure.startswith("peak_")] or [MEMORY]
    limits = {
        "throughput": thresholds.min_throughput_ratio,
        **dict.fromkeys(peaks, thresholds.max_memory_ratio),
        "quality.mean_iou": thresholds.max_mean_iou_drop,
        "quality.rmse": thresholds.max_rmse_rise,
    }
    return {measure: limit for measure, limit in limits.items() if limit is not None}


def _known_measures(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Every label with each measure, as `_limits` calls it, that a launch of it has."""
    return {
        (label, MEMORY if str(column).startswith("peak_") else str(column))
        for column in table
        for label, there in zip(table.label, table[column].notna(), strict=True)
        if there
    }


def _held(
    held: _Held,
    rows: dict[str, Row],
    family: _Family,
    known: set[tuple[str, str]],
    candidate: pd.DataFrame,
) -> Iterator[Result]:
    """``known`` is what the baseline has."""
    label, thresholds = held.label, held.thresholds
    for measure, limit in _limits(thresholds, rows).items():
        row = rows.get(measure)
        if row is None:
            # A threshold that nothing at all can keep would guard nothing.
            others = any((other, measure) in known for other in held.fitted)
            if others and (label, measure) not in known:
                continue
            told = measure.removeprefix("quality.")
            yield Result(label, "breached", f"{told} is not known of both sides")
        elif measure.startswith("quality."):
            yield _change(row, family, limit, drop=measure == "quality.mean_iou")
        else:
            yield _ratio(row, family, limit, least=measure == "throughput")
    for score, least in (("mean_iou", True), ("rmse", False)):
        bound = getattr(thresholds, f"{'min' if least else 'max'}_{score}")
        if bound is not None:
            yield _absolute(label, score, candidate, bound, least)


def _ratio(row: Row, family: _Family, limit: float, least: bool) -> Result:
    asked = f"wanted is {'≥' if least else '≤'} {limit:g}"
    found = f"{row.measure} is {row.ratio} x the baseline's"
    if row.ratio is not None and row.low is not None and row.high is not None:
        bounds = f"({row.low:.3f} to {row.high:.3f})"
        found = f"{row.measure} is {row.ratio:.3f} x the baseline's {bounds}"
    return _judged(row, family, (row.low, row.high), limit, least, f"{found}, {asked}")


def _change(row: Row, family: _Family, limit: float, drop: bool) -> Result:
    """Of a difference, by the interval of the ratio times the baseline."""
    score = row.measure.removeprefix("quality.")
    before, after = (float(pd.Series(side).median()) for side in (row.baseline, row.candidate))
    changes = [None if bound is None else before * (bound - 1) for bound in (row.low, row.high)]
    low, high = changes if not drop else [None if c is None else -c for c in reversed(changes)]
    word = "fell" if drop else "rose"
    change = before - after if drop else after - before
    text = f"{score} {word} by {change:.4f}, from {before:.4f} to {after:.4f}; allowed is {limit:g}"
    return _judged(row, family, (low, high), limit, least=False, text=text)


def _judged(
    row: Row,
    family: _Family,
    bounds: tuple[float | None, float | None],
    limit: float,
    least: bool,
    text: str,
) -> Result:
    lacks = family.lacks(row)
    outcome: Outcome = "cannot tell"
    low, high = bounds
    if not lacks and low is not None and high is not None:
        if low >= limit if least else high <= limit:
            outcome = "kept"
        elif high < limit if least else low > limit:
            outcome = "breached"
    return Result(row.workload, outcome, text + lacks)


def _absolute(label: str, score: str, candidate: pd.DataFrame, limit: float, least: bool) -> Result:
    own = candidate.label == label
    values = candidate.loc[own, f"quality.{score}"] if f"quality.{score}" in candidate else None
    if values is None or values.dropna().empty:
        return Result(label, "breached", f"the candidate has no {score}")
    middle = values.median()
    kept = middle >= limit if least else middle <= limit
    asked = f"wanted is {'≥' if least else '≤'} {limit:g}"
    return Result(label, "kept" if kept else "breached", f"{score} is {middle:.4f}, {asked}")


def _explained(fault: object) -> str:
    assert isinstance(fault, dict)
    where = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        section = Thresholds if len(fault["loc"]) > 1 else Gates
        return f"{where}: unknown key; known here: {_known(section)}"
    return f"{where}: {fault['msg']} (got {fault['input']!r})"


def _known(section: type[config.Section]) -> str:
    return ", ".join(section.model_fields)
