"""The page that compares any two setups, and which comparisons are made ahead of it.

Every launch's numbers are in the page, so the ratio of medians is shown for any two. Verdicts are
computed here, by `dlbench.report.compare`, the older side as the baseline, as long as `BUDGET`
lasts: of each setup's newest two states of the code, of the newest code of each two setups, of
older states and those before them; then all of these the other way round. For the rest the page
gives the command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shlex
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dlbench.report import compare, markdown
from dlbench.report.site import markup
from dlbench.report.site.archive import Archive, Group, Subject
from dlbench.report.site.markup import embedded

if TYPE_CHECKING:
    from pandas import DataFrame

    from dlbench.report.compare import Comparison

Pair = tuple[int, int]
"""Positions in `Archive.subjects` of the baseline and of the candidate."""

BUDGET = 200
"""Workloads, over all pairs, that are compared ahead: 30 ms of one core each."""


def precomputed(frame: DataFrame, archive: Archive) -> dict[Pair, Comparison]:
    """The comparisons made ahead, the likeliest to be asked for first."""
    found: dict[Pair, Comparison] = {}
    spent = 0
    subjects = archive.subjects
    forward = [*_likely(archive)]
    for pair in (*forward, *(pair[::-1] for pair in forward)):
        one, other = (subjects[position] for position in pair)
        shared = len(one.groups.keys() & other.groups.keys())
        if not shared:
            continue
        if found and spent + shared > BUDGET:
            continue
        spent += shared
        # What cannot be compared has no verdict here; the command says why.
        with contextlib.suppress(compare.CompareError):
            made = compare.compare(frame.iloc[one.rows], frame.iloc[other.rows])
            # Setups alone would not tell two states of the code apart.
            found[pair] = dataclasses.replace(made, baseline=one.label, candidate=other.label)
    return found


def page(archive: Archive, compared: dict[Pair, Comparison]) -> str:
    """Two choices, and what differs between them."""
    if len(archive.subjects) < 2:
        body = (
            "<p>There is one setup with one state of the code here, and so nothing to compare it "
            "with. Build the report from the results of two.</p>"
        )
        return markup.page("Compare", body, at="compare.html")
    value = {
        "subjects": [_subject(archive, subject) for subject in archive.subjects],
        "pairs": {f"{a}:{b}": _pair(made) for (a, b), made in compared.items()},
        "margin": compare.MARGIN,
        "alpha": compare.ALPHA,
    }
    margin = f"{100 * compare.MARGIN:g} %"
    body = f"""<p>A ratio is the median of B's launches over that of A's: of throughput, more than 1
is faster; of memory, less than 1 is better. The line is the interval, the grey band 1 ± {margin}.
Two setups differ if the line lies outside the band and p, corrected for the number of workloads,
is at most {compare.ALPHA:g}; they are the same if the whole line lies inside. All else cannot be
told.</p>
<noscript><p>Choosing two setups here needs JavaScript. The command
<code>python -m dlbench.report compare A*.json --vs B*.json</code> says the same.</p></noscript>
<form class="choose" id="choose" hidden>
<label>A, the baseline <select id="a"></select></label>
<label>B, compared with it <select id="b"></select></label>
<button type="button" id="swap">Swap A and B</button>
</form>
<p id="told" role="status"></p>
<div id="result"></div>
{embedded("comparison", value)}"""
    return markup.page("Compare two setups", body, at="compare.html", scripts=["compare.js"])


def _likely(archive: Archive) -> Iterator[Pair]:
    """A state of the code and the one before, of each setup; two setups; older states.

    The older one is the baseline; with the newest first.
    """
    place = {id(subject): n for n, subject in enumerate(archive.subjects)}
    for setup in archive.setups:
        for before, after in itertools.pairwise(setup.subjects[-2:]):
            yield place[id(before)], place[id(after)]
    newest = [place[id(setup.newest)] for setup in archive.setups]
    for latter, former in sorted(itertools.combinations(newest, 2), key=sum):
        yield former, latter
    for setup in archive.setups:
        for before, after in itertools.pairwise(setup.subjects[:-1]):
            yield place[id(before)], place[id(after)]


def _subject(archive: Archive, subject: Subject) -> dict[str, Any]:
    return {
        "key": subject.key,
        "label": subject.label,
        "code": subject.code,
        "page": f"setup-{subject.setup.slug}.html",
        "files": " ".join(map(shlex.quote, subject.files)),
        "workloads": {group.label: _workload(archive, group) for group in subject.groups.values()},
    }


def _workload(archive: Archive, group: Group) -> dict[str, Any]:
    score = group.headline
    quality = None if score is None else group.median(f"quality.{score}")
    return {
        "page": f"workload-{archive.families[group.workload.family]}.html",
        "unit": group.workload.unit,
        "throughput": _brief(group.all("throughput")),
        "memory": _brief(group.all("peak_host_rss")),
        "score": score,
        "quality": quality,
    }


def _pair(made: Comparison) -> dict[str, Any]:
    return {
        "rows": [
            {
                "workload": row.workload,
                "measure": row.measure,
                "before": _median(row.baseline),
                "after": _median(row.candidate),
                "launches": [len(row.baseline), len(row.candidate)],
                "ratio": _finite(row.ratio),
                "low": _finite(row.low),
                "high": _finite(row.high),
                "p": _finite(row.p),
                "verdict": row.verdict,
                "more": markdown.verdict(row).removeprefix(row.verdict),
            }
            for row in (*made.rows, *made.quality)
        ],
        "differences": [
            [str(part) for part in (one.what, one.before, one.after, one.relevance, one.note or "")]
            for one in made.differences
        ],
        "causes": [str(cause) for cause in made.causes],
        "markdown": markdown.comparison(made),
        "only": [list(map(str, made.only_in_baseline)), list(map(str, made.only_in_candidate))],
    }


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _brief(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
