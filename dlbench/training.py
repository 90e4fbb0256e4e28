"""The training step: Keras `fit` with exact sums over ranks.

The loss of a step is that of its task summed over all that counts on all ranks, divided by how much
that is; so N ranks with batch b follow one rank with batch N*b.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dlbench.bench import split
from dlbench.data.batches import ALIGNMENT, Batch
from dlbench.distributed import SingleProcess
from dlbench.recomputation import Recomputed
from dlbench.tasks import Loss

STOPPING = "stopping"
"""What a step's graph returns beside its logs: how many ranks were asked to stop, float32, ()."""

Sums = tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]
"""A loss summed over what counts, (); the seconds waited for other ranks, float64, (); and the
gradient by each variable, of the scaled loss divided by what counts."""

UNKNOWN_SIDE = 256
"""Pixels along a side of a sample, where samples are of any size."""


def draw_own_dropout(network: keras.Model, rank: int) -> None:
    """Give ``rank`` dropout masks of its own: the ranks' seeds are equal, like all they start with.

    Rank 0 keeps its seeds, which are what a checkpoint holds.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            seed = layer.seed_generator.state
            seed.assign(seed + np.array([rank, 0], dtype=seed.dtype))


def shared(part: np.ndarray | tf.Tensor) -> tf.Tensor:
    """A tensor in the memory of an array of `batches.Batches`, which nobody else uses; of other
    arrays, whose memory TensorFlow's vectors do not fit, a copy."""
    if isinstance(part, tf.Tensor) or part.ctypes.data % ALIGNMENT or not part.flags.carray:
        return tf.convert_to_tensor(part)
    return tf.experimental.dlpack.from_dlpack(part.__dlpack__())


class Trainer(keras.Model):
    """Wraps a network for `fit` under Horovod.

    Gradients are summed over ranks before the optimiser sees them, outside any data-dependent
    branch: an inf on one rank becomes an inf on all, and all skip that step together. ``batch`` is
    how many samples a rank has in a step, which it trains on in so many ``micro_batches``, one
    after the other, in the memory of one. ``one_size``: all samples are of the first one's size.
    """

    train_function: Any

    def __init__(
        self,
        network: keras.Model,
        ranks: SingleProcess,
        loss: Loss,
        weight_decay: float = 0.0,
        recompute: Literal[False, True, "normalization"] = False,
        batch: int = 1,
        micro_batches: int = 1,
        one_size: bool = True,
    ) -> None:
        super().__init__(name="trainer")
        self.network = network
        kept = partial(network, training=True)
        self._forward = Recomputed(network, recompute) if recompute else kept
        self._ranks = ranks
        self._batch = batch
        self._micro_batches = micro_batches
        self._task_loss = loss
        # L2 of kernels alone: biases and batch-norm parameters stay free.
        self._decayed = {v.path for v in network.trainable_variables if v.path.endswith("kernel")}
        self._weight_decay = weight_decay
        self._loss = keras.metrics.Mean(name="loss")
        self.waits = split.Waits()
        """What each step waited for."""
        self._batches: Iterator[Batch] = iter(())
        self._one_size = one_size
        self._graph: Any = None
        self.stopping = tf.Variable(0.0, trainable=False)
        """Not 0 on a rank that is asked to stop ..."""
        self.all_stop = False
        """... and after the step that a rank began so, on all of them."""

    @property
    def metrics(self) -> list[Any]:
        return [self._loss]

    def call(self, image: Any, training: bool = False) -> Any:
        return self.network(image, training=training)

    def fit(self, batches: Iterable[Batch], **options: Any) -> Any:
        """Keras's `fit` on endless ``batches`` of arrays: image, target.

        Keras draws from a tf.data pipeline alone, which takes 0.7 ms to hand a batch over from
        Python; a step of ours draws its own, and what Keras gets is never drawn from.
        """
        self._batches = iter(batches)
        try:
            return super().fit(tf.data.Dataset.range(1).repeat(), shuffle=False, **options)
        finally:
            if isinstance(self._batches, Generator):
                self._batches.close()  # ends the threads that read ahead

    def make_train_function(self, force: bool = False) -> None:
        """As Keras builds it for one step an execution, but for where batches come from; without
        XLA, which has no clock."""
        if self.train_function is None or force:
            self.train_function = lambda _: self.step(self._batches)

    def step(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """Make one step on the next of ``batches`` and give its logs."""
        begun = time.perf_counter()
        with tf.profiler.experimental.Trace(split.INPUT):
            batch = tuple(map(shared, next(batches)))
        input_s = time.perf_counter() - begun
        if self._graph is None:
            self._graph = tf.function(self.train_step, input_signature=[self._kinds(batch)])
        logs = self.waits.observed(input_s, self._graph(batch))
        self.all_stop = float(logs.pop(STOPPING)) > 0.0
        return logs

    def _kinds(self, batch: tuple[tf.Tensor, ...]) -> tuple[tf.TensorSpec, ...]:
        """Of all batches, any length, on every rank: `_nominal` goes by what is fixed in them."""
        fixed = 1 if self._one_size else 3
        return tuple(
            tf.TensorSpec((*fixed * [None], *part.shape[fixed:]), part.dtype) for part in batch
        )

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        image, target = data
        variables = self.network.trainable_variables
        valid = self._task_loss.count(target)
        sums = self._ranks.sum(tf.stack([valid, self.stopping]), "valid_pixels")
        total, stopping = tf.maximum(sums[0], 1.0), sums[1]
        # What counts on all ranks is needed when the backward pass has ended, not before: a rank
        # would wait for the others twice a step.
        divisor = total if self._ranks.size == 1 else self._nominal(target)
        local, waited, local_gradients = self._accumulated(image, target, divisor)
        if not self._ranks.sums_overlap:
            with tf.control_dependencies(local_gradients):
                local_gradients = [tf.identity(gradient) for gradient in local_gradients]
        begun = split.stamp(local_gradients)
        if self._ranks.size > 1:
            local_gradients = [gradient * (divisor / total) for gradient in local_gradients]
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        names = [f"gradient/{variable.path}" for variable in variables]
        gradients = self._ranks.sum_gradients(local_gradients, names, scaled)
        # Where they overlap, most sums have been made by the end of the backward pass.
        waited += split.stamp(gradients) - begun
        with tf.name_scope("optimizer"):  # by which a profile knows its ops
            self.optimizer.apply(self._with_decay(gradients, variables), variables)
        loss = self._ranks.sum(local, "loss") / total
        self._loss.update_state(loss, sample_weight=total)
        return {"loss": self._loss.result(), STOPPING: stopping, **self._exposed(waited)}

    def _accumulated(self, image: tf.Tensor, target: tf.Tensor, divisor: Any) -> Sums:
        """`_pass` over this rank's micro-batches, added up."""
        before = None
        if self._micro_batches > 1:

            def another(number: tf.Tensor, *sums: Any) -> Any:
                found = self._pass(*self._part(image, target, number), divisor)
                return (number + 1, *tf.nest.map_structure(tf.add, sums, found))

            nothing = [tf.zeros(variable.shape) for variable in self.network.trainable_variables]
            _, *before = tf.while_loop(
                lambda number, *_: number < self._micro_batches - 1,
                another,
                (0, tf.constant(0.0), tf.constant(0.0, tf.float64), nothing),
                parallel_iterations=1,
            )
            # Not beside the others, for their memory.
            with tf.control_dependencies(tf.nest.flatten(before)):
                image, target = tf.identity(image), tf.identity(target)
            image, target = self._part(image, target, self._micro_batches - 1)
        # Out of the loop: each of its gradients can be sent as soon as it is there.
        last = self._pass(image, target, divisor)
        return last if before is None else tf.nest.map_structure(tf.add, tuple(before), last)

    def _part(
        self, image: tf.Tensor, target: tf.Tensor, number: tf.Tensor | int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A micro-batch: an even part of the batch, one void sample where there are not enough. All
        ranks make equally many passes, for the sums of synchronised batch-norm in them."""
        count, parts = tf.shape(image)[0], self._micro_batches
        start, stop = number * count // parts, (number + 1) * count // parts
        part = slice(start, tf.maximum(stop, start + 1))
        void = self._task_loss.void(target[part])
        return image[part], tf.where(stop > start, target[part], void)

    def _pass(self, image: tf.Tensor, target: tf.Tensor, divisor: Any) -> Sums:
        # A rank that the remainder left without a sample must not sway synchronised batch-norm.
        part = tf.cast(self._task_loss.count(target) > 0.0, tf.float32)
        # In the backward pass too, which may recompute.
        with self._ranks.taking_part(part), self._ranks.timing_waits() as waits:
            with tf.GradientTape() as tape:
                prediction = self._forward(image)
                local = self._task_loss.summed(prediction, target)
                share = self.optimizer.scale_loss(local / divisor)
            gradients = tape.gradient(share, self.network.trainable_variables)
        return local, tf.add_n([tf.constant(0.0, tf.float64), *waits]), gradients

    def _nominal(self, target: tf.Tensor) -> float:
        """About as much as counts in a step; a power of two, by which numbers are divided exactly,
        and on all ranks the same, whose gradients synchronised batch-norm adds up.
        """
        sides = [side or UNKNOWN_SIDE for side in target.shape[1:]]
        return float(2.0 ** round(np.log2(self._ranks.size * self._batch * np.prod(sides))))

    def _exposed(self, waited: tf.Tensor) -> dict[str, Any]:
        if self._ranks.size > 1 and tf.config.list_logical_devices("GPU"):
            return {}
        return {split.COMMUNICATION: waited}

    def _with_decay(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        if not self._weight_decay:
            return gradients
        return [
            gradient
            + self.optimizer.scale_loss(self._weight_decay * tf.convert_to_tensor(variable))
            if variable.path in self._decayed
            else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def average_statistics(self) -> None:
        """Give all ranks the mean of their batch-norm statistics (they differ under local BN)."""
        for variable in self.network.non_trainable_variables:
            if variable.dtype == "float32" and self._ranks.size > 1:
                total = self._ranks.sum(variable.value, f"statistics/{variable.path}")
                variable.assign(total / self._ranks.size)
