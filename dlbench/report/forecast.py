"""A forecast of training steps on numbers of ranks that nobody measured, with its uncertainty.

The model is that of `dlbench.report.cost_model`, fitted anew in each of many draws: launches are
drawn with replacement among those of equal ranks and link (bootstrap), and one further launch is
imagined from what theirs deviate by. The interval holds the step of such a launch at the stated
rate, if the model is right. Its bounds are those percentiles of the draws that few launches call
for: T. Hesterberg, Am. Stat. 69 (2015) 371, section 4.6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from dlbench.errors import UserError
from dlbench.report.cost_model import Launch, Values, fit, is_told

LEVEL = 0.9
DRAWS = 1000


@dataclass(frozen=True)
class Range:
    """The median of the draws, and the bounds of the interval. Where draws of two models stand for
    what is not known, the mean of both medians, and the outer bounds."""

    middle: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Forecast:
    """Of one launch on so many ranks; times in s of a step."""

    ranks: int
    step_s: Range
    compute_s: Range
    exposed_s: Range
    efficiency: Range | None
    """The step of one rank by this one; None without records of one rank."""


def forecast(
    launches: Sequence[Launch],
    counts: Sequence[int],
    link: float | None,
    load: Sequence[Launch] = (),
    draws: int = DRAWS,
) -> list[Forecast]:
    """A step on each of ``counts`` ranks over ``link``.

    ``load`` are launches whose ranks computed as hard as those of the forecast will: where ranks
    share memory or cores, as hosts that are namespaces do, or a cloud's.
    """
    if not all(one.waits_seen for one in load):
        raise UserError(
            "launches of --load on several GPUs do not tell a rank's own work: give launches on "
            "one rank each, started side by side"
        )
    generator = np.random.default_rng(0)
    alone = [one for one in launches if one.ranks == 1]
    groups = defaultdict(list)
    for one in launches:
        if one.ranks > 1:
            groups[one.ranks, one.link].append(one)
    several = [one for group in groups.values() for one in group]
    # What deviates in a rank's own work, and cannot be seen there, is seen in what is exposed.
    as_alone = not load and not all(one.waits_seen for one in several)
    loaded = side_by_side(load) or (alone if as_alone else _of_most_ranks(several))
    makes = {1: alone or loaded}
    deviating = _deviations(several)
    # Whether there is anything to hide behind is a matter of the link.
    over = [one for one in several if one.link == link] or several
    beside = any(one.sums_overlap for one in over)
    # Which part of a small sum grows with the ranks cannot be seen in one number of them: the
    # interval then reaches from none of it to all.
    parts = (0.0,) if is_told(np.array([one.ranks for one in several])) else (0.0, 1.0)
    drawn = np.empty((len(parts), len(counts), 3, draws))
    for draw in range(draws):
        again = [pick for group in groups.values() for pick in _resampled(group, generator)]
        models = [fit(again, part) for part in parts]
        single = float(np.mean([max(one.own_s) for one in _resampled(makes[1], generator)]))
        for place, count in enumerate(counts):
            compute = single
            if count == 1 or not as_alone:
                compute = _compute(makes.get(count, loaded), count, generator)
            deviation = float(generator.choice(deviating)) if count > 1 else 0.0
            for model, results in zip(models, drawn, strict=True):
                exposed = model.exposed_s(several[0].gradients, compute, count, link, beside)
                exposed = max(exposed + deviation * (compute + exposed), 0.0)
                results[place, :, draw] = compute, exposed, single / (compute + exposed)
    freedom = min(len(loaded) - 1, len(several) - 2)
    made = []
    for place, count in enumerate(counts):
        compute, exposed, efficiency = drawn[:, place].swapaxes(0, 1)
        step, own, rest, share = (
            _range(one, freedom) for one in (compute + exposed, compute, exposed, efficiency)
        )
        made.append(Forecast(count, step, own, rest, share if alone else None))
    return made


def side_by_side(load: Sequence[Launch]) -> list[Launch]:
    """Launches that ran at the same time as one, of all their ranks: what the machine was like then
    is no difference between ranks."""
    found: list[Launch] = []
    for one in sorted(load, key=lambda one: one.when or (0.0, 0.0)):
        last = found[-1] if found else None
        if last and last.when and one.when and one.when[0] < last.when[1]:
            when = last.when[0], max(last.when[1], one.when[1])
            ranks, own_s = last.ranks + one.ranks, last.own_s + one.own_s
            found[-1] = replace(last, ranks=ranks, own_s=own_s, when=when)
        else:
            found.append(one)
    return found


def _of_most_ranks(several: Sequence[Launch]) -> list[Launch]:
    """With communication beside their work, and on as many ranks as there are two launches of: one
    tells of no spread between launches."""
    counts = [one.ranks for one in several]
    most = max((ranks for ranks in counts if counts.count(ranks) > 1), default=None)
    return [one for one in several if most in (None, one.ranks)]


def _resampled(group: Sequence[Launch], generator: np.random.Generator) -> list[Launch]:
    return [group[i] for i in generator.integers(len(group), size=len(group))]


def _deviations(several: Sequence[Launch]) -> Values:
    """Of exposed times from the model, in parts of its step, with as much spread as further
    launches have: the noise of a network grows with what goes over it."""
    model = fit(several)
    own = np.array([max(one.own_s) for one in several])
    found = np.array([one.exposed_s for one in several])
    told = np.array(
        [
            model.exposed_s(one.gradients, max(one.own_s), one.ranks, one.link, one.sums_overlap)
            for one in several
        ]
    )
    return (found - told) / (own + told) * np.sqrt(len(found) / (len(found) - 2))


def _compute(pool: Sequence[Launch], count: int, generator: np.random.Generator) -> float:
    """Of a launch that nobody made, the slowest of ``count`` ranks' own work."""
    means = np.array([np.mean(one.own_s) for one in pool])
    apart = np.concatenate([np.array(one.own_s) / np.mean(one.own_s) for one in pool])
    centre = float(np.mean(generator.choice(means, len(means))))
    launch = float(generator.choice(means - means.mean()))
    launch *= np.sqrt(len(means) / max(len(means) - 1, 1))
    return (centre + launch) * float(np.max(generator.choice(apart, count)))


def _range(drawn: npt.NDArray[np.float64], freedom: int) -> Range:
    """Of the draws (parts, draws)."""
    tail = float(stats.norm.cdf(stats.t.ppf((1 - LEVEL) / 2, max(freedom, 1))))
    low, middle, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=1)
    return Range(float(middle.mean()), float(low.min()), float(high.max()))
