"""A rank for which there is not enough memory: it says so, or the kernel kills it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import NoteFault
from faults.rank_jobs import ROOT, arguments, from_ranks, running
from ranks.limited import ROOM

pytestmark = pytest.mark.slow
LIMITED = ["data.size=[1800,1800]", "training.batch=1"]
"""One activation of a layer with three channels, float32, takes 39 MB."""
GROUPS = Path("/sys/fs/cgroup/memory")
LOST = "the time since the last checkpoint"


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN's allocator has got it keeps, and uses in the next step again."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")


def job(how: str, name: str) -> list[str]:
    return [str(ROOT / "tests/ranks/limited.py"), how, *arguments(name), *LIMITED]


def test_a_rank_out_of_memory_says_what_to_take_less_of(
    street: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    ended = launch(job("refused", "refused"), street.parent, ranks=2)
    assert ended.status != 0
    told = "".join(from_ranks(ended.output, "(rank 1): out of memory ("))
    assert told, ended.output[-3000:]
    assert "take a smaller training.batch" in told
    assert "data.cache=false" in told
    assert not from_ranks(ended.output, "Traceback")
    assert "Process name: 1\nExit code: 2" in ended.output
    assert not running(street.parent)
    note_fault("memory runs out", ended.output, "(rank 1): out of memory (", LOST)


@pytest.fixture
def group() -> Iterator[Path]:
    """Of processes that may take `ROOM` more than they have had before."""
    if not os.access(GROUPS, os.W_OK):
        pytest.skip(f"{GROUPS} cannot be written: limits on pages are root's, of cgroup version 1")
    path = GROUPS / f"dlbench-{os.getpid()}"
    path.mkdir()
    (path / "memory.limit_in_bytes").write_text(str(ROOM))
    yield path
    path.rmdir()


def test_a_rank_that_the_kernel_kills_for_its_memory_is_named(
    street: Path, group: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """As in a container that is too small. The rank itself has no time to say anything."""
    ended = launch(job(str(group), "killed"), street.parent, ranks=2)
    assert ended.status != 0
    assert int((group / "memory.failcnt").read_text()) > 0, "it was not the kernel"
    assert "Process name: 1\nExit code: 137" in ended.output
    assert not from_ranks(ended.output, "Traceback")
    assert not running(street.parent)
    note_fault(
        "the kernel kills a rank for want of memory", ended.output,
        "Process name: 1\nExit code: 137", LOST,
    )  # fmt: skip
