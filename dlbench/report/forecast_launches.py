"""The launches that a forecast is made of: of one workload on one setup, over links that tell of
the one that is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from dlbench.errors import UserError
from dlbench.report.cost_model import Launch
from dlbench.report.records import Record

LEAST = 4
"""Launches of several ranks without which nothing is told."""
MEASURE = "pytest benchmarks/bench_scaling.py --ranks=1,2 [--hosts=a:1,b:1 --link=1gbit]"

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
