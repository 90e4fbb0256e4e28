"""The split of a step against waits that are planted, each of which notes how long it was."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench.bench.split import Waits
from dlbench.data.pipeline import Batch
from dlbench.distributed import SingleProcess
from dlbench.tasks.segmentation import CrossEntropy
from dlbench.training import Trainer


def test_waits_and_the_rest_add_up_to_the_steps() -> None:
    waits = Waits()
    waits.input_s, waits.comm_s = [9.0, 0.25, 0.5], [9.0, 0.5, 0.125]
    assert waits.within([1.0, 2.0]) == {"input_wait_s": 0.75, "comm_wait_s": 0.625}
    assert waits.within([2.0]) == {"input_wait_s": 0.5, "comm_wait_s": 0.125}
    assert waits.within([]) == {"input_wait_s": 0.0, "comm_wait_s": 0.0}
    # The clock was set in the first step, and back in the second.
    waits.input_s, waits.comm_s = [-3600.0, 0.25, 0.25], [0.5, 3600.0, 0.25]
    assert waits.within([1.0, 1.0, 1.0]) == {"input_wait_s": 0.5, "comm_wait_s": 0.5 + 0.75 + 0.25}
    waits.comm_s[1] = None
    assert waits.within([1.0, 1.0, 1.0]) == {"input_wait_s": 0.5, "comm_wait_s": None}
    assert waits.within([1.0])["comm_wait_s"] == 0.25
    with pytest.raises(ValueError, match="4 steps are asked for; 3 were made"):
        waits.within([1.0] * 4)


class Pause:
    """Sleeps and notes for how long and until when, seconds since 1970, all that belongs to it
    included: entering Python from a graph takes milliseconds where memory that rested is slow."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.lasted: list[float] = []
        self.ended: list[float] = []

    def over(self, draw: Callable[[], Batch]) -> Batch:
        """Before what ``draw`` gives."""
        begun = time.time()
        time.sleep(self._seconds)
        drawn = draw()
        self._note(begun, time.time())
        return drawn

    def before(self, tensor: tf.Tensor) -> tf.Tensor:
        """In a graph."""

        def slept(x: tf.Tensor) -> tf.Tensor:
            time.sleep(self._seconds)
            return x

        with tf.control_dependencies([tensor]):
            begun = tf.timestamp()
        with tf.control_dependencies([begun]):
            after = tf.ensure_shape(tf.py_function(slept, [tensor], tensor.dtype), tensor.shape)
        with tf.control_dependencies([after]):
            ended = tf.timestamp()
        with tf.control_dependencies([tf.py_function(self._note, [begun, ended], [])]):
            return tf.identity(after)

    def _note(self, begun: Any, ended: Any) -> None:
        self.ended.append(float(ended))
        self.lasted.append(float(ended) - float(begun))


class SlowRanks(SingleProcess):
    """Two ranks by their word. Their sums of gradients take as long as ``pause``, and their counts
    of pixels as long as ``between``, which begins beside the forward pass."""

    size = 2

    def __init__(self, pause: Pause, between: Pause) -> None:
        self._pause, self._between = pause, between

    def sum(self, tensor: Any, name: str) -> Any:
        return self._between.before(tensor) if name == "valid_pixels" else tensor

    def sum_gradients(
        self, gradients: Sequence[Any], names: Sequence[str], scaled: bool = False
    ) -> list[Any]:
        return [
            self._pause.before(gradient) if name.endswith("kernel") else gradient
            for gradient, name in zip(gradients, names, strict=True)
        ]


class Slow(keras.layers.Layer):
    """Its forward pass takes as long as ``pause``, once it has been built."""

    def __init__(self, pause: Pause) -> None:
        super().__init__()
        self._pause = pause

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if isinstance(x, keras.KerasTensor):
            return x

        @tf.custom_gradient
        def identity(x: tf.Tensor) -> Any:
            return self._pause.before(x), lambda dy: dy

        return identity(x)


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


def trainer_of(ranks: SingleProcess, work: Pause | None = None) -> Trainer:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1)(image)
    network = keras.Model(image, Slow(work)(x) if work else x)
    trainer = Trainer(network, ranks, CrossEntropy(np.ones(3)))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    return trainer


def batches(pause: Pause | None = None) -> Iterator[Batch]:
    generator = np.random.default_rng(0)

    def draw() -> Batch:
        image = generator.normal(size=(2, 8, 8, 3)).astype(np.float32)
        return image, generator.integers(0, 3, (2, 8, 8), np.uint8)

    while True:
        yield pause.over(draw) if pause else draw()


def as_keras_draws_them() -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, 8, 8, 3), tf.float32),
            tf.TensorSpec((None, 8, 8), tf.uint8),
        ),
    )


def timed(step: Callable[[], Any], steps: int) -> list[float]:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def test_each_part_of_a_step_is_what_was_planted() -> None:
    stall, work, sums, between = Pause(0.06), Pause(0.08), Pause(0.04), Pause(0.12)
    trainer = trainer_of(SlowRanks(sums, between), work)
    inputs = batches(stall)
    logs = trainer.step(inputs)
    assert set(logs) == {"loss"}, "Keras shows all that a step returns"
    pauses = (stall, work, sums, between)
    for pause in pauses:
        pause.lasted.clear()
        pause.ended.clear()
    steps = timed(lambda: float(trainer.step(inputs)["loss"]), 6)

    input_s = trainer.waits.input_s[-6:]
    comm_s = [waited for waited in trainer.waits.comm_s[-6:] if waited is not None]
    assert [len(pause.lasted) for pause in pauses] == [6] * 4
    waited = np.maximum(np.subtract(between.ended, work.ended), 0.0)
    for measured, truth in ((input_s, stall.lasted), (comm_s, waited + sums.lasted)):
        beyond = [part - planted for part, planted in zip(measured, truth, strict=True)]
        # The clocks differ by little, and what a busy machine adds is in none of the best.
        assert min(beyond) > -1e-3
        assert min(map(abs, beyond)) < 0.02 * min(steps)
    waits = trainer.waits.within(steps)
    assert waits["input_wait_s"] == pytest.approx(sum(input_s))
    assert waits["comm_wait_s"] == pytest.approx(sum(comm_s))
    own = np.subtract(steps, input_s) - comm_s
    assert (own - work.lasted).min() > 0.0, "the parts are disjoint"


def test_one_rank_waits_for_no_other_and_ready_input_is_not_waited_for() -> None:
    work = Pause(0.05)
    trainer = trainer_of(SingleProcess(), work)
    ready = itertools.repeat(next(batches()))
    history = trainer.fit(ready, steps_per_epoch=5, verbose=0).history
    assert set(history) == {"loss"}
    assert len(trainer.waits.input_s) == 5
    assert min(trainer.waits.input_s[1:]) < 0.02 * 0.05
    assert all(waited is not None and waited < 0.02 * 0.05 for waited in trainer.waits.comm_s)


def our_steps(trainer: Trainer) -> Callable[[], dict[str, Any]]:
    inputs = batches()
    return lambda: trainer.step(inputs)


def keras_steps(trainer: Trainer) -> Callable[[], dict[str, Any]]:
    keras.Model.make_train_function(trainer)
    inputs = iter(as_keras_draws_them())
    return lambda: trainer.train_function(inputs)


def test_the_numbers_are_those_of_keras_own_training_function() -> None:
    def weights(steps: Callable[[Trainer], Callable[[], dict[str, Any]]]) -> list[np.ndarray]:
        trainer = trainer_of(SingleProcess())
        step = steps(trainer)
        for _ in range(3):
            step()
        return [variable.numpy() for variable in trainer.network.trainable_variables]

    for mine, other in zip(weights(our_steps), weights(keras_steps), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_the_split_costs_less_than_half_a_percent_of_a_tenth_of_a_second() -> None:
    """A step that does nothing, with and without it, in turn."""
    held = next(batches())
    trainers = [trainer_of(SingleProcess()) for _ in range(2)]
    keras.Model.make_train_function(trainers[1])
    kept = iter(tf.data.Dataset.from_tensors(held).repeat())
    ours, theirs = (
        [timed(lambda s=step: float(s()["loss"]), 1)[0] for _ in range(300)]  # type: ignore[misc]
        for step in (
            lambda: trainers[0].step(itertools.repeat(held)),
            lambda: trainers[1].train_function(kept),
        )
    )
    assert np.percentile(ours, 20) - np.percentile(theirs, 20) < 0.005 * 0.1


@pytest.mark.slow
def test_a_single_thread_takes_the_instants_before_the_work() -> None:
    """As each of two ranks on two cores has it: whatever else is ready might go first."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        [*command, "-m", "not slow"],
        env=os.environ | {"TF_NUM_INTEROP_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
