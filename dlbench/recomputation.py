"""Training in less memory: stages of a network are computed again in the backward pass.

Between the passes only what enters a stage is kept (Chen et al., 2016, arXiv 1604.06174). Losses
and gradients stay as they are; a step computes its convolutions once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from dlbench.layers import BatchNormalization

REPEATABLE = (keras.layers.Conv2D, BatchNormalization, keras.layers.Add)
"""Layers that give the same when called twice: no pool, whose indices are small, no dropout."""


def stages(network: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers of a functional ``network`` in the order of computation, those together that are
    computed again together: by the name before the first "_", such as enc1 or block7."""
    groups: dict[str, list[keras.layers.Layer]] = {}
    for layer in network.layers:
        prefix = layer.name.partition("_")[0]
        together = isinstance(layer, REPEATABLE) and prefix != layer.name
        groups.setdefault(prefix + "_" if together else layer.name, []).append(layer)
    # A stage stands where its last layer does: what enters it is known then.
    place = {layer.name: index for index, layer in enumerate(network.layers)}
    return sorted(groups.values(), key=lambda group: place[group[-1].name])


class Recomputed:
    """``network`` in training, each stage with batch normalisation recomputed for its gradient."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._parts = []
        groups = stages(network)
        for group in groups:
            inside = {id(tensor) for layer in group for tensor in tf.nest.flatten(layer.output)}
            entering = _unique(
                tensor
                for layer in group
                for tensor in tf.nest.flatten(layer.input)
                if id(tensor) not in inside
            )
            read = {
                id(tensor)
                for other in groups
                if other is not group
                for layer in other
                for tensor in tf.nest.flatten(layer.input)
            } | {id(tensor) for tensor in network.outputs}
            leaving = [
                tensor
                for layer in group
                for tensor in tf.nest.flatten(layer.output)
                if id(tensor) in read
            ]
            if not isinstance(group[0], keras.layers.InputLayer):
                self._parts.append((group, keras.Model(entering, leaving), entering, leaving))

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        """What ``network(image, training=True)`` gives."""
        values = {id(self._network.inputs[0]): image}
        for group, part, entering, leaving in self._parts:
            normalizations = [one for one in group if isinstance(one, BatchNormalization)]
            run = _repeatable(part, normalizations) if normalizations else _training(part)
            found = run(*(values[id(tensor)] for tensor in entering))
            values.update(zip(map(id, leaving), tf.nest.flatten(found), strict=True))
        return values[id(self._network.outputs[0])]


def _training(part: keras.Model) -> Callable[..., Any]:
    return lambda *inputs: part(list(inputs), training=True)


def _repeatable(part: keras.Model, layers: list[BatchNormalization]) -> Callable[..., Any]:
    first = True

    def run(*inputs: tf.Tensor) -> Any:
        nonlocal first
        again, first = not first, False
        with _statistics_kept(layers) if again else contextlib.nullcontext():
            return part(list(inputs), training=True)

    return tf.recompute_grad(run)


@contextlib.contextmanager
def _statistics_kept(layers: list[BatchNormalization]) -> Iterator[None]:
    """The moving statistics follow a batch once, not again when it is computed again."""
    for layer in layers:
        layer.keeps_statistics = True
    try:
        yield
    finally:
        for layer in layers:
            layer.keeps_statistics = False


def _unique(tensors: Any) -> list[Any]:
    return list({id(tensor): tensor for tensor in tensors}.values())
