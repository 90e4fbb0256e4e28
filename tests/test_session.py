"""What a run needs is known to be there before samples are read for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# So that whoever reads a sample is told of that.
COMMAND = ["data.name=camvid", "data.root=street", "training.class_weights.mode=median_frequency"]


@pytest.fixture
def unreadable(street: Path) -> Path:
    """The folder of a data set of which no sample can be read."""
    for path in street.glob("train/*.png"):
        path.write_bytes(b"")
    return street.parent


def test_an_instruction_set_that_is_not_there(
    unreadable: Path, launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLBENCH_POOLING_ISA", "sse9")
    ended = launch(["-m", "dlbench.train", *COMMAND], unreadable)
    assert ended.status == 2, ended.output
    told = "(rank 0): DLBENCH_POOLING_ISA, for all compiled ops: instruction set 'sse9': unknown"
    assert told in ended.output
    assert "cannot decode" not in ended.output
    assert "Traceback" not in ended.output


def test_ops_that_are_not_compiled(unreadable: Path, launch: Callable[..., Any]) -> None:
    copy = unreadable / "dlbench"
    shutil.copytree(ROOT / "dlbench", copy, ignore=shutil.ignore_patterns("*.so"))
    script = unreadable / "train.py"  # which Python looks for modules beside
    script.write_text("import sys\nfrom dlbench import train\nsys.exit(train.main(sys.argv[1:]))\n")
    ended = launch([str(script), *COMMAND], unreadable)
    assert ended.status == 2, ended.output
    assert "dlbench.train (rank 0): dlbench's ops (pooling, " in ended.output
    assert "cannot decode" not in ended.output
    assert "Traceback" not in ended.output
    assert f"{copy}/_pooling.so is missing; build it with: pip install" in ended.output
