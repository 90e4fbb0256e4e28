"""A training step and a prediction of the SegNets on synthetic input, as `dlbench.train` runs them.

    pytest benchmarks/bench_training.py --benchmark-json=OUT.json

The batch lies in memory, so this is the speed that an input pipeline can at best reach. The size
stands in each test's name: ``--benchmark-disable`` checks everything on a smaller one. Run as a
script, this file measures the peak memory of one workload.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import config
from dlbench import session as sessions
from dlbench.bench.memory import PeakMemory
from dlbench.prediction import Predictor
from dlbench.report.records import Workload
from dlbench.schedule import build_optimizer
from dlbench.session import Session
from dlbench.training import Trainer

MODELS = ("segnet", "segnet_basic")
PRECISIONS = ("float32", "mixed_bfloat16")
BATCH = 2
SIZE, SMOKE_SIZE = (180, 240), (48, 64)
CHECKED_STEPS, WARMUP_ROUNDS, ROUNDS = 3, 2, 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    smoke = option("benchmark_disable") and not option("benchmark_enable")
    metafunc.parametrize(
        ("model", "precision", "size"),
        list(itertools.product(MODELS, PRECISIONS, [SMOKE_SIZE if smoke else SIZE])),
        ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else value,
    )


@pytest.fixture
def session(
    devices: None, compute_threads: int, model: str, precision: str, size: tuple[int, int]
) -> Iterator[Session]:
    """One rank with the network of these parameters; Keras's global state is put back after it."""
    policy = keras.config.dtype_policy()
    content = {
        "data": {"size": size},
        "model": {"name": model},
        # A rate that does not depend on how many steps are measured.
        "optimizer": {"schedule": "constant", "warmup_epochs": 0},
        "training": {"batch": BATCH, "precision": precision, "threads": compute_threads},
    }
    try:
        yield sessions.start(config.validate(content, __file__))
    finally:
        keras.config.set_dtype_policy(policy)
        keras.backend.clear_session()
        gc.collect()  # networks are cyclic


def training_step(session: Session) -> Callable[[], float]:
    """The compiled step that `fit` repeats, always on the same batch.

    Returns what `fit` shows: the mean loss of all steps so far.
    """
    experiment = session.experiment
    trainer = Trainer(session.network, session.ranks, session.task.loss(experiment.training))
    optimizer = build_optimizer(
        experiment.optimizer,
        steps_per_epoch=1,
        epochs=experiment.training.epochs,
        ranks=session.ranks.size,
        precision=experiment.training.precision,
    )
    optimizer.build(session.network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    trainer.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(synthetic_batch(session)).repeat())

    def step() -> float:
        loss = trainer.train_function(batches)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step


def inference(session: Session) -> Callable[[], tf.Tensor]:
    """A prediction; returns the class probabilities, (batch, height, width, classes) float32."""
    samples = session.experiment.monte_carlo_samples
    predictor = Predictor(session.network, session.task.activation, samples=samples, frozen=True)
    image, _ = synthetic_batch(session)

    def predict() -> tf.Tensor:
        probabilities, _ = predictor(image)
        tf.test.experimental.sync_devices()
        return probabilities

    return predict


WORKLOADS: dict[str, Callable[[Session], Callable[[], Any]]] = {
    "train-step": training_step,
    "inference": inference,
}


def synthetic_batch(session: Session) -> tuple[tf.Tensor, tf.Tensor]:
    """Noise, and labels that can be learnt from it: equal steps of the first band."""
    size, bands = session.experiment.data.size, session.dataset.bands
    assert size is not None
    image = np.random.default_rng(0).integers(0, 256, (BATCH, *size, len(bands)), np.uint8)
    target = image[..., 0].astype(np.int64) * len(session.dataset.classes) // 256
    return tf.constant(image), tf.constant(target, tf.uint8)


def test_train_step(benchmark: Any, attach_record: Callable[..., None], session: Session) -> None:
    step = training_step(session)
    losses = [step() for _ in range(CHECKED_STEPS)]
    assert np.isfinite(losses).all(), losses
    assert losses[-1] < losses[0], losses

    benchmark.group = "train-step"
    losses.append(benchmark.pedantic(step, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS))
    assert losses[-1] < losses[0], losses
    attach("train-step", benchmark, attach_record, session, first=losses[0], mean=losses[-1])


def test_inference(benchmark: Any, attach_record: Callable[..., None], session: Session) -> None:
    predict = inference(session)
    probabilities = predict().numpy()
    assert session.experiment.data.size is not None
    classes = len(session.dataset.classes)
    assert probabilities.shape == (BATCH, *session.experiment.data.size, classes)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-5)

    benchmark.group = "inference"
    benchmark.pedantic(predict, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    attach("inference", benchmark, attach_record, session)


def attach(
    name: str,
    benchmark: Any,
    attach_record: Callable[..., None],
    session: Session,
    **losses: float,
) -> None:
    if benchmark.disabled:
        return
    experiment = session.experiment
    model, precision = experiment.model.name, experiment.training.precision
    assert experiment.data.size is not None
    workload = Workload(
        id=f"{name}/{model}/{precision}",
        model=model,
        data="synthetic",
        precision=precision,
        ranks=session.ranks.size,
        batch_per_rank=BATCH,
        shape=(*experiment.data.size, len(session.dataset.bands)),
        mode={"train-step": "train"}.get(name, name),
    )
    attach_record(
        workload,
        samples_per_step=BATCH,
        peak_bytes=peak_bytes(name, experiment),
        quality={f"{when}_loss": loss for when, loss in losses.items()},
    )


def peak_bytes(name: str, experiment: config.Experiment) -> dict[str, int | None]:
    """Peak memory of a process that does nothing but ``CHECKED_STEPS`` steps of this workload.

    In this process it cannot be told: TensorFlow keeps what earlier benchmarks had allocated.
    """
    command = [sys.executable, __file__, name, experiment.model_dump_json()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, int | None] = json.loads(done.stdout)
    return found


def main(name: str, experiment: str) -> None:
    with PeakMemory() as memory:
        step = WORKLOADS[name](sessions.start(config.validate(json.loads(experiment), __file__)))
        for _ in range(CHECKED_STEPS):
            step()
    print(json.dumps(memory.peak_bytes))


if __name__ == "__main__":
    main(*sys.argv[1:])
