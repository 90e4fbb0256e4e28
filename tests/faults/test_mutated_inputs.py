"""A damaged file is read, or refused by an error that names it; nothing else ever happens.

``python -m pytest tests/faults -k READER`` and the seed that a failure tells make a case again:
``python tests/faults/mutated_reading.py FOLDER READER NUMBER NUMBER+1 60``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faults import mutated_reading, readers

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
"""Of the wall clock for one case: more is a hang."""
QUICK = {name: 5 for name in readers.READERS if name != "keras"}
"""Cases of the quick test: in one process, without TensorFlow."""
QUICK_FIRST = 10_000
"""Numbers of their own."""


def attempts(folder: Path, reader: str, first: int, count: int) -> list[dict[str, Any]]:
    """How cases ended; one that ends its process is told by it, and the next go on in another."""
    ended: list[dict[str, Any]] = []
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    stop = first + count
    while first < stop:
        command = [sys.executable, mutated_reading.__file__, str(folder), reader, str(first),
                   str(stop), str(SECONDS)]  # fmt: skip
        log = folder / f"{reader}.log"
        with log.open("w") as errors:
            process = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, timeout=60 + SECONDS * count, check=False, text=True,
            )  # fmt: skip
        lines = [json.loads(x) for x in process.stdout.splitlines() if x.startswith("{")]
        ended += [line for line in lines if line["outcome"] != "began"]
        if process.returncode == 0:
            break
        last: dict[str, Any] = {"number": first, "file": "?", "mutation": "?"}
        last |= lines[-1] if lines else {}
        text = log.read_text(errors="replace")
        ended.append({**last, "outcome": f"ended with status {process.returncode}: {text[-2500:]}"})
        first = last["number"] + 1
    return ended


def faults(reader: str, ended: list[dict[str, Any]]) -> list[str]:
    return [
        f"{reader} {case['number']} (seed {mutated_reading.seed(reader, case['number'])}), "
        f"{case['file']} {case['mutation']}: {case['outcome']}"
        for case in ended
        if case["outcome"] not in ("read", "refused")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("reader", readers.READERS)
def test_damaged_files_are_read_or_refused(tmp_path: Path, reader: str) -> None:
    (tmp_path / "base").mkdir()
    base = tmp_path / "base" / reader
    readers.READERS[reader].make(base)
    readers.READERS[reader].read(base)
    count = readers.READERS[reader].cases
    ended = attempts(tmp_path, reader, 0, count)
    assert not (found := faults(reader, ended)), "\n\n".join(found)
    assert len(ended) == count
    kinds = Counter(case["outcome"] for case in ended)
    assert kinds["refused"] > count / 10, kinds


def test_the_slow_test_has_its_cases() -> None:
    assert sum(reader.cases for reader in readers.READERS.values()) >= 2000


@pytest.mark.parametrize("reader", QUICK)
def test_a_few_damaged_files_are_read_or_refused(tmp_path: Path, reader: str) -> None:
    base = tmp_path / "base"
    readers.READERS[reader].make(base)
    found = []
    for number in range(QUICK_FIRST, QUICK_FIRST + QUICK[reader]):
        found.append(mutated_reading.run(tmp_path / "cases", base, reader, number))
    assert not (told := faults(reader, found)), "\n\n".join(told)
