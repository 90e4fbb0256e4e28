"""The peers of networks answer as they should, and their table counts each labelled pixel once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import pixel_classifier
from benchmarks.pixel_classifier import logistic_regression
from dlbench import config
from dlbench.data import IGNORE, build
from dlbench.data.facts import facts
from dlbench.data.miniatures import land_cover
from dlbench.runs import RunFolder

CLASSES = {name: [code] for name, (code, _) in land_cover.CODES.items()}


@pytest.mark.parametrize("quadratic", [False, True])
def test_a_ring_needs_squares(quadratic: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    ring = (np.hypot(*x.T) > 1.2).astype(int)
    accuracy = (logistic_regression(x, ring, 2, quadratic=quadratic)(x) == ring).mean()
    assert (accuracy > 0.98) == quadratic
    half = (x @ [1.0, -2.0] > 0.3).astype(int)
    assert (
        logistic_regression(1000 + x, half, 2, quadratic=quadratic)(1000 + x) == half
    ).mean() > 0.98


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = land_cover.make(tmp_path / "land_cover", size=60)
    given = [f"data.root={root}", "data.name=land_cover", "data.size=[12, 12]",
             f"data.options={{classes: {CLASSES}}}"]  # fmt: skip
    assert pixel_classifier.main(given) == 0
    printed = capsys.readouterr().out
    data = build("land_cover", root, (12, 12), classes=CLASSES)
    truth = np.concatenate([data.read("test", i)[1].ravel() for i in range(data.count("test"))])
    counts = np.bincount(truth[truth != IGNORE], minlength=len(data.classes))
    first, *others = printed[printed.index("## test") :].splitlines()[4:7]
    frequent = [one.name for one in data.classes].index(
        first.split("|")[1].split(" everywhere")[0].strip()
    )
    assert f"{counts[frequent] / counts.sum():.3f}" == first.split("|")[2].strip()
    assert f"## test, {counts.sum():,} pixels" in printed
    for line in others:
        assert float(line.split("|")[2]) > counts[frequent] / counts.sum()


def test_velocities_have_no_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert pixel_classifier.main(["data.name=granulation", "model.name=deepvel"]) == 2
    assert "granulation holds velocity; needed are classes" in capsys.readouterr().err


def test_runs_of_other_classes_are_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does a slash at the end of its name make a configuration of a run."""
    root = land_cover.make(tmp_path / "land_cover", size=60)
    known = {"name": "land_cover", "root": str(root), "size": [12, 12]}
    for name, chosen in (("one", CLASSES), ("two", dict(list(CLASSES.items())[:2]))):
        folder = RunFolder(tmp_path / name)
        experiment = config.validate({"data": {**known, "options": {"classes": chosen}}}, name)
        folder.write_text(folder.config, experiment.to_yaml())
        told = facts(build("land_cover", root, (12, 12), classes=chosen))
        folder.write_json(folder.dataset, told.model_dump(mode="json"))
    runs = [f"{tmp_path / name}/" for name in ("one", "two")]
    assert pixel_classifier.main(runs) == 2
    two = ", ".join(list(CLASSES)[:2])
    assert f"two has learnt land_cover ({two}), the table is of" in capsys.readouterr().err
