"""What defines the work of a record beyond its workload: the configuration, the threads, the hosts.

Workloads are told apart by a label that is short enough to read, and setups are compared by it even
where they train differently, which may be what is asked. So differences here are named, and
launches of one setup that differ in them are no repeats of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlbench.report import option_defaults
from dlbench.report.records import Record

NO_DIFFERENCE = ("name", "output", "resume", "seed", "data.root", "training.progress")
"""Of the configuration: what says where things lie or how they are shown, and what repeats vary."""
NOT_GIVEN = "not given"
"""The value of an option that others have and a record's configuration does not."""


def of(record: Record) -> dict[str, str]:
    """By name, such as ``model.options.width``; what a record does not know is left out."""
    # Records from before 29 November 2026 hold the options as they were given.
    found = dict(_flattened("", option_defaults.filled_in(record.configuration or {})))
    conditions = record.ranks[0].conditions
    for name, condition in (("training.threads", "threads"), ("link, bit/s", "link_bits_per_s")):
        if conditions.get(condition) is not None:
            found[name] = str(conditions[condition])
    hosts = Counter(rank.host for rank in record.ranks)
    found["ranks of each host"] = " + ".join(str(count) for count in hosts.values())
    return {name: value for name, value in found.items() if name not in NO_DIFFERENCE}


def of_each(records: Sequence[Record]) -> list[dict[str, str]]:
    """`of` every record, in their order, with `NOT_GIVEN` for options that only others have."""
    found = [of(record) for record in records]
    options = {name for one in found for name in one if ".options." in name}
    missing = dict.fromkeys(options, NOT_GIVEN)
    return [
        one if record.configuration is None else missing | one
        for record, one in zip(records, found, strict=True)
    ]


def values(found: Iterable[Mapping[str, str]]) -> dict[str, set[str]]:
    """Every particular with the values that it has in ``found``, some of `of_each`."""
    together: dict[str, set[str]] = {}
    for one in found:
        for name, value in one.items():
            together.setdefault(name, set()).add(value)
    return together


def differing(records: Sequence[Record]) -> list[str]:
    """The names of those that are not the same in all records that know them."""
    return _several(of_each(records))


def parted(records: Sequence[Record], aside: Collection[str] = ()) -> dict[str, list[int]]:
    """The places of ``records`` by what tells them apart, such as ``training.threads 2``; empty
    where that is nothing, or nothing but ``aside``."""
    found = of_each(records)
    names = [name for name in _several(found) if name not in aside]
    parts: dict[str, list[int]] = {}
    for place, own in enumerate(found):
        if told := ", ".join(f"{name} {own[name]}" for name in names if name in own):
            parts.setdefault(told, []).append(place)
    return parts


def _several(found: Iterable[Mapping[str, str]]) -> list[str]:
    return sorted(name for name, kinds in values(found).items() if len(kinds) > 1)


def _flattened(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flattened(f"{path}.{key}" if path else str(key), part)
    else:
        yield path, str(value)
