"""What a finished run leaves in its folder."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import synthetic_launches

from dlbench import checkpoint, models, results
from dlbench.distributed import SingleProcess
from dlbench.errors import FINAL, exit_status
from dlbench.metrics import Score
from dlbench.report import page, records
from dlbench.runs import RunFolder

OPTIONS: dict[str, Any] = {"width": 0.05}
SCORE = Score("val_miou", "mean IoU", higher=True)
HISTORY = [{"epoch": 1, "val_miou": 0.5}, {"epoch": 2, "val_miou": 0.4}]


def session_of(network: keras.Model, value_range: tuple[float, float] = (0.0, 255.0)) -> Any:
    return SimpleNamespace(
        experiment=SimpleNamespace(model=SimpleNamespace(name="segnet", options=OPTIONS)),
        network=network,
        dataset=SimpleNamespace(outputs=("field", "other"), value_range=value_range),
        ranks=SingleProcess(),
        task=SimpleNamespace(score=SCORE, write=lambda *_: None),
    )


def test_the_exported_network_takes_values_as_the_trained_one_does(tmp_path: Path) -> None:
    """Those of a satellite, which do not end at 255."""
    value_range = (0.0, 1e4)
    network = models.build("segnet", (None, None, 3), 2, value_range=value_range, **OPTIONS)
    folder = RunFolder(tmp_path)
    results.export(session_of(network, value_range), folder)
    image = np.random.default_rng(0).uniform(0, 1e4, (1, 32, 32, 3)).astype(np.float32)
    found = keras.models.load_model(folder.model)(image, training=False)
    np.testing.assert_array_equal(found, network(image, training=False))


def test_a_network_that_does_not_fit_on_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for the disk."""
    network = models.build("segnet", (None, None, 3), 2, **OPTIONS)
    folder, final = RunFolder(tmp_path / "run"), tmp_path / "final"
    monkeypatch.setenv(FINAL, str(final))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        status = exit_status("test", lambda: results.export(session_of(network), folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert f"cannot write {folder.model}: File too large" in capsys.readouterr().err
    assert final.exists(), "another start would end alike"
    assert not list(folder.path.iterdir())


def test_no_defect_of_the_page_costs_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next start writes the page, of the record that is there."""
    folder = RunFolder(tmp_path)
    folder.write_text(folder.summary, "that of an earlier record\n")
    evaluation: Any = SimpleNamespace(table=lambda: "", quality=dict)
    planted = synthetic_launches.launch(quality={"lost_best_epoch": 1, "epoch": 2})
    monkeypatch.setattr(results, "_record", lambda *_: planted)
    monkeypatch.setattr(results, "_draw_predictions", lambda *_: None)
    monkeypatch.setattr(results.pictures, "curve_figure", lambda *_: None)

    def report(samples: int) -> None:
        measured = [{"samples": samples, "peak_bytes": {"host_rss": 1}}]
        results.write_report(session_of(None), folder, evaluation, HISTORY, measured, [])

    def broken(_: records.Record) -> str:
        raise AttributeError("'str' object has no attribute 'get'")

    with monkeypatch.context() as defect:
        defect.setattr(results.page, "markdown", broken)
        with pytest.raises(AttributeError):
            report(samples=80)
    assert records.read(folder.record) == planted
    assert not folder.summary.exists(), "a page of another record tells what is not so"
    report(samples=0)
    assert records.read(folder.record) == planted
    text = folder.summary.read_text()
    assert text.startswith(page.markdown(planted))
    assert text.endswith(
        "\nbest epoch: 1, whose weights are lost; scored and exported: those of epoch 2\n"
    )


@pytest.mark.parametrize("lost", ["damaged", "absent", "of an epoch that was trained anew"])
def test_the_newest_checkpoint_stands_in_for_a_best_that_is_lost(
    lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    (path,) = (f"model/{variable.path}" for variable in network.variables)
    session, folder = session_of(network), RunFolder(tmp_path)
    rows = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 0.5}]
    for epoch, kind in ((1, "best"), (2, "last")):
        arrays = {path: np.full((2, 1), epoch, np.float32)}
        meta = {"epoch": epoch, "history": rows[:epoch]}
        checkpoint.save(folder.checkpoint(kind), arrays, meta)
    assert results.restore_best(session, folder, rows, is_new=True) is None
    assert np.all(network.get_weights()[0] == 1.0)
    best = folder.checkpoint("best")
    if lost == "damaged":
        best.write_bytes(b"damaged")
    elif lost == "absent":
        best.unlink()
    else:
        rows[0]["loss"] = 0.7
    assert results.restore_best(session, folder, rows, is_new=True) == 2
    assert np.all(network.get_weights()[0] == 2.0)
    assert f"The report is on the newest checkpoint, {tmp_path}" in capsys.readouterr().err
    assert results.restore_best(session, folder, rows, is_new=False) == 2
    folder.record.touch()
    with pytest.raises(checkpoint.CheckpointError, match="best.npz"):
        results.restore_best(session, folder, rows, is_new=False)
