"""A table of faults, of what their tests saw: the file that ``DLBENCH_FAULT_TABLE`` names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NoteFault = Callable[[str, str, str, str], None]
HEADER = "| what happens | what the user sees | what is lost |\n|---|---|---|\n"


@pytest.fixture(scope="session")
def _noted() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    if path := os.environ.get("DLBENCH_FAULT_TABLE"):
        Path(path).write_text(HEADER + "".join(sorted(rows)))


@pytest.fixture
def note_fault(_noted: list[str]) -> NoteFault:
    """``note_fault(happens, output, part, lost)``: a row with the lines of ``output`` that hold
    ``part``, which must be there. Call it once all that it says has been asserted."""

    def note(happens: str, output: str, part: str, lost: str) -> None:
        start, end = output.rfind("\n", 0, output.index(part)) + 1, output.index(part) + len(part)
        lines = (output[start:end] + output[end:].partition("\n")[0]).splitlines()
        seen = "; ".join(re.sub(r"^\[\d+\]<\w+>:", "", line) for line in lines).replace("|", "\\|")
        _noted.append(f"| {happens} | {seen} | {lost} |\n")

    return note
