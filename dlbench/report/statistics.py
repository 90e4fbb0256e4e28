"""Whether two sets of launches differ, by how much, and whether there are enough of them to say.

The unit is a launch, not a step: steps of a launch share its luck with memory, caches and clocks.
Functions work on arrays (..., launches), so that many comparisons cost little more than one.

A difference is told where two things agree: the Mann-Whitney test on the launches (exact, after
Holm's correction), which outliers and skew do not mislead, and the bootstrap interval of the ratio
of medians, which has to lie beyond the margin. "Same" is told where the whole interval lies within
the margin. All else is "cannot tell".

H. B. Mann & D. R. Whitney, Ann. Math. Statist. 18 (1947) 50; S. Holm, Scand. J. Statist. 6 (1979)
65; B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans (SIAM, 1982), section 10.3:
the bootstrap distribution of a median without resampling.
"""

from __future__ import annotations

import bisect
import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Values = npt.NDArray[np.float64]

MARGIN, ALPHA, POWER = 0.02, 0.01, 0.9
LEAST = 5
"""Launches of each setup below which nothing is told: fewer do not bound a median."""
MOST = 40
"""Launches of each setup that are still worth suggesting."""
EXACT = 2500
"""Pairs of launches up to which the test's distribution is counted out; beyond, it is normal."""

LESS, SAME, MORE, UNKNOWN = -1, 0, 1, 2
"""Verdicts on the candidate: its measure is less, the same, or more; or that cannot be told."""


def ratio_of_medians(baseline: npt.ArrayLike, candidate: npt.ArrayLike) -> Values:
    """Candidate / baseline, of the medians over the last axis."""
    return _ratio(
        np.median(np.asarray(candidate, float), axis=-1),
        np.median(np.asarray(baseline, float), axis=-1),
    )


def p_values(baseline: npt.ArrayLike, candidate: npt.ArrayLike) -> Values:
    """Two-sided Mann-Whitney p over the last axis, uncorrected."""
    a, b = np.asarray(baseline, float), np.asarray(candidate, float)
    n, m = a.shape[-1], b.shape[-1]
    if n * m > EXACT:
        return np.asarray(stats.mannwhitneyu(a, b, axis=-1, method="asymptotic").pvalue)
    a, b = a[..., :, None], b[..., None, :]
    below = (a < b).sum((-2, -1)) + (a == b).sum((-2, -1)) / 2
    # Rounded up: ties speak against a difference.
    wrong = np.ceil(np.minimum(below, n * m - below)).astype(int)
    return np.minimum(2 * _pairs_distribution(n, m)[wrong], 1)


def smallest_p(n: int, m: int) -> float:
    """Of ``n`` + ``m`` launches: p when all of one setup are slower than all of the other."""
    return 2 / math.comb(n + m, n)


def holm(p: npt.ArrayLike) -> Values:
    """p-values corrected for there being several along the last axis; no more than 1."""
    p = np.asarray(p, float)
    order = np.argsort(p, axis=-1)
    count = p.shape[-1]
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(count, 0, -1)
    corrected = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1)
    return np.take_along_axis(corrected, np.argsort(order, axis=-1), axis=-1)


def interval(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, level: float = 1 - ALPHA
) -> tuple[Values, Values]:
    """Percentile bootstrap interval of the ratio of medians.

    All resamples are weighed in place of drawing some: there is no seed and no noise of drawing.
    """
    below, weights_below = _resampled_medians(baseline)
    above, weights_above = _resampled_medians(candidate)
    ratios = _ratio(above[..., None, :], below[..., :, None])
    ratios = ratios.reshape(*ratios.shape[:-2], -1)
    weights = np.outer(weights_below, weights_above).ravel()
    order = np.argsort(ratios, axis=-1)
    ranked = np.take_along_axis(ratios, order, axis=-1)
    total = np.cumsum(weights[order], axis=-1)
    last = ranked.shape[-1] - 1

    def quantile(probability: float) -> Values:
        first = np.minimum((total < probability).sum(-1, keepdims=True), last)
        return np.take_along_axis(ranked, first, axis=-1)[..., 0]

    tail = (1 - level) / 2
    return quantile(tail), quantile(1 - tail)


def enough(n: int, m: int, comparisons: int, alpha: float = ALPHA) -> bool:
    """Whether ``n`` + ``m`` launches could show a difference in each of so many comparisons."""
    return min(n, m) >= LEAST and smallest_p(n, m) * comparisons <= alpha


def least(comparisons: int, alpha: float = ALPHA) -> int:
    """Launches of each setup without which none of so many comparisons could show a difference."""
    return next(n for n in itertools.count(LEAST) if enough(n, n, comparisons, alpha))


def verdicts(
    corrected: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    possible: npt.ArrayLike,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> npt.NDArray[np.int64]:
    """LESS, SAME, MORE or UNKNOWN from corrected p-values, the intervals, and `enough`."""
    corrected, low, high = (np.asarray(values, float) for values in (corrected, low, high))
    differs = corrected <= alpha
    within = (low >= 1 - margin) & (high <= 1 + margin)
    found = np.select(
        [differs & (high < 1 - margin), differs & (low > 1 + margin), within],
        [LESS, MORE, SAME],
        UNKNOWN,
    )
    return np.where(possible, found, UNKNOWN)


def variation(baseline: npt.ArrayLike, candidate: npt.ArrayLike) -> float | None:
    """Coefficient of variation from launch to launch, pooled over both setups (launches,); None if
    it cannot be known: a single launch of a setup, or a mean of 0."""
    sides = [np.asarray(values, float) for values in (baseline, candidate)]
    if min(map(len, sides)) < 2 or any(side.mean() == 0 for side in sides):
        return None
    squares = sum(((side / side.mean() - 1) ** 2).sum() for side in sides)
    return math.sqrt(squares / (sum(map(len, sides)) - 2))


def detectable(
    cv: float,
    n: int,
    m: int,
    comparisons: int = 1,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> float | None:
    """Smallest relative difference that ``n`` + ``m`` launches of variation ``cv`` show with a
    probability of `POWER`, in each of so many comparisons; None if they show none."""
    if not enough(n, m, comparisons, alpha):
        return None
    by_test = cv * _separation(n, m, alpha / comparisons)
    return max(by_test, margin + _half_width(cv, n, m, alpha, POWER))


def launches_wanted(
    ratio: float,
    cv: float | None,
    n: int,
    m: int,
    comparisons: int = 1,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> int | None:
    """Launches of each setup that would likely bring a verdict, if ratio and variation stay as seen
    on ``n`` + ``m`` of them; None if `MOST` would not."""
    difference = abs(ratio - 1)

    def suffices(launches: int) -> bool:
        if not enough(launches, launches, comparisons, alpha):
            return False
        if cv is None:
            return True
        if difference > margin:
            shown = detectable(cv, launches, launches, comparisons, margin, alpha)
            return shown is not None and shown <= difference
        return difference + _half_width(cv, launches, launches, alpha) <= margin

    # One more at least of the setup that has fewest: what there is has brought no verdict.
    counts = range(max(LEAST, min(n, m) + 1), MOST + 1)
    found = bisect.bisect_left(counts, True, key=suffices)
    return counts[found] if found < len(counts) else None


def _ratio(above: Any, below: Any) -> Values:
    """Of two zeros 1: they are the same."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((above == 0) & (below == 0), 1.0, np.divide(above, below))


def _resampled_medians(values: npt.ArrayLike) -> tuple[Values, Values]:
    """The medians (..., count) that resamples can have, and the probability (count,) of each."""
    ranked = np.sort(np.asarray(values, float), axis=-1)
    first, second, weights = _median_ranks(ranked.shape[-1])
    return (ranked[..., first] + ranked[..., second]) / 2, weights


@lru_cache
def _median_ranks(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Values]:
    """Which two ranks, of ``n``, the median of a resample is the mean of, and how probably."""
    ranks = np.arange(n)
    half = (n + 1) // 2
    # The half-th smallest of n draws is at most the k-th value if half of the draws are.
    at_most = stats.binom.sf(half - 1, n, np.arange(n + 1) / n)
    single = np.diff(at_most)
    joint = np.diag(single)
    if n % 2 == 0:
        # Ranks i < j: half of the draws up to i, one at least at i; the others from j on, likewise.
        log = special.gammaln(n + 1) - 2 * special.gammaln(half + 1)
        upto = np.exp(log / 2) * np.diff((np.arange(n + 1) / n) ** half)
        joint = np.triu(np.outer(upto, upto[::-1]), 1)
        joint += np.diag(single - joint.sum(1))
    first, second = np.nonzero(joint > 1e-9)
    weights = joint[first, second]
    return ranks[first], ranks[second], weights / weights.sum()


@lru_cache
def _separation(n: int, m: int, alpha: float, draws: int = 2000) -> float:
    """Difference of the means, in standard deviations of normal launches, that the Mann-Whitney
    test finds at ``alpha`` with a probability of `POWER`."""
    distribution = _pairs_distribution(n, m)
    # As many pairs may be in the wrong order.
    wrong = int(np.searchsorted(2 * distribution, alpha, side="right")) - 1
    generator = np.random.default_rng(0)
    pairs = generator.normal(size=(draws, n, 1)) - generator.normal(size=(draws, 1, m))
    needed = np.partition(pairs.reshape(draws, -1), -1 - wrong, axis=-1)[:, -1 - wrong]
    return float(np.quantile(needed, POWER))


@lru_cache
def _pairs_distribution(n: int, m: int) -> Values:
    """Probability that at most 0, 1, ... of the n m pairs are in the wrong order by chance."""
    # The coefficients of the Gaussian binomial: prod (1 - q^(m+i)) / (1 - q^i).
    counts = np.zeros(n * m + 1)
    counts[0] = 1
    for i in range(1, n + 1):
        counts[m + i :] -= counts[: -m - i].copy()
        for k in range(i, n * m + 1):
            counts[k] += counts[k - i]
    return np.cumsum(counts) / math.comb(n + m, n)


def _half_width(cv: float, n: int, m: int, alpha: float, power: float = 0.5) -> float:
    """Of the interval, and as far as its centre may lie off with a probability of ``power``."""
    error = cv * math.sqrt(math.pi / 2 * (1 / n + 1 / m))  # of the medians' ratio, if n is large
    return float(error * (special.ndtri(power) - special.ndtri(alpha / 2)))
