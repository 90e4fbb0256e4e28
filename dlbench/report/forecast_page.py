"""The page of a forecast: what it says, where it comes from, and what was measured beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from dlbench.errors import UserError
from dlbench.report.cost_model import Launch, Model, fit, is_told
from dlbench.report.forecast import DRAWS, LEVEL, Forecast, Range, side_by_side
from dlbench.report.forecast_launches import rate
from dlbench.report.markdown import escaped, table
from dlbench.report.records import Record


def markdown(
    launches: Sequence[Launch],
    made: Sequence[Forecast],
    link: float | None,
    measured: Sequence[Launch] = (),
    load: Sequence[Launch] = (),
    records: Sequence[Record] = (),
) -> str:
    """The forecast as a page: how it was made, and beside it what was ``measured``.

    ``records`` are those that the launches were read from; the page names their origin.
    """
    several = [one for one in launches if one.ranks > 1]
    model = fit(several)
    head = [
        "ranks", f"step, ms ({LEVEL:.0%} interval)", "compute, ms", "exposed communication, ms",
        "efficiency",
    ]  # fmt: skip
    rows = [
        [
            str(one.ranks), _shown(one.step_s), _shown(one.compute_s), _shown(one.exposed_s),
            "–" if one.efficiency is None else _shown(one.efficiency, 1.0, 3),
        ]
        for one in made
    ]  # fmt: skip
    lines = [f"# Forecast of a training step over {rate(link)}", "", *table(head, rows)]
    times = _times({"to fit": launches, "under load": load, "measured beside": measured})
    lines += ["", *_origin(records), *times, *_compression(records)]
    lines += _explained(launches, model, load)
    if measured:
        lines += ["", "## Beside what was measured", "", *_beside(made, measured, link)]
    return "\n".join(lines) + "\n"


def _origin(records: Sequence[Record]) -> list[str]:
    days = sorted({f"{one.created:%Y-%m-%d}" for one in records})
    commits = sorted(
        {
            (one.code.commit or "unknown")[:12] + (" with changes" if one.code.dirty else "")
            for one in records
        }
    )
    machines = sorted({_machine(one) for one in records})
    setups = sorted({one.setup.name or one.setup.fingerprint for one in records})
    told = [", ".join(some) for some in (days, commits, setups, machines) if some]
    return [escaped("- Records of {}; commit {}; setup {}: {}.".format(*told))] if told else []


def _times(groups: dict[str, Sequence[Launch]]) -> list[str]:
    """When the launches ran: what a machine is like changes."""
    told = []
    for name, launches in groups.items():
        if ends := [end for one in launches if one.when for end in one.when]:
            begin, end = (datetime.fromtimestamp(pick(ends), UTC) for pick in (min, max))
            told.append(f"{name} {begin:%Y-%m-%d %H:%M} to {end:%H:%M}")
    return [f"- Launches (UTC): {'; '.join(told)}."] if told else []


def _machine(record: Record) -> str:
    cpu = record.setup.environment.get("cpu")
    found = cpu if isinstance(cpu, dict) else {}
    return f"{found.get('cores_usable')} cores of {found.get('model')}"


def _compression(records: Sequence[Record]) -> list[str]:
    """Of all ``records`` alike, or they were refused; nothing where it is none or unknown."""
    options = next((one.configuration for one in records if one.configuration), {})
    distributed = options.get("distributed")
    found = distributed.get("compression") if isinstance(distributed, dict) else None
    if found in (None, "none"):
        return []
    return [f"- Gradients were on their way in {found} (distributed.compression)."]


def _explained(launches: Sequence[Launch], model: Model, load: Sequence[Launch]) -> list[str]:
    several = [one for one in launches if one.ranks > 1]
    groups: dict[str, int] = defaultdict(int)
    for one in launches:
        where = "" if one.ranks == 1 else f" over {rate(one.link)}"
        groups[f"{one.ranks} rank(s){where}"] += 1
    counts = "; ".join(f"{name}: {number}" for name, number in sorted(groups.items()))
    lines = [
        f"- Fitted to launches of {counts}. Bootstrap over launches, {DRAWS} draws; the interval "
        "is that of one launch's mean step.",
        f"- Gradients of a rank: {several[0].gradients / 1e6:.2f} MB a step. "
        f"{_hidden(several, model)}; {model.trailing:.2f} empty sums trail behind.",
        f"- A sum of nothing takes {1e3 * model.wait:.2f} ms, and {1e3 * model.hop:.3f} ms for "
        f"each rank after the first; a byte {1e9 * model.host:.3f} ns in the hosts"
        + (f" and {model.link:.3f} times what the link is made for." if model.link else "."),
        f"- {_work(several, load)}: the forecast is for ranks that have as many cores or GPUs of "
        "their own, with the same batch each.",
    ]
    if not all(one.waits_seen for one in several):
        lines.append(
            "- On GPUs the waiting cannot be seen within a step: compute is that of one rank, and "
            "what steps on several take longer is exposed, waiting for a slower rank included."
        )
    if not is_told(np.array([one.ranks for one in several])):
        lines.append(
            f"- All launches of several ranks have {several[0].ranks}: how much of a small sum "
            "grows with the ranks is not known; the interval reaches from none of it to all, the "
            "line above has none."
        )
        if len({one.link for one in several}) == 1:
            lines.append(
                "- They are over one link, too: what the backward pass hides and what trails "
                "behind it cannot be told apart; the two numbers above are one of many such pairs."
            )
    return lines


def _work(several: Sequence[Launch], load: Sequence[Launch]) -> str:
    if load:
        where = f"under the load of {len(load)} further launches at {len(side_by_side(load))} times"
    else:
        where = "beside communication" if several[0].waits_seen else "on one rank"
    return f"Compute is a rank's own work as measured {where}"


def _hidden(several: Sequence[Launch], model: Model) -> str:
    after = [one for one in several if not one.sums_overlap]
    if len(after) == len(several):
        return "They are summed after the backward pass, which hides nothing"
    told = f"Of the compute time, {model.overlap:.0%} hides communication"
    if not after:
        return told
    where = ", ".join(sorted({rate(one.link) for one in after}))
    return f"{told}, but over {where} none: there they are summed after the backward pass"


def _beside(made: Sequence[Forecast], measured: Sequence[Launch], link: float | None) -> list[str]:
    head = [
        "ranks", "launches", "step, ms: forecast", "measured", "within",
        "compute, ms: forecast", "measured", "within",
        "exposed, ms: forecast", "measured", "within",
    ]  # fmt: skip
    rows, aside = [], []
    for one in made:
        seen = [other for other in measured if (other.ranks, other.link) == (one.ranks, link)]
        row = [str(one.ranks), str(len(seen))]
        for name, forecast, values in (
            ("step", one.step_s, [other.step_s for other in seen]),
            ("compute", one.compute_s, [max(other.own_s) for other in seen if other.waits_seen]),
            ("exposed", one.exposed_s, [other.exposed_s for other in seen]),
        ):
            listed = ", ".join(f"{1e3 * value:.1f}" for value in values)
            within = f"{sum(map(forecast.holds, values))}/{len(values)}" if values else "–"
            row += [_shown(forecast), listed or "–", within]
            sides = {"below" if value < forecast.middle else "above" for value in values}
            if len(values) > 1 and len(sides) == 1:
                aside.append(f"{name} on {one.ranks} ranks ({sides.pop()})")
        if seen:
            rows.append(row)
    if not rows:
        raise UserError(
            f"no launch of --measured is on as many ranks as were asked for, over {rate(link)}"
        )
    lines = table(head, rows)
    if aside:
        lines += ["", f"All launches lie on one side of the forecast's middle: {', '.join(aside)}."]
    return lines


def _shown(one: Range, scale: float = 1e3, digits: int = 1) -> str:
    middle, low, high = (f"{scale * value:.{digits}f}" for value in (one.middle, one.low, one.high))
    return f"{middle} ({low} to {high})"
