"""Batch normalisation folded into the convolution before it, for prediction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from dlbench.layers import BatchNormalization, Conv2D


class Folded:
    """A functional network rebuilt for prediction, in `network`, with fewer operations.

    With ``scale = gamma / sqrt(variance + epsilon)`` a `BatchNormalization` after a convolution is
    the same convolution with ``kernel * scale`` and ``(bias - mean) * scale + beta`` (Jacob et al.,
    2018, arXiv 1712.05877, eq. 14). These are kept in the precision that the convolution computes
    in, and the normalisation's activation becomes the convolution's. Where the convolution's result
    is used elsewhere as well, the layers stay. The weights are copies: `update` renews them.
    """

    def __init__(self, source: keras.Model) -> None:
        followers = _followers(source)
        replaced = {norm.name for norm in followers.values()}
        self._copies: list[tuple[Any, Any, BatchNormalization | None]] = []

        def copy(layer: Any) -> Any:
            if layer.name in replaced:
                return layer  # in the source alone: `call` passes it by
            config = layer.get_config()
            norm = followers.get(layer.name)
            if norm is not None:
                config.update(dtype=layer.compute_dtype, use_bias=True, kernel_initializer="zeros")
                config["activation"] = norm.activation
            own = layer.__class__.from_config(config)
            if isinstance(layer, keras.layers.Layer):
                self._copies.append((layer, own, norm))
            return own

        def call(layer: Any, *inputs: Any, **options: Any) -> Any:
            return inputs[0] if layer.name in replaced else layer(*inputs, **options)

        self.network: keras.Model = keras.models.clone_model(
            source, clone_function=copy, call_function=call
        )
        self.update()

    def update(self) -> None:
        """Take the weights that the source has now; functions traced before see them."""
        for layer, own, norm in self._copies:
            if norm is None:
                for variable, value in zip(own.weights, layer.weights, strict=True):
                    variable.assign(value)
                continue
            gamma, beta, mean, variance = (
                np.asarray(vector, np.float64)
                for vector in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
            )
            scale = gamma / np.sqrt(variance + norm.epsilon)
            bias = 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)
            own.kernel.assign(layer.kernel * scale.astype(layer.kernel.dtype))
            own.bias.assign((bias - mean) * scale + beta)


def _followers(network: keras.Model) -> dict[str, BatchNormalization]:
    """By the name of each convolution that can be folded into: the batch-norm layer after it."""
    config = network.get_config()
    operations = {operation.name: operation for operation in network.operations}
    outputs = keras.tree.flatten(config["output_layers"])
    inputs = {one["name"]: list(_sources(one["inbound_nodes"])) for one in config["layers"]}
    users: dict[str, list[str]] = defaultdict(list)
    for name, sources in inputs.items():
        for source in sources:
            users[source].append(name)

    def next_alone(name: str) -> Any:
        """What takes the result of ``name`` and nothing else, if nothing else takes that."""
        if name in outputs or len(users[name]) != 1 or inputs[users[name][0]] != [name]:
            return None
        return operations[users[name][0]]

    found: dict[str, BatchNormalization] = {}
    for name, convolution in operations.items():
        norm = next_alone(name)
        if _is_linear(convolution) and isinstance(norm, BatchNormalization):
            found[name] = norm
    return found


def _sources(nodes: Any) -> Iterator[str]:
    """The names of the operations whose results stand in the nodes of a functional model's
    configuration, once for each result."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        nodes = list(nodes.values())
    if isinstance(nodes, list | tuple):
        for node in nodes:
            yield from _sources(node)


def _is_linear(layer: Any) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, Conv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
    )
