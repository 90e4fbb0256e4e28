"""SegNet and DeepVel in PyTorch, as its users would write and run them on a CPU.

Channels last; layers have the names that ours have, by which `load` fills them. One difference is
PyTorch's own: its moving variance follows the batch's divided by n - 1, ours that divided by n. A
training step does not depend on it.

Not compiled: on two cores with AVX2, small cases of both networks took 0.94 to 1.00 of the eager
step's CPU time under torch.compile, after 5 to 140 s of compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.twin_cases import (
    BANDS,
    BLOCKS,
    CLASS_WEIGHTS,
    CLASSES,
    COMPONENTS,
    DECODER,
    DEEPVEL_NORM,
    ENCODER,
    FILTERS,
    FRAMES,
    IGNORE,
    LEARNING_RATE,
    RESCALE,
    SEGNET_NORM,
    Case,
    Weights,
    scaled,
)

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""What PyTorch calls a variable of Keras."""


class Network(nn.ModuleDict):
    """Layers by name; images are (batch, channels, height, width), channels last in memory."""

    def _add(
        self, name: str, inputs: int, outputs: int, momentum: float, epsilon: float
    ) -> tuple[str, int]:
        """A convolution and its batch-norm; returns the pair's name and its number of filters."""
        self[f"{name}_conv"] = nn.Conv2d(inputs, outputs, 3, padding="same")
        self[f"{name}_bn"] = nn.BatchNorm2d(outputs, epsilon, momentum=1 - momentum)
        return name, outputs

    def _normalized(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self[f"{name}_bn"](self[f"{name}_conv"](x))

    def fold(self) -> None:
        """Put each batch-norm into the convolution before it, for inference."""
        for name in [name for name in self if name.endswith("_bn")]:
            before = name.replace("_bn", "_conv")
            convolution: Any = self[before]
            normalization: Any = self[name]
            self[before] = fuse_conv_bn_eval(convolution, normalization)
            self[name] = nn.Identity()


class SegNet(Network):
    """uint8 images to logits (batch, classes, height, width); any size, odd ones too."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = BANDS
        self._encoder: list[list[str]] = []
        self._decoder: list[list[str]] = []
        for stage, filters in enumerate(ENCODER, start=1):
            self._encoder.append([])
            for number, count in enumerate(filters, start=1):
                pair = f"enc{stage}_{number}"
                pair, channels = self._add(pair, channels, scaled(count, width), **SEGNET_NORM)
                self._encoder[-1].append(pair)
        for stage, filters in zip(range(len(DECODER), 0, -1), DECODER, strict=True):
            self._decoder.append([])
            for number, count in zip(range(len(filters), 0, -1), filters, strict=True):
                pair = f"dec{stage}_{number}"
                pair, channels = self._add(pair, channels, scaled(count, width), **SEGNET_NORM)
                self._decoder[-1].append(pair)
        self["classifier"] = nn.Conv2d(channels, CLASSES, 3, padding="same")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scale, offset = RESCALE
        x = image.float() * scale + offset
        pools = []
        for stage in self._encoder:
            for pair in stage:
                x = functional.relu(self._normalized(x, pair), inplace=True)
            size = x.shape[2:]
            x, indices = functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pools.append((indices, size))
        for stage in self._decoder:
            indices, size = pools.pop()
            x = functional.max_unpool2d(x, indices, [2, 2], output_size=size)
            for pair in stage:
                x = functional.relu(self._normalized(x, pair), inplace=True)
        return self["classifier"](x).float()


class DeepVel(Network):
    """float32 images to velocities (batch, components, height, width)."""

    def __init__(self, blocks: int = BLOCKS, filters: int = FILTERS) -> None:
        super().__init__()
        self._blocks = range(1, blocks + 1)
        self["conv1"] = nn.Conv2d(FRAMES, filters, 3, padding="same")
        for block in self._blocks:
            for number in (1, 2):
                self._add(f"block{block}_{number}", filters, filters, **DEEPVEL_NORM)
        self._add("conv2", filters, filters, **DEEPVEL_NORM)
        self["velocity"] = nn.Conv2d(filters, COMPONENTS, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = x = functional.relu(self["conv1"](image))
        for block in self._blocks:
            y = functional.relu(self._normalized(x, f"block{block}_1"), inplace=True)
            x = x + self._normalized(y, f"block{block}_2")
        x = first + self._normalized(x, "conv2")
        with torch.autocast("cpu", enabled=False):  # velocities in float32, as ours are
            return self["velocity"](x.float())


def build(network: str, options: dict[str, Any], weights: Weights) -> Network:
    """The twin of `dlbench.models.build` with these weights."""
    twin = {"segnet": SegNet, "deepvel": DeepVel}[network](**options)
    load(twin, weights)
    return twin.to(memory_format=torch.channels_last)


def load(network: Network, weights: Weights) -> None:
    """Fill every layer; kernels (height, width, in, out) become (out, in, height, width)."""
    state = {}
    for path, value in weights.items():
        layer, kind = path.rsplit("/", 1)
        turned = value.transpose(3, 2, 0, 1) if kind == "kernel" else value
        state[f"{layer}.{NAMES[kind]}"] = torch.from_numpy(np.ascontiguousarray(turned))
    network.load_state_dict(state)


def channels_first(array: np.ndarray) -> torch.Tensor:
    """(batch, height, width, channels) as PyTorch names the axes; the memory keeps its order."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """With Keras's defaults; fused, the fastest that PyTorch has. Keras adds epsilon before it
    corrects the second moment's bias, PyTorch after: steps differ where gradients are near it."""
    return torch.optim.Adam(parameters, LEARNING_RATE, eps=1e-7, fused=True)


def training_step(
    case: Case,
    weights: Weights,
    image: np.ndarray,
    target: np.ndarray,
    make_optimizer: MakeOptimizer = adam,
) -> tuple[Network, Callable[[], float]]:
    """The network, and a step on this batch that returns its loss."""
    network = build(case.network, case.options, weights).train()
    optimizer = make_optimizer(network.parameters())
    inputs = channels_first(image)
    if case.network == "segnet":
        truth = torch.from_numpy(target).long()
        class_weights = torch.from_numpy(CLASS_WEIGHTS)
    else:
        truth = channels_first(target)

    def loss_of(prediction: torch.Tensor) -> torch.Tensor:
        if case.network == "deepvel":
            return functional.mse_loss(prediction, truth)
        total = functional.cross_entropy(
            prediction, truth, class_weights, ignore_index=IGNORE, reduction="sum"
        )
        return total / (truth != IGNORE).sum()

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "mixed_bfloat16"):
            prediction = network(inputs)
        loss = loss_of(prediction)
        loss.backward()
        optimizer.step()
        return loss.item()

    return network, step


def inference(case: Case, weights: Weights, image: np.ndarray) -> Callable[[], np.ndarray]:
    """Class probabilities, or velocities, (batch, height, width, channels) float32."""
    network = build(case.network, case.options, weights).eval()
    network.fold()
    inputs = channels_first(image)

    @torch.inference_mode()
    def predict() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "mixed_bfloat16"):
            outputs = network(inputs)
        if case.network == "segnet":
            outputs = outputs.softmax(1)
        return outputs.permute(0, 2, 3, 1).numpy()

    return predict
