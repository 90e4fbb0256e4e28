"""What our networks and their twins in other frameworks start from: weights, batches, settings.

    python -m benchmarks.twin_cases segnet '{"width": 0.125}' WEIGHTS.npz

writes the weights. Importing this file loads neither TensorFlow nor PyTorch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("segnet", "deepvel")
PRECISIONS = ("float32", "mixed_bfloat16")
MODES = ("train", "inference")
BANDS, CLASSES, IGNORE = 3, 11, 255
FRAMES, COMPONENTS = 2, 6
CHANNELS = {"segnet": (BANDS, CLASSES), "deepvel": (FRAMES, COMPONENTS)}
"""Of input and output."""
CLASS_WEIGHTS = np.linspace(0.5, 1.5, CLASSES, dtype=np.float32)
LEARNING_RATE = 1e-3
VOID = 0.05
"""Share of the pixels that count in no loss."""

# As published: arXiv 1511.00561 and the authors' prototxt files; arXiv 1703.05128 and the authors'
# network. Written down again, so that a twin shares no code with what it is compared with.
ENCODER = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DECODER = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64,))
BASIC_STAGES, BASIC_FILTERS = 4, 64
BLOCKS, FILTERS = 21, 64
RESCALE = (1.0 / 127.5, -1.0)
SEGNET_NORM: dict[str, float] = {"momentum": 0.98, "epsilon": 1e-5}
DEEPVEL_NORM: dict[str, float] = {"momentum": 0.99, "epsilon": 1e-3}
"""Momentum as Keras has it: the share of the old statistics that stays."""

FULL: dict[str, dict[str, Any]] = {
    "segnet": {"batch": 2, "size": (360, 480)},
    "deepvel": {"batch": 32, "size": (50, 50)},
}
"""Of a `Case` that is timed, by network."""

Weights = dict[str, np.ndarray]
"""By Keras's path of a variable, such as ``enc1_1_conv/kernel``."""


@dataclass(frozen=True)
class Case:
    """One workload of one network; ``options`` are those of `dlbench.models.build`."""

    network: str
    precision: str
    mode: str
    size: tuple[int, int]
    batch: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)


def scaled(filters: int, width: float) -> int:
    return max(1, round(filters * width))


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Image and target, always the same; a network can learn the one from the other.

    SegNet: noise (batch, height, width, 3) uint8, and (batch, height, width) uint8 classes, equal
    steps of the first band, some of them void. DeepVel: two smooth fields around 1,
    (batch, height, width, 2), and six mixtures of them (batch, height, width, 6), float32.
    """
    generator = np.random.default_rng(0)
    shape = (case.batch, *case.size)
    if case.network == "segnet":
        image = generator.integers(0, 256, (*shape, BANDS), np.uint8)
        target = (image[..., 0].astype(np.int64) * CLASSES // 256).astype(np.uint8)
        target[generator.random(shape) < VOID] = IGNORE
        return image, target
    from scipy.ndimage import gaussian_filter

    noise = generator.standard_normal((*shape, FRAMES))
    fields = gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    fields /= fields.std()
    velocity = fields @ generator.standard_normal((FRAMES, COMPONENTS)) / FRAMES
    return (1 + 0.1 * fields).astype(np.float32), velocity.astype(np.float32)


def loss(case: Case, prediction: np.ndarray, target: np.ndarray) -> float:
    """Of class probabilities or velocities, in float64: what the networks are trained with."""
    if case.network == "deepvel":
        return float(np.mean((prediction.astype(np.float64) - target) ** 2))
    valid = target != IGNORE
    truth = target[valid].astype(np.int64)
    probability = prediction[valid].astype(np.float64)[np.arange(truth.size), truth]
    return float(np.mean(CLASS_WEIGHTS[truth] * -np.log(probability)))


def draw_weights(network: str, options: dict[str, Any]) -> Weights:
    """Those that our network starts with, always the same; loads TensorFlow.

    Biases, scales and statistics are moved away from 0 and 1: two that are mixed up then show.
    """
    import keras

    from dlbench import models

    keras.utils.set_random_seed(0)
    inputs, outputs = CHANNELS[network]
    model = models.build(network, (None, None, inputs), outputs, **options)
    generator = np.random.default_rng(0)
    weights: Weights = {}
    for variable in model.variables:
        value = np.asarray(variable.value)
        if variable.name in ("gamma", "moving_variance"):
            value = generator.uniform(0.8, 1.25, value.shape)
        elif variable.name != "kernel":
            value = generator.normal(0.0, 0.1, value.shape)
        weights[variable.path] = value.astype(np.float32)
    return weights


def read_weights(path: Path) -> Weights:
    """From the file that this one, run as a script, writes."""
    with np.load(path) as archive:
        return dict(archive)


if __name__ == "__main__":
    np.savez(sys.argv[3], **draw_weights(sys.argv[1], json.loads(sys.argv[2])))  # type: ignore[arg-type]
