"""Recomputed parts of a network: the same step in less memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pytest

from dlbench import models
from dlbench.bench.memory import high_water_mark
from dlbench.distributed import SingleProcess
from dlbench.recomputation import PARTS, normalizations, stages
from dlbench.tasks.segmentation import CrossEntropy
from dlbench.tasks.velocity import SquaredError
from dlbench.training import Trainer

CASES: list[tuple[str, dict[str, Any], int]] = [
    ("deepvel", {"blocks": 2, "filters": 4}, 2),
    ("segnet_basic_bayesian", {"width": 0.05}, 3),
]
OUTPUTS = 3
Parts = Literal[False, True, "normalization"]
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


def step(
    name: str,
    options: dict[str, Any],
    bands: int,
    shape: tuple[int, ...],
    recompute: Parts,
    micro_batches: int = 1,
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and all variables after one step of SGD with learning rate 1."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = models.build(name, (None, None, bands), OUTPUTS, **options)
    generator = np.random.default_rng(0)
    image = generator.random((*shape, bands), np.float32)
    target: np.ndarray = generator.random((*shape, OUTPUTS), np.float32)
    loss: Any = SquaredError()
    if name != "deepvel":
        target, loss = np.argmax(target, axis=-1).astype(np.uint8), CrossEntropy(np.ones(OUTPUTS))
    trainer = Trainer(
        network, SingleProcess(), loss, recompute=recompute, micro_batches=micro_batches
    )
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    logs = trainer.step(iter([(image, target)]))
    return float(logs["loss"]), {v.path: v.numpy() for v in network.variables}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(("name", "options", "bands"), CASES)
def test_a_recomputed_step_is_the_same_step(
    name: str, options: dict[str, Any], bands: int, micro_batches: int, parts: Parts
) -> None:
    """Gradients, moving statistics, which follow a batch once, and dropout masks; of uneven
    micro-batches too."""
    made = name, options, bands, (3, 9, 11)
    loss, expected = step(*made, recompute=False, micro_batches=micro_batches)
    found_loss, found = step(*made, recompute=parts, micro_batches=micro_batches)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert found.keys() == expected.keys()
    for path, value in found.items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-4, atol=1e-6, err_msg=path)


MEMORY_SHAPE, MEMORY_FILTERS, MEMORY_BLOCKS = (4, 192, 192), 8, 8


def print_growth(parts: Parts) -> None:
    """Bytes that a step needs beyond those of a recomputed one before it."""
    case = ("deepvel", {"blocks": MEMORY_BLOCKS, "filters": MEMORY_FILTERS}, 2, MEMORY_SHAPE)
    step(*case, recompute=parts)
    lower = high_water_mark()
    step(*case, recompute=False)
    print(high_water_mark() - lower)


@pytest.mark.parametrize(("parts", "saved"), [(True, 3), ("normalization", 1)])
def test_a_recomputed_step_needs_less_memory(parts: Parts, saved: int) -> None:
    """Each of 8 blocks keeps its input alone, or that and two results of convolutions, where four
    tensors of that size would stay."""
    # In a process of its own: other tests have been higher.
    command = f"import test_recomputation; test_recomputation.print_growth({parts!r})"
    paths = f"{TESTS.parent}{os.pathsep}{TESTS}"
    ended = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    of_a_tensor = 4 * MEMORY_FILTERS * int(np.prod(MEMORY_SHAPE))
    # Two thirds of what is saved: the rest of the step moves the peak a little.
    assert int(ended.stdout.split()[-1]) > 2 / 3 * saved * MEMORY_BLOCKS * of_a_tensor


def test_a_normalization_goes_with_the_convolution_that_alone_takes_it() -> None:
    network = models.build("segnet", (None, None, 3), 2, width=0.05)
    found = [[layer.name for layer in part] for part in normalizations(network)]
    assert ["enc2_1_bn", "enc2_2_conv"] in found
    assert ["enc2_2_bn"] in found  # goes into a pool, and its size is read
    assert sorted(name for part in found for name in part) == sorted(
        layer.name for layer in network.layers
    )


def test_stages_are_those_of_the_names() -> None:
    network = models.build("segnet", (None, None, 3), 2, width=0.05)
    found = [[layer.name for layer in stage] for stage in stages(network)]
    assert [f"enc2_{n}_{part}" for n in (1, 2) for part in ("conv", "bn")] in found
    assert sorted(name for stage in found for name in stage) == sorted(
        layer.name for layer in network.layers
    )
