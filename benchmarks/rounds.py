"""Launches of several peers in turn for some rounds, kept in a file as they come.

What drifts in a machine meets all peers of a round alike; a round's ratios are free of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Launched = dict[str, Any]
"""A line of the file: what a launch found, beside its ``round``, ``case`` and ``peer``."""


def measure(
    path: Path,
    rounds: int,
    peers: Mapping[str, Sequence[str]],
    launch: Callable[[str, str], Launched],
) -> None:
    """Add to ``path`` the launches that it lacks: in each round ``launch(case, peer)`` of all
    ``peers`` of every case, in turned order. One that fails is told and left to a second call."""
    found = read(path)
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    done = {(one["round"], one["case"], one["peer"]) for one in found}
    with path.open("a", encoding="utf-8") as out:
        for number in range(rounds):
            for case, those in peers.items():
                start = number % len(those)
                for peer in (*those[start:], *those[:start]):
                    if (number, case, peer) in done:
                        continue
                    try:
                        launched = launch(case, peer)
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        print(f"{case}, {peer}: {error}", file=sys.stderr, flush=True)
                        continue
                    line = {"round": number, "case": case, "peer": peer, **launched}
                    print(json.dumps(line), file=out, flush=True)


def read(path: Path) -> list[Launched]:
    """All whole lines: a kill may have cut the last one short."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def grouped(launches: list[Launched]) -> dict[str, dict[str, dict[int, Launched]]]:
    """By case, peer and round."""
    found: dict[str, dict[str, dict[int, Launched]]] = defaultdict(lambda: defaultdict(dict))
    for one in launches:
        found[one["case"]][one["peer"]][one["round"]] = one
    return found


def compared(
    peers: Mapping[str, Mapping[int, Launched]],
    first: str,
    value: Callable[[Launched], float],
    digits: int = 2,
) -> Iterator[tuple[str, list[Launched], float, str]]:
    """Of each peer of a case its launches, the median of their ``value``, and the `spread` of that
    divided by the ``first`` peer's of the same round; empty of the first itself, or without one."""
    base = peers.get(first, {})
    for peer, rounds in peers.items():
        ratios = [value(rounds[n]) / value(base[n]) for n in rounds if n in base]
        middle = statistics.median(map(value, rounds.values()))
        ratio = "" if peer == first or not ratios else spread(ratios, digits)
        yield peer, list(rounds.values()), middle, ratio


def spread(values: list[float], digits: int = 2) -> str:
    """The median, the smallest and the largest."""
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({least} to {most})"
