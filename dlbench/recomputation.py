"""Training in less memory: parts of a network are computed again in the backward pass.

Between the passes only what enters a part is kept (Chen et al., 2016, arXiv 1604.06174). Losses
and gradients stay as they are. Where the parts are the network's stages, a step computes its
convolutions once more; where they are batch normalisations, each with the convolution that it goes
into, only the normalisation (the convolution's gradients need its input, not its result).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from dlbench.layers import BatchNormalization, Fork

REPEATABLE = (keras.layers.Conv2D, BatchNormalization, Fork, keras.layers.Add)
"""Layers that give the same when called twice: no pool, whose indices are small, no dropout."""


def stages(network: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers of a functional ``network`` in the order of computation, those together that are
    computed again together: by the name before the first "_", such as enc1 or block7."""

    def prefix(layer: keras.layers.Layer) -> str:
        found = layer.name.partition("_")[0]
        together = isinstance(layer, REPEATABLE) and found != layer.name
        return found + "_" if together else layer.name

    return _grouped(network, prefix)


def normalizations(network: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers of a functional ``network`` in the order of computation, a batch normalisation
    together with the convolution that alone takes its result, if that one is linear: of another
    the result is needed too."""
    users = Counter(id(one) for layer in network.layers for one in tf.nest.flatten(layer.input))
    alone = {
        id(layer.output): layer.name
        for layer in network.layers
        if isinstance(layer, BatchNormalization) and users[id(layer.output)] == 1
    }

    def normalization(layer: keras.layers.Layer) -> str:
        if not isinstance(layer, keras.layers.Conv2D):
            return layer.name
        linear = layer.activation is keras.activations.linear
        return alone.get(id(layer.input), layer.name) if linear else layer.name

    return _grouped(network, normalization)


PARTS: dict[Literal[True, "normalization"], Callable[..., list[list[keras.layers.Layer]]]] = {
    True: stages,
    "normalization": normalizations,
}
"""By the value of `training.recompute`."""


def _grouped(
    network: keras.Model, group_of: Callable[[keras.layers.Layer], str]
) -> list[list[keras.layers.Layer]]:
    groups: dict[str, list[keras.layers.Layer]] = {}
    for layer in network.layers:
        groups.setdefault(group_of(layer), []).append(layer)
    # A group stands where its last layer does: what enters it is known then.
    place = {layer.name: index for index, layer in enumerate(network.layers)}
    return sorted(groups.values(), key=lambda group: place[group[-1].name])


class Recomputed:
    """``network`` in training, each of its ``parts``, a key of `PARTS`, that has several layers and
    batch normalisation among them, recomputed for its gradient. For graphs: run eagerly, the tape
    around it would keep everything."""

    def __init__(self, network: keras.Model, parts: Literal[True, "normalization"] = True) -> None:
        self._network = network
        self._parts = []
        groups = PARTS[parts](network)
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
            layers = [one for one in group if isinstance(one, BatchNormalization)]
            repeated = layers and len(group) > 1  # alone it keeps what enters anyway
            run = _repeatable(part, layers) if repeated else _training(part)
            found = run(*(values[id(tensor)] for tensor in entering))
            values.update(zip(map(id, leaving), tf.nest.flatten(found), strict=True))
        return values[id(self._network.outputs[0])]


def _training(part: keras.Model) -> Callable[..., Any]:
    return lambda *inputs: part(list(inputs), training=True)


def _repeatable(part: keras.Model, layers: list[BatchNormalization]) -> Callable[..., Any]:
    @tf.custom_gradient
    def run(*inputs: tf.Tensor) -> Any:
        def gradient(*upstream: tf.Tensor, variables: Sequence[Any] = ()) -> tuple[Any, Any]:
            # Not before its turn: what is computed again would be kept from then on. XLA, which
            # would not heed it, is not used in training.
            with tf.control_dependencies(upstream):
                again = [tf.identity(one) for one in inputs]
            with _statistics_kept(layers), tf.GradientTape() as tape:
                tape.watch(again)
                results = tf.nest.flatten(part(again, training=True))
            by_input, by_variable = tape.gradient(results, (again, list(variables)), list(upstream))
            return by_input, by_variable

        return part(list(inputs), training=True), gradient

    return run


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
