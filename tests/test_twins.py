"""The twins of our networks in `benchmarks/` compute what ours compute."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import twin_cases, twin_keras, twin_quality, twin_run
from benchmarks.twin_cases import CHANNELS, NETWORKS, Case, Weights
from dlbench import models
from dlbench.config import ConfigError

CASES = {
    # Odd at three of the five pools.
    "segnet": Case("segnet", "float32", "train", (45, 60), 2, {"width": 0.05}),
    "deepvel": Case("deepvel", "float32", "train", (13, 17), 2, {"blocks": 2, "filters": 6}),
}
# Small steps for SegNet: each of its steps magnifies what rounding leaves some hundredfold, since a
# weight that moved a little moves maxima and signs.
RATES = {"segnet": 1e-3, "deepvel": 0.05}
MOMENTUM, STEPS = 0.9, 3
FIRST_LAYERS = {"segnet": ("enc1_1_conv", "enc1_1_bn"), "deepvel": ("conv1", "block1_1_bn")}
NO_TORCH = "PyTorch is not installed (the extra `peers`)"


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


@pytest.fixture(params=["torch", "keras"])
def twin(request: pytest.FixtureRequest) -> Any:
    """The module of a twin."""
    if request.param == "torch":
        pytest.importorskip("torch", reason=NO_TORCH)
    return importlib.import_module(f"benchmarks.twin_{request.param}")


@functools.cache
def weights_of(network: str) -> Weights:
    return twin_cases.draw_weights(network, CASES[network].options)


def ours(network: str) -> keras.Model:
    inputs, outputs = CHANNELS[network]
    model = models.build(network, (None, None, inputs), outputs, **CASES[network].options)
    twin_keras.load(model, weights_of(network))
    return model


def distance(found: np.ndarray, right: np.ndarray) -> float:
    """Norm of the difference, relative to that of ``right``."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


class Training(NamedTuple):
    """What some steps gave: their losses, and what the first of them did to the first kernel, whose
    gradient has gone through every layer, and to the first moving mean and variance."""

    losses: list[float]
    kernel: np.ndarray
    statistics: np.ndarray


def train(network: str, step: Callable[[], float], read: Callable[[str], np.ndarray]) -> Training:
    """``read`` gives a variable by Keras's path."""
    layer, normalization = FIRST_LAYERS[network]
    losses = [step()]

    def change(path: str) -> np.ndarray:
        return read(path) - weights_of(network)[path]

    kernel = change(f"{layer}/kernel")
    kinds = ("moving_mean", "moving_variance")
    statistics = np.stack([change(f"{normalization}/{kind}") for kind in kinds])
    return Training([*losses, *(step() for _ in range(STEPS - 1))], kernel, statistics)


def reader(model: keras.Model) -> Callable[[str], np.ndarray]:
    variables = {variable.path: variable for variable in model.variables}
    return lambda path: variables[path].numpy()


@functools.cache
def our_prediction(network: str) -> np.ndarray:
    image, _ = twin_cases.batch(CASES[network])
    outputs = ours(network)(image, training=False)
    return (tf.nn.softmax(outputs) if network == "segnet" else outputs).numpy()


@functools.cache
def our_training(network: str) -> Training:
    case, weights = CASES[network], weights_of(network)
    image, target = twin_cases.batch(case)
    optimizer = keras.optimizers.SGD(RATES[network], MOMENTUM)
    model, step = twin_run.our_training_step(case, weights, image, target, optimizer)
    return train(network, step, reader(model))


def twin_training(network: str, twin: Any) -> Training:
    start = (CASES[network], weights_of(network), *twin_cases.batch(CASES[network]))
    if twin is twin_keras:
        model, step = twin.training_step(*start, keras.optimizers.SGD(RATES[network], MOMENTUM))
        return train(network, step, reader(model))
    import torch

    def sgd(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, RATES[network], MOMENTUM)

    model, step = twin.training_step(*start, sgd)

    def read(path: str) -> np.ndarray:
        layer, kind = path.split("/")
        value = model.state_dict()[f"{layer}.{twin.NAMES[kind]}"].numpy().copy()
        return value.transpose(2, 3, 1, 0) if kind == "kernel" else value

    return train(network, step, read)


@pytest.mark.parametrize(
    ("network", "expected"),
    [("segnet", (29_449_355, 29_465_227)), ("deepvel", (1_595_014, 1_600_518))],
)
def test_parameter_counts(network: str, expected: tuple[int, int], twin: Any) -> None:
    """Those of the published networks: trainable, and with batch-norm statistics."""
    if twin is twin_keras:
        model = getattr(twin, network)()
        both = (model.trainable_variables, model.variables)
    else:
        import torch

        with torch.device("meta"):
            model = {"segnet": twin.SegNet, "deepvel": twin.DeepVel}[network]()
        state = [value for value in model.state_dict().values() if value.is_floating_point()]
        both = (list(model.parameters()), state)
    assert tuple(sum(int(np.prod(x.shape)) for x in some) for some in both) == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_inference(network: str, twin: Any) -> None:
    case = CASES[network]
    image, _ = twin_cases.batch(case)
    right = our_prediction(network)
    found = twin.inference(case, weights_of(network), image)()
    assert found.shape == right.shape == (*image.shape[:3], CHANNELS[network][1])
    assert found.dtype == np.float32
    # Rounding leaves 5e-7, Keras's default epsilon in place of SegNet's would leave 1e-3.
    assert distance(found, right) < 1e-5


@pytest.mark.parametrize("network", [pytest.param("segnet", marks=pytest.mark.slow), "deepvel"])
def test_training(network: str, twin: Any) -> None:
    """SGD with momentum: a gradient that is off shows in full, which Adam would hide."""
    right, found = our_training(network), twin_training(network, twin)
    assert right.losses[0] > right.losses[1] > right.losses[2]
    # They fall by 5e-4 a step and more, and rounding leaves 5e-7.
    assert found.losses == pytest.approx(right.losses, rel=5e-6)
    # 1e-4 is what rounding leaves.
    assert distance(found.kernel, right.kernel) < 1e-3
    # PyTorch divides a variance by n - 1; n is 442 or more.
    assert distance(found.statistics, right.statistics) < 1e-2


@pytest.fixture
def basic() -> tuple[keras.Model, keras.Model]:
    """SegNet-Basic, ours and the twin that has taken its weights."""
    size = (None, None, twin_keras.BANDS)
    keras.utils.set_random_seed(3)
    network = models.build("segnet_basic", size, 5, width=0.1)
    for variable in network.variables:
        noise = np.random.default_rng(len(variable.path)).uniform(-0.1, 0.1, variable.shape)
        variable.assign_add(noise)
    twin = twin_keras.segnet_basic(0.1, 5)
    twin_keras.load(twin, {variable.path: variable.numpy() for variable in network.variables})
    return network, twin


@pytest.mark.parametrize("training", [False, True])
def test_segnet_basic(basic: tuple[keras.Model, keras.Model], training: bool) -> None:
    network, twin = basic
    image = np.random.default_rng(0).integers(0, 256, (2, 45, 60, 3)).astype(np.float32)
    found, right = (one(image, training=training).numpy() for one in (twin, network))
    # Rounding leaves 1e-6.
    assert distance(found, right) < 1e-4
    for one, other in zip(twin.variables, network.variables, strict=True):
        assert distance(one.numpy(), other.numpy()) < 1e-4, one.path


def test_a_run_of_the_plain_twin_starts_from_our_weights() -> None:
    size = (None, None, 3)
    keras.utils.set_random_seed(3)
    right = models.build("segnet_basic", size, 5, width=0.1)
    keras.utils.set_random_seed(3)
    twin = twin_quality.build("segnet_basic", size, 5, width=0.1, value_range=models.BYTES)
    for one, other in zip(twin.variables, right.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    for wrong in ({"rescale": (1.0, 0.0)}, {"value_range": (0.0, 1e4)}, {"dropout": 0.5}):
        with pytest.raises(ConfigError, match=f"has no {next(iter(wrong))}="):
            twin_quality.build("segnet_basic", size, 5, **wrong)
    with pytest.raises(ConfigError, match="has no name=segnet"):
        twin_quality.build("segnet", size, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_torch_computes_in_bfloat16(network: str) -> None:
    pytest.importorskip("torch", reason=NO_TORCH)
    from benchmarks import twin_torch

    image, _ = twin_cases.batch(CASES[network])
    exact, rounded = (
        twin_torch.inference(
            dataclasses.replace(CASES[network], precision=precision), weights_of(network), image
        )()
        for precision in twin_cases.PRECISIONS
    )
    assert rounded.dtype == np.float32
    assert 1e-3 < distance(rounded, exact) < 0.1  # bfloat16 rounds at 4e-3


def test_loss_of_a_prediction() -> None:
    """In NumPy, that of training."""
    _, target = twin_cases.batch(CASES["segnet"])
    assert (target == twin_cases.IGNORE).any()
    logits = np.random.default_rng(1).normal(size=(*target.shape, twin_cases.CLASSES))
    logits = tf.constant(logits, tf.float32)
    right = float(twin_keras.weighted_cross_entropy(tf.constant(target), logits))
    found = twin_cases.loss(CASES["segnet"], tf.nn.softmax(logits).numpy(), target)
    assert found == pytest.approx(right, rel=1e-5)


def test_a_process_reports_its_steps(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NO_TORCH)
    case = dataclasses.replace(CASES["deepvel"], mode="inference")
    path = tmp_path / "weights.npz"
    np.savez(path, **weights_of("deepvel"))  # type: ignore[arg-type]
    found = twin_run.launch("torch_tuned", case, path, steps=2, threads=1, timeout_s=60.0)
    assert len(found["step_s"]) == 2
    assert found["framework"].startswith("torch ")
    assert found["peak_bytes"]["host_rss_hwm"] > 2**26
    _, target = twin_cases.batch(case)
    right = twin_cases.loss(case, our_prediction("deepvel"), target)
    assert found["loss"] == pytest.approx([right] * (twin_run.WARMUP_STEPS + 2), rel=1e-5)
