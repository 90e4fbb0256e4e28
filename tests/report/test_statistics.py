"""The verdicts are honest: by simulated launches whose truth is known, and by counting by hand."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from dlbench.report import statistics

Values = npt.NDArray[np.float64]


def launches(
    shape: tuple[int, int, int],
    cv: float,
    generator: np.random.Generator,
    *,
    drift: float = 0.0,
    outliers: float = 0.0,
) -> tuple[Values, Values]:
    """Throughputs (families, workloads, launches) of two equal setups, launched in alternation.

    ``drift`` is the amplitude of a slow wave over the launches of both, ``outliers`` the
    probability that a launch is 5 to 30 % slower.
    """
    families, workloads, count = shape
    at = np.linspace(0, 1, 2 * count)
    waves, phase = generator.uniform(0, 1.5, (2, families, workloads, 1))
    values = 1 + drift * np.sin(2 * np.pi * (waves * at + phase))
    values = values * (1 + cv * generator.standard_normal(values.shape))
    hit = generator.random(values.shape) < outliers
    values[hit] *= 1 - generator.uniform(0.05, 0.3, hit.sum())
    return values[..., ::2].copy(), values[..., 1::2].copy()


def decide(baseline: Values, candidate: Values) -> npt.NDArray[np.int64]:
    """Verdicts (families, workloads); each family is corrected for its workloads."""
    low, high = statistics.interval(baseline, candidate)
    corrected = statistics.holm(statistics.p_values(baseline, candidate))
    workloads, count = baseline.shape[1:]
    possible = statistics.enough(count, count, workloads)
    return statistics.verdicts(corrected, low, high, possible)


def false_rate(families: int, workloads: int, count: int, cv: float, **noise: float) -> float:
    """Fraction of comparisons of equal setups that end in a difference."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(0, families, 500):
        shape = (min(500, families), workloads, count)
        found.append(decide(*launches(shape, cv, generator, **noise)))
    verdict = np.concatenate(found)
    assert verdict.shape == (families, workloads)
    return float(np.isin(verdict, [statistics.LESS, statistics.MORE]).mean())


def power(families: int, workloads: int, count: int, cv: float, slowdown: float) -> float:
    """Fraction of families in which the one slower workload is found slower."""
    shape = (families, workloads, count)
    baseline, candidate = launches(shape, cv, np.random.default_rng(8))
    candidate[:, 0] *= 1 - slowdown
    return float((decide(baseline, candidate)[:, 0] == statistics.LESS).mean())


@pytest.mark.parametrize("cv", [0.005, 0.02, 0.1])
def test_equal_setups_rarely_differ(cv: float) -> None:
    assert false_rate(500, 1, 6, cv) <= 0.01
    assert false_rate(500, 1, 6, cv, drift=0.03, outliers=0.05) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("cv", [0.002, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("drift", [0.0, 0.03])
@pytest.mark.parametrize(("workloads", "count"), [(1, 5), (4, 6), (1, 8)])
def test_equal_setups_differ_in_one_of_a_hundred_comparisons_at_most(
    cv: float, drift: float, workloads: int, count: int
) -> None:
    families = 10_000 // workloads
    rate = false_rate(families, workloads, count, cv, drift=drift, outliers=0.05)
    print(f"{count} + {count}, {workloads} workload(s), cv {cv}, drift {drift}: {rate:.4%}")
    assert rate <= 0.01


def test_a_slowdown_of_five_per_cent_is_found() -> None:
    assert power(400, 1, 6, 0.01, 0.05) >= 0.9
    assert power(400, 4, 6, 0.01, 0.05) >= 0.9
    assert power(30, 64, 8, 0.005, 0.05) >= 0.9


@pytest.mark.slow
def test_a_slowdown_of_five_per_cent_is_found_among_64_workloads() -> None:
    found = {
        (workloads, count): power(families, workloads, count, 0.01, 0.05)
        for families, workloads, count in ((2500, 4, 6), (400, 64, 8))
    }
    print(found)
    assert min(found.values()) >= 0.9


def test_same_needs_evidence() -> None:
    generator = np.random.default_rng(9)
    baseline, candidate = launches((500, 1, 8), 0.005, generator)
    assert (decide(baseline, candidate) == statistics.SAME).mean() > 0.9
    # A difference of just the margin is hardly ever called the same, however quiet the launches.
    for cv in (0.001, 0.005, 0.02):
        baseline, candidate = launches((500, 1, 8), cv, generator)
        verdict = decide(baseline, candidate * (1 - statistics.MARGIN))
        assert (verdict == statistics.SAME).mean() <= 0.015
    # Nor are setups of which nothing is known, being noisy.
    verdict = decide(*launches((500, 1, 6), 0.1, generator))
    assert (verdict == statistics.SAME).mean() <= 0.01


@pytest.mark.parametrize(
    ("cv", "count", "workloads"), [(0.001, 6, 1), (0.02, 6, 4), (0.015, 8, 16), (0.04, 10, 1)]
)
def test_the_detectable_difference_is_detected(cv: float, count: int, workloads: int) -> None:
    shown = statistics.detectable(cv, count, count, workloads)
    assert shown is not None
    families = max(40, 200 // workloads)
    assert power(families, workloads, count, cv, shown) >= 0.85
    assert power(families, workloads, count, cv, 0.7 * shown) < 0.8


def test_p_values_by_counting() -> None:
    # All 20 ways to choose 3 of 6 ranks; U as extreme as that of ranks 1, 2, 4 has 4 of them.
    assert statistics.p_values([1, 2, 4], [3, 5, 6]) == pytest.approx(4 / 20)
    assert statistics.p_values([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert statistics.smallest_p(6, 6) == pytest.approx(2 / 924)
    assert statistics.p_values(np.arange(8), np.arange(8) + 8) == pytest.approx(2 / 12870)
    assert statistics.p_values([1] * 6, [1] * 6) == 1


@pytest.mark.parametrize(("n", "m"), [(1, 1), (6, 6), (5, 9), (50, 49), (60, 70)])
def test_p_values_by_scipy(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    a, b = generator.normal(size=(20, n)), generator.normal(0.5, size=(20, m))
    expected = stats.mannwhitneyu(a, b, axis=-1, method="asymptotic" if n == 60 else "exact")
    assert statistics.p_values(a, b) == pytest.approx(expected.pvalue)


def test_ties_speak_against_a_difference() -> None:
    # One pair of 36 is tied: no more extreme than if that pair were in the wrong order.
    tied = statistics.p_values([1, 2, 3, 4, 5, 6], [6, 7, 8, 9, 10, 11])
    assert tied == pytest.approx(4 / 924)


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert statistics.holm([[0.01, 0.02], [0.02, 0.01]]) == pytest.approx(
        np.array([[0.02, 0.02], [0.02, 0.02]])
    )


@pytest.mark.parametrize("n", [3, 4])
def test_the_interval_weighs_all_resamples(n: int) -> None:
    generator = np.random.default_rng(n)
    baseline, candidate = generator.uniform(1, 2, (2, n))

    def medians(values: Values) -> Values:
        return np.array([np.median(draw) for draw in product(values, repeat=n)])

    ratios = np.divide.outer(medians(candidate), medians(baseline)).ravel()
    for level in (0.5, 0.9):
        low, high = statistics.interval(baseline, candidate, level)
        tail = (1 - level) / 2
        # Up to rounding at the steps of a discrete distribution.
        assert (ratios < low - 1e-9).mean() <= tail + 1e-6 <= (ratios <= low + 1e-9).mean() + 2e-6
        assert (ratios < high - 1e-9).mean() <= 1 - tail <= (ratios <= high + 1e-9).mean() + 1e-6


def test_the_share_of_pairs_in_the_wrong_order_by_counting() -> None:
    found = statistics._pairs_distribution(3, 4)
    wrong = [sum(r > s for r in a for s in {*range(7)} - {*a}) for a in combinations(range(7), 3)]
    expected = [np.mean([w <= k for w in wrong]) for k in range(13)]
    assert found == pytest.approx(expected)


def test_scores_without_any_variance() -> None:
    same, other, zero = np.full(6, 0.5), np.full(6, 0.4), np.zeros(6)
    assert statistics.variation(same, other) == pytest.approx(0)
    assert decide(same[None, None], same[None, None]).item() == statistics.SAME
    assert decide(same[None, None], other[None, None]).item() == statistics.LESS
    assert decide(zero[None, None], zero[None, None]).item() == statistics.SAME
    assert decide(zero[None, None], same[None, None]).item() == statistics.MORE
    assert statistics.variation(zero, same) is None


def test_what_few_launches_allow() -> None:
    assert not statistics.enough(1, 1, 1)
    assert not statistics.enough(1, 1000, 1)
    assert not statistics.enough(4, 4, 1)
    assert statistics.enough(5, 5, 1)
    assert not statistics.enough(5, 5, 2)
    assert statistics.enough(6, 6, 4)
    assert not statistics.enough(6, 6, 5)
    assert statistics.enough(8, 8, 64)
    assert not statistics.enough(8, 8, 65)
    assert statistics.launches_wanted(1.0, None, 1, 1) == 5
    assert statistics.launches_wanted(1.0, None, 1, 1, comparisons=4) == 6
    assert statistics.detectable(0.01, 4, 4) is None
    assert statistics.variation([1.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(
    ("comparisons", "least"),
    # 2 / binomial(2 n, n): 2/252, 2/924, 2/3432, 2/12870, 2/48620.
    [(0, 5), (1, 5), (2, 6), (4, 6), (5, 7), (17, 7), (18, 8), (64, 8), (65, 9), (243, 9)],
)
def test_more_comparisons_take_more_launches(comparisons: int, least: int) -> None:
    assert statistics.least(comparisons) == least


def test_launches_that_are_asked_for_suffice() -> None:
    wanted = statistics.launches_wanted(0.95, 0.013, 6, 6)
    assert wanted is not None
    assert 6 < wanted < 12
    assert power(100, 1, wanted, 0.013, 0.05) >= 0.8
    # At the margin itself no number of launches decides.
    assert statistics.launches_wanted(1 - statistics.MARGIN, 0.01, 6, 6) is None
