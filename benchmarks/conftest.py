"""What all benchmarks share: options, thread settings, and records in the JSON report.

    pytest benchmarks/ --benchmark-json=OUT.json [--setup-name=NAME] [--profile=full]
        [--devices=0,2] [--ranks=1,2,4] [--hosts=a:2,b:2 --link=10gbit] [--compute-threads=N]

One such command is one launch of one setup. ``--benchmark-disable`` runs each benchmark once,
untimed: the outputs are checked all the same. It ends in a table of the records, and in what was
compared. A benchmark that fails leaves the records of the others as they are, and none of its own;
a launch that is told to end (Ctrl-C, SIGTERM, a closed terminal) still writes what it has.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Generator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from benchmarks import launching, links, planted, summary
from benchmarks.fixtures import (  # noqa: F401  # fixtures
    NOTES,
    RATIOS,
    RECORDS,
    attach_ratio,
    attach_record,
    compute_threads,
    data_folder,
    devices,
    note,
    observe,
    run_job,
    time_in_turn,
)
from dlbench import gpus, launched, stopping
from dlbench.config import ConfigError
from dlbench.report import records

# Before anything imports TensorFlow: its start-up notes bury the tables.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
FAILED = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dlbench")
    group.addoption(
        "--setup-name",
        metavar="NAME",
        help="what to call this hardware, driver, library and thread setting in records",
    )
    group.addoption(
        "--compute-threads",
        metavar="N",
        type=int,
        help="threads within an op (default: TensorFlow's own choice, all cores)",
    )
    group.addoption(
        "--profile",
        choices=("default", "full"),
        default="default",
        help="full: every input size, for machines and evenings that are worth it",
    )
    group.addoption(
        "--devices",
        metavar="LIST",
        type=_numbers,
        help="the GPUs to use as nvidia-smi numbers them, such as 0,2 (default: all that "
        "CUDA_VISIBLE_DEVICES shows)",
    )
    group.addoption(
        "--ranks",
        metavar="LIST",
        type=_numbers,
        help="numbers of ranks to scale over (default: 1, 2, 4 ... to the GPUs or cores, at most "
        "2, or 8 with --profile=full)",
    )
    group.addoption(
        "--hosts",
        metavar="LIST",
        type=links.hosts,
        help="where jobs on several ranks run, such as a:1,b:1, of which this is the first; they "
        "share the checkout and TMPDIR (default: here)",
    )
    group.addoption(
        "--link",
        metavar="RATE",
        type=links.link,
        help="what the network between --hosts is made for, such as 10gbit, for the records",
    )


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0,2")
    return tuple(map(int, text.split(",")))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS], config.stash[RECORDS] = [], []
    config.stash[NOTES], config.stash[FAILED] = {}, set()
    _choose_devices(config.getoption("--devices"))
    stopping.hear(signal.default_int_handler, (signal.SIGTERM, signal.SIGHUP))
    try:
        planted.faults()
        ranks = launched.size()
    except (planted.PlantedError, ConfigError) as error:
        raise pytest.UsageError(str(error)) from None
    if ranks > 1:
        raise pytest.UsageError(
            f"these benchmarks measure one rank, but the launcher announced {ranks}; run them "
            "without horovodrun"
        )
    # A setting of the launch, not of a test: TensorFlow reads it once, when it starts.
    threads = config.getoption("--compute-threads")
    if threads is None:
        return
    if threads < 1:
        raise pytest.UsageError(f"--compute-threads is {threads}; at least 1 is needed")
    if "tensorflow" in sys.modules:
        raise pytest.UsageError("--compute-threads has no effect: TensorFlow is loaded already")
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def _choose_devices(numbers: tuple[int, ...] | None) -> None:
    """Before TensorFlow looks for GPUs, in this process and in those that it starts."""
    if numbers is None:
        return
    if "tensorflow" in sys.modules:
        raise pytest.UsageError("--devices has no effect: TensorFlow is loaded already")
    found = gpus.describe({})
    if found is not None and (unknown := set(numbers) - set(range(len(found["devices"])))):
        names = [f"{i} ({device['name']})" for i, device in enumerate(found["devices"])]
        raise pytest.UsageError(
            f"--devices names {sorted(unknown)}; this machine has {', '.join(names) or 'no GPU'}"
        )
    os.environ |= gpus.showing(numbers)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that start processes, as long as this one holds no GPU's memory."""

    def launches(item: pytest.Item) -> bool:
        marks = item.iter_markers("benchmark")
        return any(mark.kwargs.get("timer") is launching.reported_s for mark in marks)

    items.sort(key=launches, reverse=True)


def pytest_report_header() -> list[str]:
    return [f"planted: {fault.text}" for fault in planted.faults()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        item.config.stash[FAILED].add(item.nodeid)
    return report


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """What was timed before a check failed counts as little as what is not right; its name tells
    whoever reads the report alone."""
    failed = config.stash[FAILED]
    output_json[records.FAILED] = sorted(failed)
    output_json["benchmarks"] = [
        one for one in output_json["benchmarks"] if one["fullname"] not in failed
    ]


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Called when the report is written, after the benchmarks: libraries are named as loaded."""
    setup = records.setup(config.getoption("--setup-name"))
    machine_info["setup"] = setup.model_dump(mode="json")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    sections: dict[str, list[str]] = config.stash[NOTES]
    if ratios := config.stash[RATIOS]:
        title = "time of a peer / time of ours, median of paired rounds"
        sections = {title: summary.ratio_lines(ratios), **sections}
    if found := config.stash[RECORDS]:
        sections["records of this launch"] = summary.records_table(found)
    if faults := planted.faults():
        hit = [record.workload.id for record in found]
        sections["planted faults"] = [
            f"{fault.text}: "
            f"{sum(fnmatchcase(name, fault.workload) for name in hit)} of {len(hit)} records"
            for fault in faults
        ]
    for title, lines in sections.items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
