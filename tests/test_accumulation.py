"""Micro-batches whose gradients are added up: the step of the whole batch, in the memory of one.

On several ranks, without batch-norm and with it synchronised: `tests/test_distributed.py`. From
checkpoints: `tests/faults/test_stopping.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import launching, training_cases
from benchmarks.launching import Spec
from dlbench import checkpoint, models
from dlbench.distributed import SingleProcess
from dlbench.report import records
from dlbench.tasks.segmentation import CrossEntropy
from dlbench.tasks.velocity import SquaredError
from dlbench.training import Trainer

ROUNDING = {"float32": 2e-5, "mixed_float16": 5e-3}
"""Of a tensor's largest change in a step: sums in another order were 1.2e-6 apart in float32, and
7.5e-4 where each micro-batch's gradients have been rounded to half precision layer after layer."""


@pytest.fixture(autouse=True)
def policy() -> Any:
    yield
    keras.config.set_dtype_policy("float32")


def step(
    samples: int, micro_batches: int, precision: str = "float32", infinite: bool = False
) -> tuple[list[np.ndarray], keras.optimizers.Optimizer, float]:
    """The changes of the variables in a step of SGD, the optimiser after it, and the loss."""
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    plain = keras.layers.Activation
    network = models.build("segnet", (None, None, 3), 3, width=0.05, normalization=plain)
    trainer = Trainer(
        network, SingleProcess(), CrossEntropy(np.ones(3)), micro_batches=micro_batches
    )
    # So large that the weights' own rounding does not show.
    optimizer: Any = keras.optimizers.SGD(1e3)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    generator = np.random.default_rng(0)
    image = generator.uniform(0, 255, (samples, 32, 32, 3)).astype(np.float32)
    # Void pixels, so that micro-batches have unequal counts.
    target = generator.choice(np.array([0, 1, 2, 255], np.uint8), (samples, 32, 32))
    target[0, :20] = 255
    if infinite:
        image[0, 0, 0] = np.inf
    before = [v.numpy() for v in network.trainable_variables]
    loss = float(trainer.step(iter([(image, target)]))["loss"])
    changes = [v.numpy() - b for v, b in zip(network.trainable_variables, before, strict=True)]
    return changes, optimizer, loss


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize(("samples", "micro_batches"), [(4, 2), (5, 3), (2, 3)])
def test_a_step_is_that_of_the_whole_batch(
    samples: int, micro_batches: int, precision: str
) -> None:
    """Of even and uneven parts, and where there are fewer samples than parts."""
    expected, _, loss = step(samples, 1, precision)
    found, _, accumulated = step(samples, micro_batches, precision)
    assert accumulated == pytest.approx(loss, rel=1e-6 if precision == "float32" else 1e-3)
    for one, other in zip(found, expected, strict=True):
        atol = ROUNDING[precision] * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)
    fewer, _, _ = step(samples - 1, 1, precision)
    apart = max(np.abs(a - b).max() for a, b in zip(fewer, expected, strict=True))
    assert apart > 0.1 * max(np.abs(b).max() for b in expected), "it could not have failed"


def test_an_inf_in_one_micro_batch_has_the_whole_step_skipped() -> None:
    changes, optimizer, _ = step(4, 2, "mixed_float16", infinite=True)
    assert not any(change.any() for change in changes)
    _, sound, _ = step(4, 2, "mixed_float16")
    assert int(sound.inner_optimizer.iterations) == 1
    assert int(optimizer.inner_optimizer.iterations) == 0
    assert float(optimizer.dynamic_scale) == float(sound.dynamic_scale) / 2


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (CrossEntropy(np.ones(3)), np.zeros((1, 2, 2), np.uint8)),
        (SquaredError(), np.zeros((1, 2, 2, 3), np.float32)),
    ],
)
def test_in_a_void_target_nothing_counts(loss: Any, target: np.ndarray) -> None:
    void = loss.void(tf.constant(target))
    assert (void.shape, void.dtype.as_numpy_dtype) == (target.shape, target.dtype)
    assert float(loss.count(tf.constant(target))) > 0
    assert float(loss.count(void)) == 0.0
    assert float(loss.summed(tf.ones((1, 2, 2, 3)), void)) == 0.0


def test_a_run_counts_steps_of_the_optimiser(street: Path, launch: Callable[..., Any]) -> None:
    """Seven samples in steps of three make three an epoch, by which the schedule goes too."""
    arguments = [
        "name=run", "data.name=camvid", "data.root=street", "data.size=[32,32]",
        "model.name=segnet_basic", "model.options.width=0.05", "training.epochs=2",
        "training.batch=1", "training.accumulate_steps=3", "optimizer.warmup_epochs=2",
        "optimizer.learning_rate=0.001",
    ]  # fmt: skip
    ended = launch(["-m", "dlbench.train", *arguments], street.parent)
    assert ended.status == 0, ended.output
    assert "1 rank(s) x batch 1 x 3 micro-batches, 3 steps an epoch" in ended.output
    folder = street.parent / "runs/run"
    record = records.read(folder / "record.json")
    assert record.workload.id == "train/segnet_basic/camvid/accumulate-3"
    assert record.workload.batch_per_rank == 3
    (rank,) = record.ranks
    assert (len(rank.step_s), rank.samples) == (2 * 3 - 1, 2 * 7 - 3), "but for the first step"
    arrays, meta = checkpoint.load(folder / "checkpoints/last.npz")
    (iterations,) = (value for name, value in arrays.items() if name.endswith("iteration"))
    assert int(iterations) == 6
    assert meta["history"][0]["learning_rate"] == pytest.approx(1e-3 * 4 / 6)


@pytest.mark.slow  # three launches of a network of half a GiB
def test_memory_is_that_of_one_micro_batch(tmp_path: Path) -> None:
    def peak(batch: int, micro_batches: int) -> int:
        content = training_cases.content(
            "segnet_basic", tmp_path, threads=1, batch=batch, size=(180, 240)
        )
        content["training"]["accumulate_steps"] = micro_batches
        found = launching.launch(Spec("train", "memory", content, 1, 2))
        assert found["ranks"][0]["samples"] == 2 * batch * micro_batches
        return int(found["ranks"][0]["peak_bytes"]["host_rss"])

    one, whole, accumulated = peak(2, 1), peak(8, 1), peak(2, 4)
    print(f"{one / 2**20:.0f} MiB, {whole / 2**20:.0f} at once, {accumulated / 2**20:.0f} in parts")
    assert whole > 1.5 * one, "the comparison could not have failed"
    assert accumulated < one + 0.2 * (whole - one)
