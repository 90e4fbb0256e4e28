"""A checkout to launch in whose python measures nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dlbench import environment
from dlbench.report import records

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pytest-benchmark JSON of one benchmark, as ours writes it."""
    workload = records.Workload(
        id="op/copy", model=None, data=None, precision="float32", ranks=1,
        batch_per_rank=4, shape=(2,), mode="forward",
    )  # fmt: skip
    rank = records.Rank(
        rank=0, host="node0", samples=12, wall_s=3.0, step_s=(1.0, 1.0, 1.0), input_wait_s=None,
        comm_wait_s=None, first_step_s=None, peak_bytes={"host_rss": 1 << 30}, conditions={},
    )  # fmt: skip
    record = records.now(workload, [rank], setup=records.setup(None, environment.describe()))
    content = {"benchmarks": [{"fullname": "copy", "extra_info": {"record": record.to_json()}}]}
    path = tmp_path_factory.mktemp("template") / "template.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def out(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for launches, within one that looks like a checkout and has the stand-in."""
    (tmp_path / "benchmarks").mkdir()
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text()}")
    python.chmod(0o755)
    monkeypatch.setenv("TEMPLATE", str(template))
    monkeypatch.setenv("JOURNAL", str(tmp_path / "journal"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"
