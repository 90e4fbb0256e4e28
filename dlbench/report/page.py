"""A result record as Markdown: ``python -m dlbench.report.page RECORD.json [...] > summary.md``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlbench.errors import exit_status
from dlbench.report import records, stragglers
from dlbench.report.records import Record

MEASURES = {"class_accuracy": "accuracy", "iou": "IoU", "f1": "F1"}


def markdown(record: Record) -> str:
    """What was run, on what, how fast, and how well, class by class."""
    return "\n".join([*_headline(record), *_quality(record.quality)]) + "\n"


def _headline(record: Record) -> Iterable[str]:
    workload, environment = record.workload, record.setup.environment
    steps = record.slowest.step_s
    peaks = [rank.peak_bytes.get("host_rss") for rank in record.ranks]
    yield f"# {workload.id}"
    yield ""
    yield f"{record.created:%Y-%m-%d}, dlbench {record.code.version}, commit {_commit(record)}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| setup | {record.setup.name or record.setup.fingerprint}: {_machine(environment)} |"
    yield f"| ranks × batch | {workload.ranks} × {_known(workload.batch_per_rank)} |"
    yield f"| input | {' × '.join(map(str, workload.shape or ())) or '–'}, {workload.precision} |"
    yield f"| throughput | {_known(record.throughput, '.2f')} samples/s |"
    if steps:
        yield f"| median step | {statistics.median(steps):.3f} s over {len(steps)} steps |"
    yield from _where_time_goes(record)
    yield f"| peak memory per rank | {', '.join(_gibibytes(peak) for peak in peaks)} |"
    if record.energy_j is not None:
        samples = sum(rank.samples for rank in record.ranks)
        each = record.energy_j / samples if samples else None
        yield f"| energy | {record.energy_j:.1f} J, {_known(each, '.3f')} J a sample |"
    if flags := list(_flags(record)):
        yield f"| disturbed | {'; '.join(flags)} |"


def _where_time_goes(record: Record) -> Iterable[str]:
    slowest = record.slowest
    waits = {"input": slowest.input_wait_s, "other ranks": slowest.comm_wait_s}
    if slowest.wall_s and any(wait is not None for wait in waits.values()):
        shares = [
            f"waiting for {what} {'unknown' if wait is None else f'{wait / slowest.wall_s:.1%}'}"
            for what, wait in waits.items()
        ]
        rest = 1 - sum(wait or 0.0 for wait in waits.values()) / slowest.wall_s
        named = "the rest" if None in waits.values() else "own work"
        whose = f"rank {slowest.rank}: " if len(record.ranks) > 1 else ""
        yield f"| time of a step | {whose}{named} {rest:.1%}, {', '.join(shares)} |"
    if straggler := stragglers.find(record.ranks):
        yield f"| straggler | {straggler} |"
    firsts = [rank.first_step_s for rank in record.ranks if rank.first_step_s is not None]
    if firsts:
        yield f"| time to the first step | {max(firsts):.1f} s from the start of the process |"


def _flags(record: Record) -> Iterable[str]:
    """What may have made the launch slower than its setup is (`dlbench.bench.conditions`)."""
    hosts = set()
    for rank in record.ranks:
        found, who = rank.conditions, f"rank {rank.rank} on {rank.host}"
        if found.get("throttled"):
            gpu = found.get("gpu")
            reasons = gpu.get("throttle_reasons") if isinstance(gpu, dict) else None
            named = f" ({', '.join(map(str, reasons))})" if isinstance(reasons, list) else ""
            yield f"{who}: clocks were throttled{named}"
        if found.get("busy") and rank.host not in hosts:
            hosts.add(rank.host)
            yield f"{rank.host}: other processes kept {found['other_load']:.1f} cores busy"
        if found.get("foreign_processes"):
            yield f"{who}: {found['foreign_processes']} other process(es) on its GPU"


def _quality(quality: dict[str, Any]) -> Iterable[str]:
    if "components" in quality:
        yield from _values(quality)
    for size in ("training_size", "native_size"):
        scores = quality.get(size)
        if scores is None:
            continue
        yield ""
        yield (
            f"## Scores on '{quality['split']}' ({quality['samples']} samples) at the "
            f"{'size of training' if size == 'training_size' else 'native size of the labels'}"
        )
        yield ""
        yield (
            f"Global accuracy (G) {_known(scores['global_accuracy'], '.4f')}, "
            f"class accuracy (C) {_known(scores['mean_class_accuracy_all_classes'], '.4f')}, "
            f"mIoU {_known(scores['mean_iou_all_classes'], '.4f')}, "
            f"kappa {_known(scores['kappa'], '.4f')}; epoch {quality.get('best_epoch', '–')}"
        )
        if left_out := scores.get("headline_leaves_out"):
            means = ", ".join(
                f"{title} {_known(scores[f'headline_mean_{name}'], '.4f')}"
                for name, title in MEASURES.items()
            )
            yield ""
            without = ", ".join(left_out)
            yield f"Means without {without}, as the data set's benchmark has them: {means}"
        if size == "training_size" and (unknown := quality.get("not_finite_pixels")):
            yield ""
            yield f"**{unknown:,} of {scores['pixels']:,} pixels were predicted as no number.**"
        yield ""
        yield f"| class | pixels | {' | '.join(MEASURES.values())} |"
        yield "|---|---:" + "|---:" * len(MEASURES) + "|"
        for name, row in scores["classes"].items():
            cells = " | ".join(_known(row[measure], ".3f") for measure in MEASURES)
            yield f"| {name} | {row['pixels']} | {cells} |"


def _values(quality: dict[str, Any]) -> Iterable[str]:
    unit = quality["unit"]
    yield ""
    yield f"## Scores on '{quality['split']}' ({quality['samples']} samples)"
    yield ""
    yield (
        f"RMSE over all {_known(quality['rmse'], '.3f')} {unit}; "
        f"epoch {quality.get('best_epoch', '–')}. "
        "The spread is the truth's standard deviation: the RMSE of predicting its mean."
    )
    yield ""
    yield f"| | RMSE, {unit} | spread, {unit} | RMSE / spread | r |"
    yield "|---|---:|---:|---:|---:|"
    for name, row in quality["components"].items():
        rmse, spread = row["rmse"], row["spread"]
        share = rmse / spread if rmse is not None and spread else None
        cells = (_known(value, ".3f") for value in (rmse, spread, share))
        yield f"| {name} | {' | '.join(cells)} | {_known(row['r'], '.4f')} |"


def _machine(environment: dict[str, Any]) -> str:
    cpu, memory = environment["cpu"], environment["memory_bytes"]
    parts = [f"{cpu.get('cores_usable')} cores of {cpu.get('model')}", _gibibytes(memory)]
    parts += [str(device.get("name")) for device in (environment["gpu"] or {}).get("devices", [])]
    return ", ".join(parts)


def _commit(record: Record) -> str:
    if record.code.commit is None:
        return "unknown"
    return record.code.commit[:12] + (" with changes" if record.code.dirty else "")


def _gibibytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**30:.2f} GiB"


def _known(value: float | int | None, form: str = "") -> str:
    return "–" if value is None else format(value, form)


def _print_all(paths: list[str]) -> None:
    for record in records.read_many([Path(path) for path in paths]):
        print(markdown(record))


def main(arguments: list[str]) -> int:
    """Print the records in the files named; 2 if one cannot be read."""
    return exit_status("dlbench.report.page", lambda: _print_all(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
