"""Velocities: their loss, and scores that equal a plain computation."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import data, evaluate, models, tasks
from dlbench.config import ConfigError, Experiment, Training
from dlbench.data.granulation import Granulation
from dlbench.distributed import SingleProcess
from dlbench.session import Session
from dlbench.tasks.velocity import SquaredError, VelocityEvaluation

LOSS = SquaredError()


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def granulation(tmp_path: Path) -> Granulation:
    """Three training and five validation pairs, one of them with a hole in its velocities."""
    rng = np.random.default_rng(0)
    for suffix, count in (("", 3), ("_validation", 5)):
        velocity = rng.normal(0.5, 0.1, (count, 12, 10, 6)).astype(np.float32)
        velocity[-1, 2:5, 3:7, 1] = np.nan
        with h5py.File(tmp_path / f"images{suffix}.h5", "w") as file:
            file["intensity"] = rng.normal(1, 0.1, (count, 12, 10, 2)).astype(np.float32)
        with h5py.File(tmp_path / f"velocity{suffix}.h5", "w") as file:
            file["velocity"] = velocity
    dataset = data.build("granulation", tmp_path)
    assert isinstance(dataset, Granulation)
    return dataset


def test_loss_is_the_squared_error_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 2, 5, 4, 6)).astype(np.float32)
    target[0, 1:3, 2, 4] = np.nan  # one component is unknown: the pixel does not count
    known = np.isfinite(target).all(axis=-1)
    expected = np.square(prediction[known].astype(np.float64) - target[known]).sum()
    assert float(LOSS.summed(tf.constant(prediction), tf.constant(target))) == pytest.approx(
        expected, rel=1e-6
    )
    assert float(LOSS.count(tf.constant(target))) == 6 * known.sum()
    half = tf.cast(prediction, tf.bfloat16)
    assert LOSS.summed(half, tf.constant(target)).dtype == tf.float32


def test_void_pixels_have_no_gradient_and_no_nan() -> None:
    prediction = tf.Variable(np.ones((1, 2, 2, 2), np.float32))
    target = tf.constant([[[[0.0, 0.5], [np.nan, 0.0]], [[np.nan, np.nan], [3.0, 1.0]]]])
    with tf.GradientTape() as tape:
        loss = LOSS.summed(prediction, target)
    np.testing.assert_allclose(
        tape.gradient(loss, prediction), [[[[2, 1], [0, 0]], [[0, 0], [-4, 0]]]]
    )
    nothing = tf.fill((1, 2, 2, 2), np.float32(np.nan))
    assert float(LOSS.summed(prediction, nothing)) == 0
    assert float(LOSS.count(nothing)) == 0


def test_scores_equal_a_plain_computation(granulation: Granulation) -> None:
    keras.utils.set_random_seed(0)
    network = models.build("deepvel", (None, None, 2), 6, blocks=1, filters=4)
    experiment = Experiment.model_validate(
        {"data": {"name": "granulation"}, "training": {"evaluation_batch": 2}}
    )
    task = tasks.of(granulation)
    session = Session(experiment, SingleProcess(), granulation, network, task)
    found = evaluate.Evaluator(session, "val")()
    assert isinstance(found, VelocityEvaluation)

    truths, predictions = [], []
    for index in range(5):
        image, target = granulation.read("val", index)
        known = np.isfinite(target).all(axis=-1)
        truths.append(target[known])
        predictions.append(network(image[None]).numpy()[0][known])
    x, y = (np.concatenate(part).astype(np.float64) for part in (truths, predictions))
    assert len(x) == 5 * 12 * 10 - 3 * 4
    rmse = np.sqrt(np.square(x - y).mean(axis=0))
    np.testing.assert_allclose(found.moments.rmse, rmse, rtol=1e-5)
    assert found.scores()["val_rmse"] == pytest.approx(np.sqrt(np.square(x - y).mean()), rel=1e-5)
    correlation = [np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(6)]
    assert found.scores()["val_r"] == pytest.approx(np.mean(correlation), abs=1e-4)
    quality = found.quality()
    assert quality["samples"] == 5
    assert quality["components"]["vy tau=0.01"]["spread"] == pytest.approx(x[:, 5].std(), rel=1e-5)
    line = found.table().splitlines()[1]
    assert line.split()[:3] == ["vx", "tau=1", f"{rmse[0]:.3f}"]


def test_lower_is_better() -> None:
    history = [{"val_rmse": v} for v in (0.5, float("nan"), 0.3, 0.3, 0.4)]
    score = tasks.TASKS["velocity"].score
    assert score.best(history) is history[2]
    assert score.evaluations_since_best(history) == 2
    assert score.best([]) is None


def test_class_weights_are_refused(granulation: Granulation) -> None:
    training = Training.model_validate({"class_weights": {"mode": "median_frequency"}})
    with pytest.raises(ConfigError, match="granulation has no classes; set it to none"):
        tasks.of(granulation).loss(training)


def test_the_picture(granulation: Granulation, tmp_path: Path) -> None:
    image, target = granulation.read("val", 0)
    path = tmp_path / "predictions.png"
    tasks.of(granulation).draw([image], [target], [0.9 * target], None, path)
    assert path.stat().st_size > 10_000
