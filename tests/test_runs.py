"""The run folder: resumed, refused, or set aside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlbench import runs
from dlbench.config import ConfigError, Experiment
from dlbench.runs import RunFolder


def experiment(**content: Any) -> Experiment:
    return Experiment.model_validate({"name": "one", **content})


def started(folder: Path, **content: Any) -> RunFolder:
    """A run folder with a configuration and something where the last checkpoint lies."""
    run = RunFolder(folder / "one")
    assert run.prepare(experiment(**content)) is False
    run.checkpoint("last").parent.mkdir()
    run.checkpoint("last").write_bytes(b"checkpoint")
    return run


def test_a_new_folder_gets_the_resolved_configuration(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "one")
    given = experiment(training={"batch": 3}, data={"size": [45, 61]})
    assert run.prepare(given) is False
    assert run.experiment() == given
    assert "warmup_epochs: 1.0" in run.config.read_text(), "defaults are written out"
    assert [p.name for p in run.path.iterdir()] == ["config.yaml"]


def test_an_unstarted_run_takes_any_configuration(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "one")
    run.prepare(experiment())
    other = experiment(training={"batch": 9})
    assert run.prepare(other) is False
    assert run.experiment() == other


def test_the_same_configuration_is_resumed(tmp_path: Path) -> None:
    assert started(tmp_path).prepare(experiment()) is True


@pytest.mark.parametrize("key", runs.FREE_KEYS)
def test_what_may_differ(key: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "resume": True,  # false sets the run aside, see below
        "profile": True, "output": "elsewhere",
        "data.root": "/elsewhere", "data.workers": 7, "data.cache": False,
        "data.on_unreadable": "skip", "distributed.stall_shutdown_s": 99,
        "training.tensorboard": True, "training.progress": "bar",
        "training.checkpoint_every": 5, "training.keep_checkpoints": 9,
    }  # fmt: skip
    *section, name = key.split(".")
    content = {section[0]: {name: values[key]}} if section else {name: values[key]}
    run = started(tmp_path)
    assert run.prepare(experiment(**content)) is True
    assert run.experiment() == experiment(**content), "the newest is kept"


def test_another_configuration_is_refused_with_its_keys(tmp_path: Path) -> None:
    run = started(tmp_path, training={"class_weights": {"mode": "given", "values": [1.0, 2.0]}})
    before = run.config.read_text()
    changed = experiment(training={"batch": 16}, seed=5, data={"options": {"labels": "eroded"}})
    with pytest.raises(ConfigError) as caught:
        run.prepare(changed)
    message = str(caught.value)
    assert str(run.path) in message
    for difference in (
        "training.batch: 4 there, 16 now", "seed: 0 there, 5 now",
        "data.options.labels: None there, 'eroded' now",
        "training.class_weights.mode: 'given' there, 'none' now",
        "choose another folder with name=...", "resume=false",
    ):  # fmt: skip
        assert difference in message
    assert "optimizer" not in message
    assert run.config.read_text() == before


def test_resume_false_sets_the_run_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = started(tmp_path)
    changed = experiment(resume=False, seed=5)
    assert run.prepare(changed) is False
    assert run.experiment() == changed
    assert not run.checkpoint("last").exists()
    (aside,) = [p for p in tmp_path.iterdir() if p != run.path]
    assert aside.name.startswith("one.20")
    assert (aside / "checkpoints" / "last.npz").read_bytes() == b"checkpoint"
    assert str(aside) in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["last-1", "last-7", "best"])
def test_a_run_whose_last_checkpoint_is_lost_is_still_one(kind: str, tmp_path: Path) -> None:
    """Each of them holds all that a run goes on from."""
    run = started(tmp_path)
    run.checkpoint("last").rename(run.checkpoint(kind))
    with pytest.raises(ConfigError, match=r"another configuration \(seed: 0 there, 5 now\)"):
        run.prepare(experiment(seed=5))
    assert run.prepare(experiment()) is True
    assert run.checkpoint(kind).read_bytes() == b"checkpoint"
    assert run.prepare(experiment(resume=False, seed=5)) is False
    (aside,) = [p for p in tmp_path.iterdir() if p != run.path]
    assert (aside / "checkpoints" / f"{kind}.npz").read_bytes() == b"checkpoint"


def test_a_finished_run_without_checkpoints_is_not_written_over(tmp_path: Path) -> None:
    """As after rm -r runs/one/checkpoints: the record would pass for that of the next run."""
    run = started(tmp_path)
    run.record.write_text("measured")
    shutil.rmtree(run.checkpoint("last").parent)
    before = run.config.read_text()
    with pytest.raises(ConfigError, match=r"another configuration \(seed: 0 there, 5 now\)"):
        run.prepare(experiment(seed=5))
    told = r"one holds the record of a run whose checkpoints are gone, .*; restore .*/checkpoints; "
    with pytest.raises(ConfigError, match=f"{told}.*name=.*resume=false"):
        run.prepare(experiment(profile=True))
    assert run.config.read_text() == before
    assert run.prepare(experiment(resume=False, seed=5)) is False
    assert not run.record.exists()
    (aside,) = [p for p in tmp_path.iterdir() if p != run.path]
    assert (aside / "record.json").read_text() == "measured"


def test_resume_false_of_a_run_that_never_started(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "one")
    assert run.prepare(experiment(resume=False)) is False
    assert list(tmp_path.iterdir()) == [run.path]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder: it has no config.yaml"):
        RunFolder(tmp_path).experiment()


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.config.write_text("training: {batch: many}\n")
    with pytest.raises(ConfigError, match=r"one/config.yaml is not valid:\n.*training.batch"):
        run.prepare(experiment())


def test_rows_keep_every_column_and_every_digit(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    value = 0.1 + 0.2
    run.write_rows(run.metrics, [{"epoch": 1, "loss": value}, {"epoch": 2, "val, loss": 3}])
    lines = run.metrics.read_text().splitlines()
    assert lines == ['epoch,loss,"val, loss"', "1,0.30000000000000004,", "2,,3"]


def test_confusion_table(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_confusion(np.array([[5, 2], [0, 9]]), ["road", "car"])
    lines = (tmp_path / "confusion.csv").read_text().splitlines()
    assert lines == ["truth \\ prediction,road,car", "road,5,2", "car,0,9"]


def test_what_a_killed_process_was_writing_goes_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    experiment = Experiment()
    folder.prepare(experiment)
    left = [
        folder.path / ".confusion.png.imrmau3g", folder.path / ".model.keras",
        folder.path / ".record.json.abcd_123", folder.path / "checkpoints/.last.npz.x1y2z3w4",
    ]  # fmt: skip
    mine = [folder.path / ".gitignore", folder.path / "notes.png.old", folder.path / ".job"]
    for path in (*left, *mine):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    folder.prepare(experiment)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in mine)
