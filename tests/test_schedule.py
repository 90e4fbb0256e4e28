"""Learning-rate schedules at the steps where they turn, and the optimisers as configured."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dlbench.config import Optimizer
from dlbench.optimizers import Adam
from dlbench.schedule import WarmUpSchedule, build_optimizer


def rates(steps: list[int], ranks: int = 1, **settings: Any) -> list[float]:
    """Ten steps an epoch, eight epochs."""
    config = Optimizer(learning_rate=0.5, **settings)
    schedule = WarmUpSchedule(config, steps_per_epoch=10, epochs=8, ranks=ranks)
    return [float(schedule(step)) for step in steps]


def test_constant() -> None:
    found = rates([0, 1, 79, 1000], schedule="constant", warmup_epochs=0)
    assert found == [0.5] * 4


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    found = rates([0, 1, 9, 18, 19, 20, 50], schedule="constant", warmup_epochs=2)
    assert found == pytest.approx([0.025, 0.05, 0.25, 0.475, 0.5, 0.5, 0.5])


def test_cosine_ends_at_zero() -> None:
    found = rates([19, 20, 50, 80, 1000], schedule="cosine", warmup_epochs=2)
    assert found == pytest.approx([0.5, 0.5, 0.25, 0.0, 0.0], abs=1e-7)
    falling = rates(list(range(20, 81)), schedule="cosine", warmup_epochs=2)
    assert (np.diff(falling) < 0).all()


def test_steps() -> None:
    settings: dict[str, Any] = {
        "schedule": "step",
        "step_epochs": [2, 5],
        "step_factor": 0.1,
        "warmup_epochs": 0,
    }
    found = rates([0, 19, 20, 49, 50, 79], **settings)
    assert found == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_scaling_by_ranks() -> None:
    assert rates([0], ranks=4, schedule="constant", warmup_epochs=0) == [0.5]
    found = rates([0, 10], ranks=4, schedule="constant", warmup_epochs=1, scale_by_ranks=True)
    assert found == pytest.approx([0.2, 2.0])


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_place_in_the_training_is_kept_when_ranks_change(schedule: str) -> None:
    """Six of eight epochs' steps by four ranks, 10 an epoch; then by one, 40 an epoch."""
    settings: dict[str, Any] = {"schedule": schedule, "warmup_epochs": 3, "learning_rate": 0.5}
    settings |= {"step_epochs": [7], "scale_by_ranks": True} if schedule == "step" else {}
    config = Optimizer(**settings)
    one = WarmUpSchedule(config, steps_per_epoch=40, epochs=8, ranks=1)
    expected = [float(one(step)) for step in range(240, 320)]
    assert float(one(60)) != expected[0]
    one.ahead = 240 - 60
    assert [float(one(step)) for step in range(60, 140)] == expected


def test_fractional_and_missing_epochs_of_warm_up() -> None:
    assert rates([0, 4], schedule="constant", warmup_epochs=0.5) == pytest.approx([0.1, 0.5])
    whole = rates([0, 79], schedule="cosine", warmup_epochs=8)  # nothing is left to fall
    assert whole == pytest.approx([0.5 / 80, 0.5])


def optimizer(**settings: Any) -> keras.optimizers.Optimizer:
    precision = settings.pop("precision", "float32")
    config = Optimizer(warmup_epochs=0, **settings)
    return build_optimizer(config, steps_per_epoch=10, epochs=8, ranks=1, precision=precision)


def test_optimizers() -> None:
    sgd = optimizer(name="sgd", momentum=0.8, clip_norm=3.0)
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.global_clipnorm) == (0.8, 3.0)
    assert type(optimizer(name="adam")) is Adam
    assert optimizer(name="adam", weight_decay=0.1).weight_decay is None, "it is in the gradients"
    assert isinstance(optimizer(name="adamw", weight_decay=0.1), keras.optimizers.AdamW)


def test_adamw_decays_kernels_alone() -> None:
    kernel, bias, gamma, beta = (
        keras.Variable(np.ones(3, np.float32), name=name)
        for name in ("kernel", "bias", "gamma", "beta")
    )
    adamw = optimizer(name="adamw", weight_decay=0.5, learning_rate=0.1, schedule="constant")
    variables = [kernel, bias, gamma, beta]
    adamw.apply([np.zeros(3, np.float32)] * 4, variables)
    np.testing.assert_allclose(kernel, 0.95, rtol=1e-6)
    for free in (bias, gamma, beta):
        np.testing.assert_array_equal(free, 1.0)


def test_half_precision_scales_its_loss() -> None:
    scaled = optimizer(precision="mixed_float16", name="sgd")
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert isinstance(scaled.inner_optimizer, keras.optimizers.SGD)
    assert not isinstance(
        optimizer(precision="mixed_bfloat16"), keras.optimizers.LossScaleOptimizer
    )
