"""Plain pytest-benchmark JSON, of other projects: one benchmark as a row of the table.

It knows no samples, ranks or records. Its throughput is calls/s, 1 / median, and its mode says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench.report.records import RecordError

MODE = "pytest-benchmark, calls/s"
NEEDED = ("median", "iqr", "rounds")
VOLATILE = ("node", "hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly")
"""What differs between equal machines, or from one moment to the next: no part of a setup."""


def is_ours(content: Mapping[str, Any]) -> bool:
    """Whether ``content`` is of our benchmarks: what has no record in it was a mere check."""
    own = _mapping(_mapping(content.get("machine_info")).get("setup"))
    return isinstance(own.get("fingerprint"), str)


def row(content: Mapping[str, Any], benchmark: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """One of the ``benchmarks`` of ``content``, what the JSON file ``path`` holds."""
    where = f"{path}, benchmark {benchmark.get('fullname')!r}"
    stats = benchmark.get("stats")
    if not isinstance(stats, dict) or not isinstance(benchmark.get("fullname"), str):
        raise RecordError(f"{where} lacks its fullname or stats: it is no pytest-benchmark JSON")
    for name in NEEDED:
        if not isinstance(stats.get(name), int | float) or stats[name] < 0:
            raise RecordError(f"{where}: stats.{name} is {stats.get(name)!r}, expected a number")
    data = stats.get("data") or []
    created = pd.to_datetime(str(content.get("datetime")), utc=True, errors="coerce")
    if created is pd.NaT:
        raise RecordError(f"{where}: the file's datetime is {content.get('datetime')!r}")
    commit = _mapping(content.get("commit_info"))
    return {
        "file": str(path),
        "created": created,
        "workload": benchmark["fullname"],
        "benchmark": benchmark["fullname"],
        "mode": MODE,
        **_setup(_mapping(content.get("machine_info"))),
        "version": content.get("version"),
        "commit": commit.get("id"),
        "dirty": commit.get("dirty"),
        "throughput": 1 / stats["median"] if stats["median"] else None,
        "median_step_s": stats["median"],
        "p95_step_s": pd.Series(data).quantile(0.95) if data else None,
        "iqr_step_s": stats["iqr"],
        "steps": stats["rounds"],
        "judged": True,
        "record": None,
    }


def _setup(machine: Mapping[str, Any]) -> dict[str, Any]:
    stable = json.dumps(_without_volatile(machine), sort_keys=True)
    fingerprint = hashlib.sha256(stable.encode()).hexdigest()[:16]
    return {"setup": fingerprint, "fingerprint": fingerprint, "environment": dict(machine)}


def _mapping(value: Any) -> dict[str, Any]:
    """What other projects' hooks may have replaced by something else is unknown, then."""
    return value if isinstance(value, dict) else {}


def _without_volatile(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_volatile(v) for k, v in value.items() if k not in VOLATILE}
