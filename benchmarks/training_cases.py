"""The networks that are measured, their synthetic batches, and the step that is timed."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tiny_data
from dlbench import config
from dlbench import session as sessions
from dlbench.session import Session


@dataclass(frozen=True)
class Network:
    """A row of the suite; the smaller size and the options are for the smoke test."""

    data: str
    size: tuple[int, int]
    smoke_size: tuple[int, int]
    smoke_options: dict[str, Any] = field(default_factory=dict)


NETWORKS = {
    "segnet": Network("vaihingen", (180, 240), (64, 64), {"width": 0.125}),
    "segnet_basic": Network("vaihingen", (180, 240), (32, 32), {"width": 0.25}),
    "deepvel": Network("granulation", (50, 50), (16, 16), {"blocks": 2, "filters": 8}),
}


def content(
    model: str,
    folder: Path,
    *,
    threads: int,
    batch: int,
    precision: str = "float32",
    size: tuple[int, int] | None = None,
    options: dict[str, Any] | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """A configuration of `dlbench.train`, JSON-ready, on data that are made in ``folder``."""
    network = NETWORKS[model]
    name = data or network.data
    root = tiny_data.make(name, folder / name)
    return {
        "data": {
            "name": name,
            "root": str(root),
            "size": size or network.size,
            "options": tiny_data.OPTIONS.get(name, {}),
            "augmentation": {"flip_left_right": False},
        },
        "model": {"name": model, "options": options or {}},
        # A rate that does not depend on how many steps are measured.
        "optimizer": {"schedule": "constant", "warmup_epochs": 0},
        "training": {"batch": batch, "precision": precision, "threads": threads},
    }


@contextmanager
def opened(content: dict[str, Any]) -> Iterator[Session]:
    """The session of a configuration."""
    with own_keras_state():
        yield sessions.start(config.validate(content, "a benchmark"))


@contextmanager
def own_keras_state() -> Iterator[None]:
    """Keras's global state is put back after the block."""
    import keras

    policy = keras.config.dtype_policy()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.backend.clear_session()
        gc.collect()  # networks are cyclic


def trainer_of(session: Session) -> Any:
    """The compiled `dlbench.training.Trainer`, as `dlbench.train` has it; equal on all ranks."""
    from dlbench import checkpoint
    from dlbench.schedule import build_optimizer
    from dlbench.training import Trainer

    training = session.experiment.training

    trainer = Trainer(
        session.network,
        session.ranks,
        session.task.loss(training),
        batch=training.samples_per_step,
        micro_batches=training.accumulate_steps,
    )
    optimizer = build_optimizer(
        session.experiment.optimizer,
        steps_per_epoch=1,
        epochs=1,
        ranks=session.ranks.size,
        precision=training.precision,
    )
    optimizer.build(session.network.trainable_variables)
    session.ranks.broadcast(list(checkpoint.variables_of(session.network, optimizer).values()))
    trainer.compile(optimizer=optimizer, jit_compile=False)
    return trainer


def training_step(trainer: Any, batches: Iterator[Any]) -> Callable[[], float]:
    """The step that `fit` repeats; returns what `fit` shows: the mean loss of all steps so far."""
    import tensorflow as tf

    def step() -> float:
        loss = trainer.step(batches)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step


def synthetic_batches(session: Session) -> Iterator[tuple[Any, Any]]:
    """One batch that lies in memory, again and again."""
    return itertools.repeat(synthetic_batch(session))


def synthetic_batch(session: Session) -> tuple[Any, Any]:
    """Noise of the data set's kind, and a target that can be learnt from it: equal steps of the
    first band for classes, mixtures of the bands for values. Ranks have noise of their own."""
    import tensorflow as tf

    dataset, size = session.dataset, session.experiment.data.size
    assert size is not None
    shape = (session.experiment.training.samples_per_step, *size, len(dataset.bands))
    generator = np.random.default_rng(session.ranks.rank)
    if not dataset.classes:
        image = generator.normal(1.0, 0.1, shape).astype(np.float32)
        mixture = np.random.default_rng(0).normal(size=(shape[-1], len(dataset.outputs)))
        return tf.constant(image), tf.constant(10.0 * (image - 1.0) @ mixture, tf.float32)
    low, high = dataset.value_range
    part = generator.uniform(0.0, 1.0, shape)
    image = (low + part * (math.nextafter(high, low) - low)).astype(dataset.dtype)
    target = (part[..., 0] * len(dataset.classes)).astype(np.uint8)
    return tf.constant(image), tf.constant(target)
