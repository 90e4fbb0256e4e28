"""Draw a network: ``python -m dlbench.architecture MODEL [OUT.png] [key=value ...]``.

Keys are ``size=360x480``, ``bands=3``, ``outputs=12`` and the model's own options. All that the
figure shows is read from the built Keras graph.
"""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dlbench import models
from dlbench.config import NOT_YAML, ConfigError
from dlbench.errors import exit_status

if TYPE_CHECKING:
    import keras

# By the name of the layer's class; what is neither here nor absorbed is drawn under its own name.
KINDS = {
    "InputLayer": "input",
    "Conv2D": "convolution",
    "MaxPoolWithIndices": "max pooling",
    "MaxUnpool": "max unpooling",
    "Add": "addition",
}
ABSORBED = {
    "BatchNormalization": "BN",
    "ReLU": "ReLU",
    "Fork": "",
    "Rescaling": "",
    "MonteCarloDropout": "",
}
"""Layers that belong to the plate before them, and what they add to its description."""
POINTWISE = {"LocalResponseNormalization", "Add", *ABSORBED}
"""Layers that read one pixel of the input for a pixel of the output."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "segmentation": {"size": "360x480", "bands": 3, "outputs": 12},
    "velocity": {"size": "50x50", "bands": 2, "outputs": 6},
}
"""What is drawn unless the command line says otherwise, by the model's task."""


@dataclass(frozen=True)
class Node:
    """A layer with those absorbed into it: one plate of the figure."""

    kind: str
    channels: int
    size: tuple[int, int]
    """(height, width) of its output."""
    inputs: tuple[int, ...] = ()
    """Places of the nodes that it reads."""
    kernel: tuple[int, int] | None = None
    parts: tuple[str, ...] = ()
    dropout: float = 0.0

    @property
    def look(self) -> str:
        return " + ".join((self.kind, *self.parts))


@dataclass(frozen=True)
class Block:
    """Nodes ``start`` to ``stop - 1``: a residual block that the network has ``repeats`` times."""

    start: int
    stop: int
    repeats: int


@dataclass(frozen=True)
class Architecture:
    """What the figure shows of a network for one size of input."""

    nodes: list[Node]
    """In the order of the network; of residual blocks in a row that are alike, the first."""
    blocks: list[Block]
    parameters: int
    trainable: int
    macs: int
    """Multiply-accumulates of the convolutions, for one image."""
    receptive_field: int | None
    """Side of the largest square of input pixels that an output pixel can depend on, away from the
    border; None where a layer's reach is not known."""

    @property
    def stages(self) -> list[range]:
        """Runs of nodes of one spatial size."""
        groups = groupby(range(len(self.nodes)), key=lambda n: self.nodes[n].size)
        runs = [list(group) for _, group in groups]
        return [range(run[0], run[-1] + 1) for run in runs]

    @property
    def indices(self) -> list[tuple[int, int]]:
        """(pool, unpool) of each pair that shares indices."""
        unpools = [n for n, node in enumerate(self.nodes) if node.kind == "max unpooling"]
        return [(self.nodes[n].inputs[-1], n) for n in unpools]

    @property
    def skips(self) -> list[tuple[int, int]]:
        """(source, reader) of each connection that passes over the nodes between."""
        return [
            (source, reader)
            for reader, node in enumerate(self.nodes)
            for source in node.inputs
            if node.kind != "max unpooling" and source != reader - 1
        ]


def describe(network: keras.Model, size: tuple[int, int]) -> Architecture:
    """Read the graph of a functional model for images of ``size`` (height, width)."""
    import keras

    nodes: list[Node] = []
    owners: dict[int, int] = {}  # tensor -> the place of its node
    shapes: dict[int, tuple[int, ...]] = {}
    macs = 0
    for layer in network.layers:
        kind = type(layer).__name__
        inputs = [t for t in keras.tree.flatten(layer.input) if id(t) in shapes]
        outputs = [id(t) for t in keras.tree.flatten(layer.output)]
        shapes |= zip(outputs, _shapes(layer, [shapes[id(t)] for t in inputs], size), strict=True)
        if kind == "SpatialSize":
            continue
        _, height, width, channels = shapes[outputs[0]]
        if hasattr(layer, "kernel"):
            macs += math.prod(layer.kernel.shape) * height * width
        sources = tuple(dict.fromkeys(owners[id(t)] for t in inputs if id(t) in owners))
        if kind in ABSORBED:
            place, added = sources[0], (ABSORBED[kind],) if ABSORBED[kind] else ()
            node = nodes[place]
            dropout = getattr(layer, "rate", node.dropout)
            parts = node.parts + added + _activation(layer)
            nodes[place] = replace(node, parts=parts, dropout=dropout)
        else:
            place = len(nodes)
            kernel = getattr(layer, "kernel_size", None)
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
            kind = KINDS.get(kind, words)
            activation = _activation(layer)
            nodes.append(Node(kind, channels, (height, width), sources, kernel, activation))
        owners |= dict.fromkeys(outputs, place)
    return Architecture(
        *_collapse(nodes),
        parameters=network.count_params(),
        trainable=sum(math.prod(v.shape) for v in network.trainable_weights),
        macs=macs,
        receptive_field=_receptive_field(network),
    )


def _activation(layer: Any) -> tuple[str, ...]:
    activation = getattr(layer, "activation", None) or "linear"
    name = getattr(activation, "__name__", activation)
    return {"linear": (), "relu": ("ReLU",)}.get(name, (name,))


def _shapes(
    layer: Any, inputs: list[tuple[int, ...]], size: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Of the layer's outputs; that of a `SpatialSize` is the (height, width) that it carries."""
    import keras

    kind = type(layer).__name__
    if kind == "InputLayer":
        return [(1, *size, layer.output.shape[-1])]
    if kind == "SpatialSize":
        return [inputs[0][1:3]]
    if kind == "MaxUnpool" and len(inputs) == 3:
        return [(1, *inputs[2], layer.output.shape[-1])]
    known = [keras.KerasTensor(shape) for shape in inputs]
    spec = layer.compute_output_spec(known if isinstance(layer.input, list) else known[0])
    return [tensor.shape for tensor in keras.tree.flatten(spec)]


def _collapse(nodes: list[Node]) -> tuple[list[Node], list[Block]]:
    """Keep one of the residual blocks that follow each other and are alike, inputs included."""

    def block(start: int, stop: int) -> list[Node]:
        moved = [tuple(i - start for i in node.inputs) for node in nodes[start:stop]]
        return [replace(n, inputs=i) for n, i in zip(nodes[start:stop], moved, strict=True)]

    blocks: list[Block] = []
    stop = 0
    while stop < len(nodes):
        stop += 1
        last = nodes[stop - 1]
        if last.kind != "addition" or len(last.inputs) < 2:
            continue
        start = max(i for i in last.inputs if i != stop - 2) + 1
        end = stop
        while block(start, stop) == block(end, end + stop - start):
            end += stop - start
        rest, inner = nodes[end:], range(start, end - 1)
        if end > stop and not any(i in inner for node in rest for i in node.inputs):
            blocks.append(Block(start, stop, repeats=(end - start) // (stop - start)))
            moved = [tuple(i - (end - stop) * (i >= end - 1) for i in n.inputs) for n in rest]
            rest = [replace(n, inputs=i) for n, i in zip(rest, moved, strict=True)]
            nodes = nodes[:stop] + rest
    return nodes, blocks


def _receptive_field(network: keras.Model) -> int | None:
    """Follow an output pixel back to the input, from each place that it can have in the windows."""
    import keras

    windows = [x.pool_size for x in network.layers if type(x).__name__ == "MaxPoolWithIndices"]
    widest = 0
    for pixel in range(math.prod(windows)):
        seen = {id(network.output): (pixel, pixel)}  # tensor -> first and last row that matter
        for layer in reversed(network.layers):
            spans = [seen[id(t)] for t in keras.tree.flatten(layer.output) if id(t) in seen]
            if not spans:  # a size
                continue
            first, last = min(a for a, _ in spans), max(b for _, b in spans)
            kind = type(layer).__name__
            if kind == "InputLayer":
                widest = max(widest, last - first + 1)
                break
            if kind == "Conv2D" and layer.padding == "same" and layer.strides == (1, 1):
                reach = max(layer.kernel_size) // 2 * max(layer.dilation_rate)
                first, last = first - reach, last + reach
            elif kind == "MaxPoolWithIndices":
                first, last = first * layer.pool_size, (last + 1) * layer.pool_size - 1
            elif kind == "MaxUnpool":
                first, last = first // layer.pool_size, last // layer.pool_size
            elif kind not in POINTWISE:
                return None
            for tensor in keras.tree.flatten(layer.input):
                if len(tensor.shape) == 4:
                    a, b = seen.get(id(tensor), (first, last))
                    seen[id(tensor)] = min(a, first), max(b, last)
    return widest


def main(arguments: list[str]) -> int:
    """Draw what the command line asks for and return the process's exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return exit_status("dlbench.architecture", lambda: _draw(arguments))


def _draw(arguments: list[str]) -> None:
    usage = "usage: python -m dlbench.architecture MODEL [OUT.png] [key=value ...]"
    names = [a for a in arguments if "=" not in a]
    if not 1 <= len(names) <= 2:
        raise ConfigError(f"{usage}; known models: {', '.join(models.MODELS)}")
    name, path = names[0], Path(names[-1] if len(names) == 2 else f"{names[0]}.png")
    if path.suffix != ".png":
        raise ConfigError(f"{path} does not end in .png; {usage}")
    given: dict[str, Any] = dict(a.split("=", 1) for a in arguments if "=" in a)
    try:
        # As YAML, 0x480 would be a number.
        given |= {key: yaml.safe_load(text) for key, text in given.items() if key != "size"}
    except NOT_YAML as error:
        raise ConfigError(f"a value in '{' '.join(arguments)}' is not YAML: {error}") from error
    options = {k: v for k, v in given.items() if k not in ("size", "bands", "outputs")}
    models.check(name, options)  # before the seconds that TensorFlow takes to load
    chosen = DEFAULTS[models.MODELS[name].task] | given
    size = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", chosen["size"])
    if size is None:
        raise ConfigError(f"size={chosen['size']}: allowed is HEIGHTxWIDTH, for example 360x480")
    for key in ("bands", "outputs"):
        if type(chosen[key]) is not int or not 1 <= chosen[key] <= 4096:
            raise ConfigError(f"{key}={chosen[key]}: allowed is a whole number from 1 to 4096")

    from dlbench.architecture_figure import draw

    shape = (None, None, chosen["bands"])
    found = describe(
        models.build(name, shape, chosen["outputs"], **options), (int(size[1]), int(size[2]))
    )
    title = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
    try:
        draw(found, title, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
