"""A run from data to report: what its folder holds, and that it repeats and resumes exactly."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import yaml
from astropy.io import fits
from PIL import Image

from dlbench import checkpoint, layers, models
from dlbench.callbacks import Profile
from dlbench.data.miniatures import burned_area, potsdam
from dlbench.data.scenes import make_vaihingen
from dlbench.report import records

ROOT = Path(__file__).parents[1]
EPOCHS = 3
CONFIG = {
    "data": {"root": "scenes", "size": [32, 32]},
    "model": {"name": "segnet_basic_bayesian", "options": {"width": 0.05}},
    "training": {"class_weights": {"mode": "median_frequency"}, "tensorboard": True},
}
"""Everything that a resumed run must find again: dropout, moments, schedule, jitter, flips."""
ARGUMENTS = ["small.yaml", f"training.epochs={EPOCHS}", "monte_carlo_samples=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with scenes (8 training windows, 4 for validation) and a configuration."""
    folder = tmp_path_factory.mktemp("train")
    make_vaihingen(folder / "scenes", tiles={"train": 2, "val": 1}, tile_size=64)
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(scope="module")
def finished(place: Path, launch: Callable[..., Any]) -> tuple[Path, str]:
    """The folder of a run made without interruption, and what the run printed."""
    ended = launch(["-m", "dlbench.train", *ARGUMENTS, "name=whole"], place)
    assert ended.status == 0, ended.output
    return place / "runs" / "whole", ended.output


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_the_run_folder_holds_what_is_promised(finished: tuple[Path, str]) -> None:
    folder, output = finished
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    written = {
        "config.yaml",
        "dataset.json",
        "environment.json",
        "metrics.csv",
        "confusion.csv",
        "record.json",
    }
    written |= {
        "summary.md",
        "model.keras",
        "confusion.png",
        "curve.png",
        "predictions.png",
    }
    written |= {f"checkpoints/{kind}.npz" for kind in ("last", "last-1", "best")}
    events = {name for name in present if name.startswith("tensorboard/")}
    assert present == written | events
    assert events

    metrics = rows(folder / "metrics.csv")
    assert [row["epoch"] for row in metrics] == ["1", "2", "3"]
    assert {"loss", "learning_rate", "val_loss", "val_miou"} <= metrics[0].keys()
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["training"]["batch"] == 4, "defaults are written out"
    assert resolved["training"]["epochs"] == EPOCHS
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 100
    assert "dlbench" in (folder / "environment.json").read_text()
    assert "best epoch" in output
    assert "samples/s on 1 rank(s)" in output


def test_a_profile(place: Path, launch: Callable[..., Any]) -> None:
    profiled = ["name=profiled", "profile=true", "training.batch=1"]
    ended = launch(["-m", "dlbench.train", *ARGUMENTS, *profiled], place)
    assert ended.status == 0, ended.output
    folder = place / "runs" / "profiled"
    profile = (folder / "profile.md").read_text()
    # Of the eight steps of the first epoch those after the fifth.
    assert profile.startswith("Mean of 3 steps")
    assert "| convolution, gradient of its kernel |" in profile
    assert profile in ended.output
    (record,) = records.read_many([folder / "record.json"])
    assert len(record.ranks[0].step_s) == 8 * EPOCHS - Profile.DISTURBED


def test_the_record(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    (record,) = records.read_many([folder / "record.json"])
    workload = record.workload
    assert (workload.model, workload.data) == ("segnet_basic_bayesian", "vaihingen")
    assert (workload.ranks, workload.batch_per_rank, workload.shape) == (1, 4, (32, 32, 3))
    (rank,) = record.ranks
    # Two steps an epoch, the first of all not timed.
    assert len(rank.step_s) == 2 * EPOCHS - 1
    assert rank.samples == 4 * (2 * EPOCHS - 1)
    assert rank.wall_s == pytest.approx(sum(rank.step_s))
    # The options that were given, and those that were not by their defaults.
    written = yaml.safe_load((folder / "config.yaml").read_text())
    written["model"]["options"] = models.check("segnet_basic_bayesian", written["model"]["options"])
    written["data"]["options"] = {"stride": None, "labels": "full", "areas": None, "height": "none"}
    assert record.configuration == written
    assert record.throughput == pytest.approx(rank.samples / rank.wall_s)
    assert (rank.peak_bytes["host_rss"] or 0) > 100e6
    assert rank.comm_wait_s is not None
    assert rank.input_wait_s is not None
    assert 0.0 <= rank.comm_wait_s < 0.01 * rank.wall_s, "there is no other rank"
    assert 0.0 < rank.input_wait_s < rank.wall_s
    assert (rank.first_step_s or 0.0) > max(rank.step_s)
    assert rank.conditions["own_load"] is not None
    best = max(rows(folder / "metrics.csv"), key=lambda row: float(row["val_miou"]))
    assert str(record.quality["best_epoch"]) == best["epoch"]
    scores: Any = record.quality["training_size"]
    assert str(scores["mean_iou_all_classes"]) == best["val_miou"], "clutter included"
    assert scores["headline_leaves_out"] == ["clutter"]
    present = [row["f1"] for row in scores["classes"].values() if row["pixels"]]
    without = present[:-1] if scores["classes"]["clutter"]["pixels"] else present
    assert scores["headline_mean_f1"] == pytest.approx(np.mean(without))
    assert str(record.quality["loss"]) == best["val_loss"]

    counts = np.array([list(row.values())[1:] for row in rows(folder / "confusion.csv")], int)
    assert counts.shape == (6, 6)
    assert counts.sum() == scores["pixels"] == 64 * 64, "every pixel of the tile once"
    assert counts.trace() / counts.sum() == scores["global_accuracy"]


def test_the_exported_model_is_the_best(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    assert layers.register  # importing them is all that a reader needs
    model = keras.models.load_model(folder / "model.keras")
    arrays, _ = checkpoint.load(folder / "checkpoints" / "best.npz")
    assert len(model.trainable_variables) > 20
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable, arrays[f"model/{variable.path}"])
    assert model(np.zeros((1, 45, 61, 3), np.uint8)).shape == (1, 45, 61, 6)


def test_the_finished_run_met_again(
    finished: tuple[Path, str], place: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Evaluated, started again, started otherwise, set aside: in one process, to save time."""
    folder, output = finished
    again = ["dlbench.train", [*ARGUMENTS, "name=whole"]]
    commands = [
        ["dlbench.evaluate", [str(folder)]],
        again,
        ["dlbench.train", [*again[1], "training.batch=2", "optimizer.learning_rate=0.5"]],
        ["dlbench.train", [*again[1], "resume=false", "training.epochs=1"]],
        ["dlbench.train", [*again[1], "training.epochs=1", "data.workers=1"]],
        ["dlbench.evaluate", [str(folder), "checkpoint=last", "split=nowhere"]],
    ]
    backup = tmp_path / "whole"
    shutil.copytree(folder, backup)
    todo = tmp_path / "commands.json"
    todo.write_text(json.dumps(commands))
    try:
        ended = launch([str(ROOT / "tests/ranks/commands.py"), str(todo)], place)
        assert ended.status == 0, ended.output
        evaluated, complete, refused, aside, repeated, nowhere = json.loads(todo.read_text())
        aside_folders = list(folder.parent.glob("whole.2*"))
        assert len(aside_folders) == 1
        for file in ("metrics.csv", "checkpoints/last.npz", "record.json"):
            assert (aside_folders[0] / file).read_bytes() == (backup / file).read_bytes()
        assert len(rows(folder / "metrics.csv")) == 1
    finally:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)

    table = output.split("best epoch: ")[1].split("\n", 1)[1].split("global accuracy")[0]
    assert len(table.splitlines()) == 9
    assert evaluated["status"] == 0, evaluated["stderr"]
    assert table in evaluated["stdout"]
    assert "checkpoint 'best' on 4 samples of 'val'" in evaluated["stdout"]

    assert complete["status"] == 0, complete["stderr"]
    assert "the run is complete; resume=false trains it anew" in complete["stdout"]
    assert "2/2 - " not in complete["stdout"]
    assert table in complete["stdout"]

    assert refused["status"] == 2
    for difference in (
        "optimizer.learning_rate: 0.001 there, 0.5 now", "training.batch: 4 there, 2 now",
        "resume=false", "name=...",
    ):  # fmt: skip
        assert difference in refused["stderr"]
    assert "epochs" not in refused["stderr"]

    assert aside["status"] == 0, aside["stderr"]
    assert f"set the earlier run aside as {aside_folders[0].relative_to(place)}" in aside["stdout"]
    assert "2/2 - " in aside["stdout"]
    assert repeated["status"] == 0, repeated["stderr"]
    assert "the run is complete" in repeated["stdout"], "the same but for what may differ"
    assert nowhere["status"] == 2
    assert "no split 'nowhere'" in nowhere["stderr"] or "'nowhere'" in nowhere["stderr"]


def test_a_run_that_died_before_its_report_gets_it(
    finished: tuple[Path, str], place: Path, launch: Callable[..., Any]
) -> None:
    """And the curve that it lost; what it ran on stays, though the report is of another machine."""
    folder, _ = finished
    files = [folder / name for name in ("record.json", "summary.md", "metrics.csv")]
    told = [folder / name for name in ("environment.json", "dataset.json")]
    kept = {file: file.read_bytes() for file in (*files, *told)}
    right = records.read(files[0])
    for file in files:
        file.unlink()
    for file in told:
        file.write_text("{}\n")
    try:
        ended = launch(["-m", "dlbench.train", *ARGUMENTS, "name=whole"], place)
        assert ended.status == 0, ended.output
        found = records.read(files[0])
        assert files[1].exists()
        assert files[2].read_bytes() == kept[files[2]]
        assert [file.read_text() for file in told] == 2 * ["{}\n"]
    finally:
        for file, content in kept.items():
            file.write_bytes(content)
    assert found.throughput is None
    assert found.quality == right.quality
    assert "no step was timed" in ended.output


def test_the_command_to_evaluate(
    finished: tuple[Path, str], place: Path, launch: Callable[..., Any]
) -> None:
    _, output = finished
    ended = launch(["-m", "dlbench.evaluate", "runs/whole"], place)
    assert ended.status == 0, ended.output
    last_line = next(line for line in output.splitlines() if line.startswith("global accuracy"))
    assert last_line in ended.output


def test_a_killed_run_resumes_exactly(
    finished: tuple[Path, str], place: Path, launch: Callable[..., Any]
) -> None:
    """Killed in the middle of the third epoch, then started with the same command."""
    whole, _ = finished
    command = [*ARGUMENTS, "name=killed"]
    ended = launch([str(ROOT / "tests/ranks/dying.py"), "3", "1", *command], place)
    assert ended.status == -9, ended.output
    folder = place / "runs" / "killed"
    assert len(rows(folder / "metrics.csv")) == 2
    assert not (folder / "record.json").exists()

    ended = launch(["-m", "dlbench.train", *command], place)
    assert ended.status == 0, ended.output
    assert f"resuming after epoch 2 of {EPOCHS}" in ended.output
    same_run(folder, whole)


def same_run(folder: Path, whole: Path) -> None:
    """Bit-equal weights, moments, schedule and random states; equal curve and scores."""
    for kind in ("last", "best"):
        expected, meta = checkpoint.load(whole / "checkpoints" / f"{kind}.npz")
        found, found_meta = checkpoint.load(folder / "checkpoints" / f"{kind}.npz")
        assert found.keys() == expected.keys()
        assert len(found) > 60
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{kind}: {name}")
        assert found_meta == meta
    for file in ("metrics.csv", "confusion.csv"):
        assert (folder / file).read_text() == (whole / file).read_text()
    quality = [records.read_many([f / "record.json"])[0].quality for f in (folder, whole)]
    assert quality[0] == quality[1]


def test_velocities_on_two_ranks(tmp_path: Path, launch: Callable[..., Any]) -> None:
    """From pairs in DeepVel's files to a report, and to velocities in a FITS file."""
    rng = np.random.default_rng(0)
    (tmp_path / "pairs").mkdir()
    for suffix, count in (("", 5), ("_validation", 3)):
        for name, outputs in (("intensity", 2), ("velocity", 6)):
            values = rng.normal(0.5, 0.1, (count, 16, 16, outputs)).astype(np.float32)
            with h5py.File(tmp_path / "pairs" / f"{name}{suffix}.h5", "w") as file:
                file[name] = values
    arguments = [
        "data.name=granulation", "data.root=pairs", "data.augmentation.rotate90=true",
        "data.augmentation.noise=0.01", "model.name=deepvel",
        "model.options={blocks: 1, filters: 4}", "training.batch=1", "training.epochs=2",
    ]  # fmt: skip
    ended = launch(
        ["-m", "dlbench.train", str(ROOT / "configs/deepvel_granulation.yaml"), *arguments],
        tmp_path,
        ranks=2,
    )
    assert ended.status == 0, ended.output
    folder = tmp_path / "runs" / "deepvel-granulation"
    metrics = rows(folder / "metrics.csv")
    best = min(metrics, key=lambda row: float(row["val_rmse"]))
    (record,) = records.read_many([folder / "record.json"])
    assert str(record.quality["rmse"]) == best["val_rmse"]
    assert str(record.quality["best_epoch"]) == best["epoch"]
    components: Any = record.quality["components"]
    assert components["vx tau=0.01"]["n"] == 3 * 16 * 16
    assert "| vx tau=1 |" in (folder / "summary.md").read_text()
    for name in ("predictions.png", "curve.png"):
        assert (folder / name).stat().st_size > 10_000
    assert not (folder / "confusion.csv").exists()

    again = launch(["-m", "dlbench.evaluate", str(folder)], tmp_path)
    assert again.status == 0, again.output
    table = ended.output.replace("[0]<stdout>:", "").split("best epoch: ")[1].split("\n", 1)[1]
    assert table.split("RMSE over all")[0] in again.output

    fits.writeto(tmp_path / "sun.fits", rng.normal(1, 0.1, (3, 20, 30)).astype(np.float32))
    predicted = launch(["-m", "dlbench.predict", str(folder), "sun.fits"], tmp_path)
    assert predicted.status == 0, predicted.output
    with fits.open(tmp_path / "sun_velocity.fits") as file:
        assert file[0].data.shape == (2, 20, 30, 6)
        assert np.isfinite(file[0].data).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["potsdam", "burned_area"])
def test_scenes_of_other_layouts_on_two_ranks(
    tmp_path: Path, launch: Callable[..., Any], name: str
) -> None:
    """Two epochs as configured, of a tiny network: the loss falls, the pictures are drawn."""
    if name == "potsdam":
        potsdam.make(tmp_path / name, tiles=["2_10", "3_11", "2_11"], tile_size=96)
    else:
        burned_area.make(tmp_path / name, scene_size=200)
    arguments = [
        str(ROOT / f"configs/segnet_{name}.yaml"), f"data.root={name}", "name=two",
        "data.size=[32,32]", "model.name=segnet_basic", "model.options={width: 0.1}",
        "optimizer={name: adam, learning_rate: 0.003}", "training.epochs=2", "training.batch=2",
        "training.evaluate_every=1",
    ]  # fmt: skip
    ended = launch(["-m", "dlbench.train", *arguments], tmp_path, ranks=2)
    assert ended.status == 0, ended.output
    folder = tmp_path / "runs" / "two"
    first, last = rows(folder / "metrics.csv")
    assert float(last["loss"]) < float(first["loss"])
    (record,) = records.read_many([folder / "record.json"])
    assert (record.workload.data, record.workload.ranks) == (name, 2)
    with Image.open(folder / "predictions.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_four_ranks_as_typed(street: Path, launch: Callable[..., Any]) -> None:
    """Synchronised batch-norm, compressed gradients, bfloat16; scored again by one rank."""
    arguments = [
        "name=four", "data.name=camvid", "data.root=street", "data.size=[32,32]",
        "model.name=segnet", "model.options.width=0.05", "training.batch=1", "training.epochs=2",
        "training.precision=mixed_bfloat16", "distributed.batch_norm=sync",
        "distributed.compression=fp16", "distributed.fusion_threshold_mb=8",
        "optimizer.scale_by_ranks=true", "optimizer.weight_decay=0.001",
    ]  # fmt: skip
    place = street.parent
    ended = launch(["-m", "dlbench.train", *arguments], place, ranks=4)
    assert ended.status == 0, ended.output
    printed = [line for line in ended.output.splitlines() if "<stdout>" in line]
    assert printed
    assert all(line.startswith("[0]<stdout>:") for line in printed), "rank 0 alone prints"

    (record,) = records.read_many([place / "runs" / "four" / "record.json"])
    assert [rank.rank for rank in record.ranks] == [0, 1, 2, 3]
    # 7 samples: steps of 4 and 3, of which the last rank has 1 and 0; the first is not timed.
    assert [rank.samples for rank in record.ranks] == [3, 3, 3, 1]
    samples, slowest = 10, max(rank.wall_s for rank in record.ranks)
    assert record.throughput == pytest.approx(samples / slowest)

    again = launch(["-m", "dlbench.evaluate", "runs/four"], place)
    assert again.status == 0, again.output
    table = ended.output.replace("[0]<stdout>:", "").split("best epoch: ")[1].split("\n", 1)[1]
    assert table.split("global accuracy")[0] in again.output
