"""Result records as a pandas table: one row a launch of a workload.

    from dlbench.report import load
    table = load(["A*.json", "runs/first/record.json"])
    table.groupby(["workload", "setup"]).throughput.describe()

What is unknown is missing (NaN, NA or None).
"""

from __future__ import annotations

import glob
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report import plain, records, stragglers
from dlbench.report.records import Rank, Record, RecordError

DTYPES = {
    "file": object,
    "created": "datetime64[ns, UTC]",
    "workload": object,
    "model": object,
    "data": object,
    "precision": object,
    "ranks": "Int64",
    "batch_per_rank": "Int64",
    "shape": object,  # "180x240x3"
    "mode": object,
    "setup": object,  # its name, or its fingerprint
    "fingerprint": object,
    "version": object,
    "commit": object,
    "dirty": "boolean",
    "throughput": float,  # samples/s: all samples / wall time of the slowest rank
    "median_step_s": float,  # steps: those of the slowest rank
    "p95_step_s": float,
    "iqr_step_s": float,
    "steps": "Int64",
    "first_step_s": float,  # largest of all ranks
    "input_wait": float,  # fractions of the slowest rank's wall time; they add up to 1
    "comm_wait": float,
    "compute": float,
    "straggler": "Int64",
    "straggler_cause": object,
    "energy_j": float,
    "energy_per_sample_j": float,
    "benchmark": object,  # pytest's name of the benchmark; None for a training run
    "judged": bool,  # false: a peer, a bare kernel or a control, on which there is no verdict
    "environment": object,
    "record": object,  # `records.Record`; None for plain pytest-benchmark JSON
}
"""The columns that each table has. Further ones are ``peak_<kind>`` (bytes, largest of all ranks)
and ``quality.<name>``."""

WORKLOAD = ("workload", "model", "data", "precision", "ranks", "batch_per_rank", "shape", "mode")
"""The columns that together say what was done: rows equal in all of them may be compared."""

HEADLINES = {
    "mean_iou": "mean_iou_all_classes",
    "global_accuracy": "global_accuracy",
    "kappa": "kappa",
}
"""Short names of the scores at the size of training."""


def load(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Read result records and pytest-benchmark JSON, ours and others', into a table.

    ``paths`` are files or patterns such as ``A*.json``. `RecordError` names a file that cannot be
    read, or a pattern that fits none.
    """
    rows = [row for path in expand(paths) for row in _rows(path)]
    further = sorted({name for row in rows for name in row} - {*DTYPES})
    table = pd.DataFrame(rows, columns=[*DTYPES, *further], dtype=object)
    texts = [name for name in table if DTYPES.get(name) is object]
    kinds = {name: DTYPES.get(name, float) for name in table if name not in texts}
    return table.where(table.notna() | ~table.columns.isin(texts), None).astype(kinds)


def expand(paths: Iterable[Path | str]) -> list[Path]:
    """The files that ``paths`` and patterns name, patterns in order of name."""
    files: list[Path] = []
    for path in map(str, paths):
        if Path(path).exists() or not glob.has_magic(path):
            files.append(Path(path))
        elif found := sorted(glob.glob(path, recursive=True)):
            files += map(Path, found)
        else:
            raise RecordError(f"no file fits the pattern '{path}' in {Path.cwd()}")
    return files


def label(row: Any) -> str:
    """All that defines the workload of a row, in one line."""
    name, ranks, batch = (row[column] for column in ("workload", "ranks", "batch_per_rank"))
    size = None
    if not pd.isna(ranks):
        size = f"{ranks} rank(s)" if pd.isna(batch) else f"{ranks} x {batch}"
    # Model and data are most often part of the name.
    further = [
        row[column] for column in ("model", "data") if row[column] and row[column] not in name
    ]
    parts = [name, row["precision"], size, row["shape"], row["mode"], *further]
    return ", ".join(part for part in parts if part)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    content = records.content_of(path)
    if not records.is_of_benchmarks(content):
        yield _row(records.checked(content, str(path)), path)
        return
    for benchmark, record in records.of_benchmarks(content, path):
        if record is not None:
            judged = benchmark["extra_info"].get(records.JUDGED) is not False
            name = benchmark.get("fullname")
            yield _row(record, path) | {"benchmark": name, "judged": judged}
        elif not plain.is_ours(content):
            yield plain.row(content, benchmark, path)


def _row(record: Record, path: Path) -> dict[str, Any]:
    workload, setup = record.workload, record.setup
    slowest = record.slowest
    samples = sum(rank.samples for rank in record.ranks)
    straggler = stragglers.find(record.ranks)
    first_steps = [r.first_step_s for r in record.ranks if r.first_step_s is not None]
    energy = record.energy_j
    return {
        "file": str(path),
        "created": record.created,
        "workload": workload.id,
        "model": workload.model,
        "data": workload.data,
        "precision": workload.precision,
        "ranks": workload.ranks,
        "batch_per_rank": workload.batch_per_rank,
        "shape": "x".join(map(str, workload.shape)) if workload.shape is not None else None,
        "mode": workload.mode,
        "setup": setup.name or setup.fingerprint,
        "fingerprint": setup.fingerprint,
        "version": record.code.version,
        "commit": record.code.commit,
        "dirty": record.code.dirty,
        "throughput": record.throughput,
        **_steps(slowest),
        "first_step_s": max(first_steps, default=None),
        **_split(slowest),
        "straggler": straggler.rank if straggler else None,
        "straggler_cause": str(straggler) if straggler else None,
        "energy_j": energy,
        "energy_per_sample_j": energy / samples if energy is not None and samples else None,
        "benchmark": None,
        "judged": True,
        "environment": setup.environment,
        "record": record,
        **_peaks(record.ranks),
        **quality(record),
    }


def _steps(rank: Rank) -> dict[str, Any]:
    if not rank.step_s:
        return {"steps": 0}
    low, high, p95 = np.percentile(rank.step_s, (25, 75, 95)).tolist()
    return {
        "median_step_s": statistics.median(rank.step_s),
        "p95_step_s": p95,
        "iqr_step_s": high - low,
        "steps": len(rank.step_s),
    }


def _split(rank: Rank) -> dict[str, float]:
    waits = {"input_wait": rank.input_wait_s, "comm_wait": rank.comm_wait_s}
    shares = {k: s / rank.wall_s for k, s in waits.items() if s is not None and rank.wall_s}
    return {**shares, "compute": 1 - sum(shares.values())} if len(shares) == 2 else shares


def _peaks(ranks: Iterable[Rank]) -> dict[str, float]:
    peaks: dict[str, float] = {}
    for rank in ranks:
        for kind, peak in rank.peak_bytes.items():
            if peak is not None:
                peaks[f"peak_{kind}"] = max(peaks.get(f"peak_{kind}", 0), peak)
    return peaks


def quality(record: Record) -> dict[str, float]:
    """Every number of the record's scores as ``quality.<path>``, and those of `HEADLINES`."""
    found = dict(_numbers("quality", record.quality))
    for short, name in HEADLINES.items():
        value = found.get(f"quality.training_size.{name}")
        if value is not None:
            found.setdefault(f"quality.{short}", value)
    return found


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(f"{path}.{name}", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
