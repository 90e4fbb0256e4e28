"""The launches that a forecast is made of: of one workload on one setup, over links that tell of
the one that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dlbench.errors import UserError
from dlbench.report import differences, particulars
from dlbench.report.cost_model import Launch
from dlbench.report.records import Record

LEAST = 4
"""Launches of several ranks without which nothing is told."""
MEASURE = "pytest benchmarks/bench_scaling.py --ranks=1,2 [--hosts=a:1,b:1 --link=1gbit]"

MOST_TOLD = 3
"""Differences between two setups that are named, the likeliest to matter first."""
ASIDE = ("ranks of each host", "link, bit/s")
"""Of `particulars`: in what the launches of one forecast may differ."""

Kind = tuple[str, int | None, str, tuple[int, ...] | None]
"""Workload, batch of a rank, precision and shape."""


@dataclass(frozen=True)
class Repeats:
    """Launches of one kind, which differ in ranks, hosts and link alone."""

    kind: Kind
    records: list[Record]
    launches: list[Launch]
    """Of ``records``, in their order."""


def _kind(record: Record) -> Kind:
    what = record.workload
    return what.id, what.batch_per_rank, what.precision, what.shape


def _by_kind(records: Sequence[Record], fitted: Sequence[Record]) -> dict[Kind, Repeats]:
    """The launches that ``records`` tell enough of; those ``fitted`` tell of one rank's work."""
    alone: dict[Kind, list[float]] = {}
    for record in fitted:
        if record.workload.ranks == 1 and (launch := Launch.of(record)):
            alone.setdefault(_kind(record), []).extend(launch.own_s)
    found: dict[Kind, Repeats] = {}
    for record in records:
        kind = _kind(record)
        launch = Launch.of(record, fmean(alone[kind]) if kind in alone else None)
        if launch is not None:
            group = found.setdefault(kind, Repeats(kind, [], []))
            group.records.append(record)
            group.launches.append(launch)
    return found


def usable(records: Sequence[Record], workload: str | None = None) -> Repeats:
    """The launches of the one workload, on one setup, that ``records`` tell enough of; at least
    `LEAST` are on several ranks."""
    several = [
        group
        for kind, group in _by_kind(records, records).items()
        if workload in (None, kind[0]) and sum(one.ranks > 1 for one in group.launches) >= LEAST
    ]
    if not several:
        _refuse_without_one_rank([one for one in records if workload in (None, one.workload.id)])
        raise UserError(
            f"these files hold no {LEAST} launches of "
            f"{'a workload' if workload is None else workload} on several ranks that tell of "
            f"gradients and sums; launch {MEASURE} so many times"
        )
    if len(several) > 1:
        names = [f"{group.kind[0]} at batch {group.kind[1]}" for group in several]
        raise UserError(
            f"a forecast is of one workload; these files hold {'; '.join(names)}. "
            "Choose with --workload=ID, or give fewer files"
        )
    _refuse_a_mix(several[0].records)
    return several[0]


def alike(records: Sequence[Record], fitted: Repeats, option: str) -> Repeats:
    """The launches of ``records``, the files of ``option``, that repeat those ``fitted``."""
    id, batch, *_ = fitted.kind
    if (found := _by_kind(records, fitted.records).get(fitted.kind)) is None:
        raise UserError(
            f"the files of {option} hold no launch of {id} at batch {batch}, with the same "
            "precision and shape as those that the model is fitted to: give launches that differ "
            "in ranks and hosts alone"
        )
    _refuse_a_mix([*fitted.records, *found.records])
    return found


def _refuse_without_one_rank(records: Sequence[Record]) -> None:
    """Raise `UserError` for launches of several GPUs that lack only one rank's work beside them."""
    told = _by_kind(records, records)
    for record in records:
        kind = _kind(record)
        if kind not in told and Launch.of(record, alone_s=0.0) is not None:
            raise UserError(
                f"the steps of {kind[0]} at batch {kind[1]} on {record.workload.ranks} GPUs do not "
                "tell what they waited for others, so the work of a rank is taken from launches of "
                f"one, and these files hold none: launch {MEASURE}, where 1 is among the ranks, "
                f"{LEAST} times or more"
            )


def _refuse_a_mix(records: Sequence[Record]) -> None:
    """Raise `UserError` where launches of one kind differ in more than ranks, hosts and link."""
    setups: dict[str, list[int]] = {}
    for place, one in enumerate(records):
        named = f"setup {one.setup.name or 'without a name'} ({one.setup.fingerprint})"
        setups.setdefault(named, []).append(place)
    parts = setups if len(setups) > 1 else particulars.parted(records, ASIDE)
    if not parts:
        return
    told = [f"{part} in {_counted([records[i] for i in own])}" for part, own in parts.items()]
    if parts is setups:
        first, second = ([records[own[0]].setup.environment] for own in [*setups.values()][:2])
        told += [
            f"{found.what} is {found.before} in the first and {found.after} in the second"
            for found in differences.between(first, second)[:MOST_TOLD]
        ]
    what = records[0].workload
    raise UserError(
        f"the launches of {what.id} at batch {what.batch_per_rank} differ in more than ranks, "
        f"hosts and link: {'; '.join(told)}. Launch all on one setup, with one configuration and "
        "one list of --ranks, whose most on a host divide its cores into threads; or give fewer "
        "files"
    )


def _counted(records: Sequence[Record]) -> str:
    """How many launches on how many ranks."""
    counts = sorted(Counter(one.workload.ranks for one in records).items())
    return ", ".join(f"{number} launch(es) on {ranks} rank(s)" for ranks, number in counts)


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
            f"of {named}. Launch over a second with its --link=RATE; or all with --ranks=1,2,4 "
            "--hosts=a:2,b:2, where the two ranks of one host are a link, too"
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
