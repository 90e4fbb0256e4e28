"""The reports of bench_pooling.py, bench_pooling_limit.py and bench_pooling_memory.py as tables.

python -m benchmarks.pooling_table OUT.json [...] > pooling.md
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dlbench.errors import exit_status
from dlbench.report.records import Record, RecordError

OPERATIONS = ("pool", "unpool", "pool-gradient", "unpool-gradient")
STEERING = ("MALLOC_", "TF_ENABLE_ONEDNN_OPTS")
"""Variables that decide whether the memory of large outputs is reused."""
LIMITS = ("pool-limit", "unpool-limit", "gather-limit")


class Row(NamedTuple):
    """One benchmark of one launch; ``ratio`` is None where ours itself was timed."""

    threads: int
    operation: str
    name: str
    case: str
    ratio: dict[str, Any] | None
    ours_ms: float | None
    """One operation of ours, the median of those that were timed in turn with this."""
    index_bytes: int | None


def read(path: Path) -> tuple[Record, str, list[Row]]:
    """One launch: any of its records, which share a setup; what took part besides; its rows in the
    order of the run."""
    try:
        benchmarks = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        records = [Record.model_validate(one["extra_info"]["record"]) for one in benchmarks]
        parts = [record.workload.id.split("/") for record in records]
        if any(len(part) != 4 for part in parts):
            raise ValueError("a workload of another kind")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a report of the pooling benchmarks ({error!r}); "
            f"make one with pytest benchmarks/bench_pooling.py --benchmark-json={path}"
        ) from error
    if not records:
        raise RecordError(f"{path} holds no benchmark")
    rows = []
    for one, record, part in zip(benchmarks, records, parts, strict=True):
        operation, name, precision, size = part
        ratio = one["extra_info"].get("ratio")
        tensorflow = record.setup.environment["tensorflow"]
        assert isinstance(tensorflow, dict)
        rows.append(
            Row(
                threads=int(str(tensorflow["intra_op_threads"])),
                operation=operation,
                name=name,
                case=f"{size.replace('x', ' × ')} {precision}",
                ratio=ratio,
                ours_ms=ratio
                and statistics.median(ratio["ours_s"]) * 1e3 / one["extra_info"]["repeats"],
                index_bytes=one["extra_info"].get("index_bytes"),
            )
        )
    torch = [one["extra_info"]["torch"] for one in benchmarks if "torch" in one["extra_info"]]
    return records[0], f", {torch[0]}" if torch else "", rows


def markdown(paths: list[Path]) -> str:
    """Tables of all launches; where two measured the same, the later named one counts."""
    launches = [read(path) for path in paths]
    rows = {row[:4]: row for *_, own in launches for row in own}
    heads = [(record, peer) for record, peer, _ in launches]
    return "\n".join(_lines(heads, list(rows.values())))


def _lines(launches: list[tuple[Record, str]], rows: list[Row]) -> Iterator[str]:
    yield "# Pooling with stored indices"
    yield ""
    for record, peer in launches:
        environment: Any = record.setup.environment
        cpu = environment["cpu"]
        steering = ", ".join(
            f"{name}={value}"
            for name, value in environment["variables"].items()
            if name.startswith(STEERING)
        )
        yield (
            f"- {record.created:%Y-%m-%d %H:%M}, commit {(record.code.commit or 'unknown')[:12]}"
            f"{' with changes' if record.code.dirty else ''}, "
            f"{environment['tensorflow']['intra_op_threads']} thread(s) of {cpu['cores']} cores of "
            f"{cpu['model']}, kernels {environment['op']['isa']}{peer}; "
            f"{steering or 'no variable steers memory'}"
        )
    yield ""
    yield (
        "Times are medians in ms. The other columns are the time of a peer divided by the time of "
        "ours, the median over rounds in which both were timed one after the other; above 1 ours "
        "is faster. **Bold**: below what was wanted, which stands behind it."
    )
    for threads in sorted({row.threads for row in rows}):
        for operation in OPERATIONS:
            own = [row for row in rows if (row.threads, row.operation) == (threads, operation)]
            if own:
                yield from _comparison(f"{operation}, {_counted(threads)}", own)
        limits = [row for row in rows if row.threads == threads and row.operation in LIMITS]
        if limits:
            yield from _limits(f"Fraction of the bare kernel, {_counted(threads)}", limits)
    memory = {row.name: row.index_bytes for row in rows if row.index_bytes}
    if memory:
        batch = next(row.case for row in rows if row.index_bytes)
        yield from _head(f"Memory of the indices of all five pools, {batch}", ["form", "MB"])
        yield from (f"| {form} | {size / 1e6:.1f} |" for form, size in memory.items())


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _comparison(title: str, rows: list[Row]) -> Iterator[str]:
    peers = list(dict.fromkeys(row.name for row in rows if row.ratio))
    yield from _head(title, ["input", "ours, ms", *(peer.replace("_", " ") for peer in peers)])
    for case in dict.fromkeys(row.case for row in rows):
        found = {row.name: row for row in rows if row.case == case}
        timed = [row.ours_ms for row in found.values() if row.ours_ms]
        ours = f"{statistics.median(timed):.3f}" if timed else "–"
        cells = [_cell(found[peer].ratio) if peer in found else "–" for peer in peers]
        yield f"| {case} | {ours} | {' | '.join(cells)} |"


def _cell(ratio: dict[str, Any] | None) -> str:
    assert ratio
    text = f"{ratio['median']:.2f}"
    if ratio["wanted"] is not None and ratio["median"] < ratio["wanted"]:
        text = f"**{text}** ({ratio['wanted']:.2f})"
    return text


def _limits(title: str, rows: list[Row]) -> Iterator[str]:
    """The faster of the two bare kernels is the limit."""
    columns = [f"{operation.removesuffix('-limit')}" for operation in LIMITS]
    yield from _head(title, ["input", *(f"{c}, {i}" for c in columns for i in ("bytes", "packed"))])
    for case in dict.fromkeys(row.case for row in rows):
        cells = []
        for operation in LIMITS:
            for indices in ("bytes", "packed"):
                ratios = [
                    row.ratio
                    for row in rows
                    if (row.case, row.operation) == (case, operation)
                    and row.name.endswith(f"-{indices}")
                    and row.ratio
                ]
                cells.append(_cell(min(ratios, key=lambda r: r["median"])) if ratios else "–")
        yield f"| {case} | {' | '.join(cells)} |"


def _head(title: str, columns: Iterable[str]) -> Iterator[str]:
    columns = list(columns)
    yield from ("", f"## {title}", "", f"| {' | '.join(columns)} |")
    yield f"|---{'|---:' * (len(columns) - 1)}|"


def main(arguments: list[str]) -> int:
    if not arguments:
        raise RecordError("which reports? python -m benchmarks.pooling_table OUT.json [...]")
    sys.stdout.write(markdown([Path(argument) for argument in arguments]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks.pooling_table", lambda: main(sys.argv[1:])))
