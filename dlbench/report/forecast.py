"""A forecast of training steps on numbers of ranks that nobody measured, with its uncertainty.

The model is that of `dlbench.report.cost_model`, fitted anew in each of many draws: launches are
drawn with replacement among those of equal ranks and link (bootstrap), and one further launch is
imagined from what theirs deviate by. The interval holds the step of such a launch at the stated
rate, if the model is right. Its bounds are those percentiles of the draws that few launches call
for: T. Hesterberg, Am. Stat. 69 (2015) 371, section 4.6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from dlbench.errors import UserError
from dlbench.report.cost_model import Launch, Values, fit, is_told
from dlbench.report.records import Record

LEVEL = 0.9
DRAWS = 1000
LEAST = 4
"""Launches of several ranks without which nothing is told."""
MEASURE = "pytest benchmarks/bench_scaling.py --ranks=1,2 [--hosts=a:1,b:1 --link=1gbit]"


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


Kind = tuple[str, int | None, str, tuple[int, ...] | None, str]
"""Workload, batch of a rank, precision, shape and setup."""


def _by_kind(records: Iterable[Record]) -> dict[Kind, list[Launch]]:
    """The launches that ``records`` tell enough of."""
    found = defaultdict(list)
    for record in records:
        launch, what = Launch.of(record), record.workload
        if launch is not None:
            setup = record.setup.name or record.setup.fingerprint
            key = (what.id, what.batch_per_rank, what.precision, what.shape, setup)
            found[key].append(launch)
    return found


def usable(records: Iterable[Record], workload: str | None = None) -> tuple[Kind, list[Launch]]:
    """The launches of the one workload, on one setup, that ``records`` tell enough of; at least
    `LEAST` are on several ranks."""
    several = {
        key: launches
        for key, launches in _by_kind(records).items()
        if workload in (None, key[0]) and sum(one.ranks > 1 for one in launches) >= LEAST
    }
    if not several:
        raise UserError(
            f"these files hold no {LEAST} launches of "
            f"{'a workload' if workload is None else workload} on several ranks that tell of "
            f"gradients and sums; launch {MEASURE} so many times"
        )
    if len(several) > 1:
        names = [f"{key[0]} at batch {key[1]}, {key[-1]}" for key in several]
        raise UserError(
            f"a forecast is of one workload on one setup; these files hold {'; '.join(names)}. "
            "Choose with --workload=ID, or give fewer files"
        )
    return next(iter(several.items()))


def alike(records: Iterable[Record], kind: Kind, option: str) -> list[Launch]:
    """The launches of ``records``, the files of ``option``, that are of ``kind``."""
    found = _by_kind(records)
    if kind not in found:
        raise UserError(
            f"the files of {option} hold no launch of {kind[0]} at batch {kind[1]}, {kind[-1]}, "
            "with the same precision and shape as those that the model is fitted to: give launches "
            "that differ in ranks and hosts alone"
        )
    return found[kind]


def chosen_link(
    launches: Sequence[Launch], wanted: float | None
) -> tuple[list[Launch], float | None]:
    """Those of ``launches`` to fit, and the link (bits/s) to forecast for; None: the one that all
    went over, whatever its rate is."""
    several = [one for one in launches if one.ranks > 1]
    links = {one.link for one in several}
    if wanted is None and len(links) == 1:
        return list(launches), next(iter(links))
    named = ", ".join(sorted("unknown" if one is None else rate(one) for one in links))
    if wanted is None:
        raise UserError(
            f"the launches are of several links ({named}): give the one to forecast, --bandwidth="
        )
    known = [one for one in launches if one.ranks == 1 or one.link is not None]
    if wanted not in links and len(links - {None}) < 2:
        raise UserError(
            f"launches of at least two links are needed to forecast for {rate(wanted)}; these are "
            f"of {named}. Ranks on one host are a link, too: {MEASURE}"
        )
    if (left := sum(one.ranks > 1 for one in known)) < LEAST:
        raise UserError(
            f"only {left} launches of several ranks are over a known link, and {LEAST} are needed "
            f"to forecast for {rate(wanted)}: launch more with --link=RATE"
        )
    return known, wanted


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
    generator = np.random.default_rng(0)
    alone = [one for one in launches if one.ranks == 1]
    groups = defaultdict(list)
    for one in launches:
        if one.ranks > 1:
            groups[one.ranks, one.link].append(one)
    several = [one for group in groups.values() for one in group]
    loaded = side_by_side(load) or _of_most_ranks(several)
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


def rate(link: float | None) -> str:
    """As tc writes it."""
    if link is None:
        return "a link of unknown rate"
    if np.isinf(link):
        return "one host"
    for unit, bits in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if link >= bits:
            return f"{link / bits:g}{unit}"
    return f"{link:g}bit"


def parsed_rate(text: str) -> float:
    """Bits/s of a link such as ``10gbit`` or ``500mbit``."""
    for unit, bits in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if text.endswith(unit):
            try:
                value = float(text.removesuffix(unit)) * bits
            except ValueError:
                break
            if 0.0 < value < np.inf:
                return value
    raise ValueError(f"{text!r} is no rate of a link; write 10gbit, 500mbit or 64kbit")
