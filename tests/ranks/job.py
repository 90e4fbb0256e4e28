"""What every rank of a job does for `tests/test_distributed.py`: one launch, many findings.

``python job.py FOLDER`` alone or under horovodrun; rank r leaves FOLDER/rank<r>.json, and rank 0
the arrays of FOLDER/arrays.npz. The findings are compared in the tests, not here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlbench import config, distributed, environment, models, tasks
from dlbench.checkpoint import collect, variables_of
from dlbench.data import IGNORE, ClassInfo, DataSet, pipeline
from dlbench.data.dataset import Sample
from dlbench.evaluate import Evaluator
from dlbench.schedule import build_optimizer
from dlbench.session import Session
from dlbench.sync_normalization import sync_batch_normalization
from dlbench.tasks.segmentation import CrossEntropy, SegmentationEvaluation
from dlbench.training import Trainer

GLOBAL_BATCH = 4
CLASS_WEIGHTS = (0.5, 1.0, 3.0)
WIDTH = 0.05
INF_STEP = 1
"""The step at which the last rank's gradients get an inf."""


class Toy(DataSet):
    """Noise with the class of each 4 x 4 block in its bands' order; void pixels; any number."""

    name = "toy"
    bands = ("one", "two", "three")
    classes = tuple(ClassInfo(name, (0, 0, i), i) for i, name in enumerate("abc"))
    splits = ("train", "val")

    def __init__(
        self,
        train: int,
        val: int = 1,
        size: tuple[int, int] = (32, 32),
        infinite: int | None = None,
    ) -> None:
        super().__init__(Path("/"))
        self._counts = {"train": train, "val": val}
        self._sample_size = size
        self._infinite = infinite
        self.dtype = np.dtype(np.uint8 if infinite is None else np.float32)

    def count(self, split: str) -> int:
        return self._counts[split]

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        generator = np.random.default_rng([self.splits.index(split), index])
        height, width = self._sample_size
        blocks = generator.integers(0, 3, (-(-height // 4), -(-width // 4)), np.uint8)
        target = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].copy()
        image = generator.integers(0, 160, (height, width, 3), np.uint8)
        image[np.arange(height)[:, None], np.arange(width), target] += 80
        target[generator.random(target.shape) < 0.1] = IGNORE
        image = image.astype(self.dtype)
        if index == self._infinite:
            image[0, 0] = np.inf
        return image, target

    def sample_name(self, split: str, index: int) -> str:
        return f"{split}/{index}"


class InfInOneRank:
    """The ranks as they are, but for ``factor`` on one gradient of this rank."""

    def __init__(self, ranks: distributed.SingleProcess) -> None:
        self._ranks = ranks
        self.factor = tf.Variable(1.0, trainable=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def sum_gradients(
        self, gradients: Sequence[Any], names: Sequence[str], scaled: bool = False
    ) -> list[Any]:
        hit = [name.endswith("enc2_1_conv/kernel") for name in names]
        assert sum(hit) == 1
        mine = [one * self.factor if at else one for at, one in zip(hit, gradients, strict=True)]
        return self._ranks.sum_gradients(mine, names, scaled)


class Steps(keras.callbacks.Callback):
    """The loss of each step, and under loss scaling what the step did."""

    def __init__(self, ranks: Any) -> None:
        super().__init__()
        self._ranks = ranks
        self.found: list[dict[str, Any]] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.reset_metrics()  # else the loss is the mean since the epoch began
        if isinstance(self._ranks, InfInOneRank):
            hit = batch == INF_STEP and self._ranks.rank == self._ranks.size - 1
            self._ranks.factor.assign(np.inf if hit else 1.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        step: dict[str, Any] = {"loss": float(logs["loss"])}
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            step["scale"] = float(optimizer.dynamic_scale)
            step["iterations"] = int(optimizer.inner_optimizer.iterations)
            step["weights"] = digest(self.model.network.trainable_variables)
        self.found.append(step)


def digest(variables: list[Any]) -> str:
    whole = hashlib.sha256()
    for variable in variables:
        whole.update(np.asarray(variable).tobytes())
    return whole.hexdigest()


def network(name: str, normalization: Any = None, precision: str = "float32") -> keras.Model:
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(precision)
    return models.build(name, (None, None, 3), 3, normalization=normalization, width=WIDTH)


def fit(
    network: keras.Model,
    data: Toy,
    ranks: Any,
    *,
    epochs: int = 2,
    precision: str = "float32",
    learning_rate: float = 0.1,
    micro_batches: int = 1,
) -> dict[str, Any]:
    """Train as `dlbench.train` does, by SGD without momentum."""
    steps = pipeline.steps_per_epoch(data.count("train"), GLOBAL_BATCH // ranks.size, ranks.size)
    settings = config.Optimizer(
        name="sgd", momentum=0.0, learning_rate=learning_rate, schedule="constant", warmup_epochs=0
    )
    optimizer = build_optimizer(
        settings, steps_per_epoch=steps, epochs=epochs, ranks=ranks.size, precision=precision
    )
    optimizer.build(network.trainable_variables)
    trainer = Trainer(
        network,
        ranks,
        CrossEntropy(np.array(CLASS_WEIGHTS)),
        weight_decay=1e-3,
        micro_batches=micro_batches,
    )
    trainer.compile(optimizer=optimizer, jit_compile=False)
    batches = pipeline.training_batches(
        data,
        batch=GLOBAL_BATCH // ranks.size,
        ranks=ranks.size,
        rank=ranks.rank,
        seed=3,
        augmentation=config.Augmentation(),
        size=None,
        workers=1,
    )
    clock = Steps(ranks)
    before = digest(network.trainable_variables)
    trainer.fit(batches, steps_per_epoch=steps, epochs=epochs, callbacks=[clock], verbose=0)
    statistics = [v for v in network.non_trainable_variables if v.dtype == "float32"]
    local = digest(statistics)
    trainer.average_statistics()
    return {
        "steps": clock.found,
        "weights_before": before,
        "weights": digest(network.trainable_variables),
        "statistics_before_average": local,
        "statistics": digest(statistics),
    }


def consistency(ranks: distributed.SingleProcess, arrays: dict[str, Any]) -> dict[str, Any]:
    """7 samples in global batches of 4: steps of 4 and 3, where the last of four ranks idles.

    In two micro-batches a rank of two has one sample in each, one of four but half as many samples.
    """
    sync = sync_batch_normalization(ranks) if ranks.size > 1 else None
    cases = {
        "sync": ("segnet_basic", sync, ranks),
        "none": ("segnet", keras.layers.Activation, ranks),
        "local": ("segnet_basic", None, ranks),
        "accumulated": ("segnet", keras.layers.Activation, ranks),
        "accumulated sync": ("segnet_basic", sync, ranks),
    }
    if ranks.size > 1:
        half = distributed.Horovod(config.Distributed(compression="fp16"))
        cases["fp16"] = ("segnet", keras.layers.Activation, half)
    found = {}
    for case, (name, normalization, through) in cases.items():
        net = network(name, normalization)
        rate = 0.1 if normalization is not keras.layers.Activation else 0.02
        parts = 2 if case.startswith("accumulated") else 1
        found[case] = fit(net, Toy(7), through, learning_rate=rate, micro_batches=parts)
        for path, value in collect(variables_of(net)).items():
            arrays[f"{case}/{path}"] = value
    return found


def frozen_loss(ranks: distributed.SingleProcess, arrays: dict[str, Any]) -> list[float]:
    """The losses of an epoch that learns nothing, and the logits that they follow from."""
    net = network("segnet_basic", keras.layers.Activation)
    data = Toy(7)
    logits = [net(data.read("train", i)[0][None]).numpy()[0] for i in range(7)]
    arrays["frozen/logits"] = np.stack(logits)
    arrays["frozen/targets"] = np.stack([data.read("train", i)[1] for i in range(7)])
    # Mirrored samples would have other logits: the order alone is drawn.
    loss = CrossEntropy(np.array(CLASS_WEIGHTS))
    total = pixels = 0.0
    batches = pipeline.training_batches(
        data, batch=GLOBAL_BATCH // ranks.size, ranks=ranks.size, rank=ranks.rank, seed=3,
        augmentation=config.Augmentation(flip_left_right=False), size=None,
    )  # fmt: skip
    for image, target in itertools.islice(batches, 2):
        total += float(ranks.sum(loss.summed(net(image), target), "frozen"))
        pixels += float(ranks.sum(loss.count(target), "frozen_pixels"))
    return [total, pixels]


def loss_scaling(ranks: distributed.SingleProcess) -> dict[str, Any]:
    """mixed_float16, 4 steps: an inf in the last rank's gradients in one, in its data in another.

    The image with an inf is the last sample of step 2, which is of the last rank's share.
    """
    infinite = int(pipeline.epoch_order(16, 3, 0)[3 * GLOBAL_BATCH - 1])
    net = network("segnet", keras.layers.Activation, "mixed_float16")
    data = Toy(16, infinite=infinite)
    through = InfInOneRank(ranks)
    found = fit(net, data, through, epochs=1, precision="mixed_float16", learning_rate=0.02)
    found["finite"] = all(np.isfinite(v).all() for v in net.get_weights())
    return found


def evaluation(ranks: distributed.SingleProcess) -> dict[str, Any]:
    """13 samples of 40 x 36 pixels in batches of 2, seen at 32 x 32."""
    found = {}
    for name, precision in (
        ("segnet", "float32"),
        ("segnet_basic", "mixed_bfloat16"),
        ("segnet_basic_bayesian", "float32"),
        ("segnet_basic_bayesian", "mixed_bfloat16"),
    ):
        experiment = config.Experiment.model_validate(
            {"monte_carlo_samples": 3, "data": {"size": [32, 32]}, "training": {"batch": 2}}
        )
        net = network(name, precision=precision)
        toy = Toy(1, val=13, size=(40, 36))
        scored = Evaluator(Session(experiment, ranks, toy, net, tasks.of(toy)), "val")()
        assert isinstance(scored, SegmentationEvaluation)
        found[f"{name} {precision}"] = {
            "loss": scored.loss.hex(),
            "confusion": scored.confusion.counts.tolist(),
            "native": scored.native.counts.tolist(),
            "samples": scored.samples,
        }
    return found


def sync_gradients(ranks: distributed.SingleProcess) -> dict[str, Any]:
    """Outputs and gradients of synchronised batch-norm on this rank's part of one batch of 4."""
    generator = np.random.default_rng(0)
    x, upstream = generator.normal(3.0, 2.0, (2, 4, 5, 6, 3)).astype(np.float32)
    layer = sync_batch_normalization(ranks)(name="bn")
    layer.build(x.shape)
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([-1.0, 0.0, 1.0])
    mine = slice(4 * ranks.rank // ranks.size, 4 * (ranks.rank + 1) // ranks.size)
    part = tf.constant(x[mine])
    with tf.GradientTape() as tape:
        tape.watch(part)
        y = layer(part, training=True)
        loss = tf.reduce_sum(y * upstream[mine])
    dx, dgamma, dbeta = tape.gradient(loss, [part, layer.gamma.value, layer.beta.value])
    dgamma, dbeta = ranks.sum_gradients([dgamma, dbeta], ["dgamma", "dbeta"])
    named = {
        "y": y,
        "dx": dx,
        "dgamma": dgamma,
        "dbeta": dbeta,
        "moving_mean": layer.moving_mean,
        "moving_variance": layer.moving_variance,
    }
    return {name: np.asarray(value).tolist() for name, value in named.items()}


def collectives(ranks: distributed.SingleProcess) -> dict[str, Any]:
    keras.config.set_dtype_policy("float32")
    layer = keras.layers.Dense(2)
    layer.build((1, 3))
    layer.set_weights([np.full((3, 2), ranks.rank + 1.0), np.full(2, -ranks.rank - 1.0)])
    ranks.broadcast(layer.variables)
    counts = ranks.sum(tf.constant([[2**40 + ranks.rank]], tf.int64), "counts")
    return {
        "rank": ranks.rank,
        "size": ranks.size,
        "gathered": ranks.gather({"rank": ranks.rank, "text": "é" * ranks.rank}),
        "broadcast": [np.unique(w).tolist() for w in layer.get_weights()],
        "sum": counts.numpy().tolist(),
        "sum_dtype": counts.dtype.name,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "describe": ranks.describe(),
        "environment": environment.describe(horovod=ranks.describe()),
    }


def main(folder: Path, threads: int | None) -> None:
    distributed.configure_devices(threads)
    ranks = distributed.start(config.Distributed())
    arrays: dict[str, Any] = {}
    found = {
        "collectives": collectives(ranks),
        "consistency": consistency(ranks, arrays),
        "frozen_loss": frozen_loss(ranks, arrays),
        "loss_scaling": loss_scaling(ranks),
        "evaluation": evaluation(ranks),
        "sync_gradients": sync_gradients(ranks),
    }
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(found))
    if ranks.rank == 0:
        np.savez(folder / "arrays.npz", **arrays)
    ranks.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
