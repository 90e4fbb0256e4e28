"""Sums of compressed gradients against the sums in float64, within the bounds that are stated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks.sums import SHAPES, SPECIAL, gradient

from dlbench import distributed

ROOT = Path(__file__).parents[1]
Sums = Callable[[int], list[dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def sums(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Sums:
    """``sums(ranks)``: what each rank found."""

    @cache
    def job(ranks: int) -> list[dict[str, np.ndarray]]:
        folder = tmp_path_factory.mktemp(f"sums-{ranks}")
        ended = launch([str(ROOT / "tests/ranks/sums.py"), str(folder)], folder, ranks)
        assert ended.status == 0, ended.output
        return [dict(np.load(folder / f"sums{rank}.npz")) for rank in range(ranks)]

    return job


def bound(compression: str, ranks: int, parts: np.ndarray) -> np.ndarray:
    """Of the sum's error: as `config.Distributed.compression` has it, and the additions' rounding
    in float32, whose smallest numbers count as 0."""
    size, total = np.abs(parts).sum(axis=0), np.abs(parts.sum(axis=0))
    additions = ranks * (2.0**-24 * size + 2.0**-126)
    if compression == "bf16":
        return 2.0**-8 * (size + total) + additions
    if compression == "fp16":
        return 2.0**-11 * (size + total) + (ranks + 1) * 2.0**-35 + additions
    return additions


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_errors_keep_within_their_bounds(sums: Sums, ranks: int, compression: str) -> None:
    worst = 0.0
    for number, shape in enumerate(SHAPES):
        parts = np.stack([gradient(rank, shape).astype(np.float64) for rank in range(ranks)])
        parts = parts.reshape(ranks, -1)[:, SPECIAL if parts[0].size > SPECIAL else 0 :]
        most = bound(compression, ranks, parts)
        for rank in sums(ranks):
            found = rank[f"{compression}/{number}"]
            assert (found.shape, found.dtype) == (shape, np.float32)
            error = np.abs(found.reshape(-1)[-parts.shape[1] :] - parts.sum(axis=0))
            assert (error <= most).all()
            worst = max(worst, float((error / most).max()))
    assert worst > 0.3, "the bound is far too wide"


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_get_the_same_bits(sums: Sums, ranks: int, compression: str) -> None:
    first, *others = sums(ranks)
    for rank in others:
        for number in range(len(SHAPES)):
            name = f"{compression}/{number}"
            assert first[name].tobytes() == rank[name].tobytes()


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_is_no_number_stays_so_and_what_is_huge_or_tiny_too(
    sums: Sums, ranks: int, compression: str
) -> None:
    rounded = {"none": 1e-6, "fp16": 2.0**-10, "bf16": 2.0**-7}[compression]
    shares = np.arange(1, ranks + 1)
    for number, shape in enumerate(SHAPES):
        found = sums(ranks)[0][f"{compression}/{number}"].reshape(-1)
        if found.size <= SPECIAL:
            continue
        assert np.isposinf(found[:ranks]).all()
        assert np.isnan(found[3 : 3 + ranks]).all()
        assert np.isnan(found[6]), "inf - inf"
        huge = np.array([1e30 * shares.sum(), -1e30 * (1 / shares).sum()])
        if compression == "fp16" and np.prod(shape) > distributed.SMALL:
            huge = np.clip(huge, -63.97, 63.97)
        np.testing.assert_allclose(found[7:9], huge, rtol=rounded)
        assert abs(found[9]) <= 3.1e-39 * shares.sum(), "a subnormal number may count as 0"
        assert found[10] == 0.0
        np.testing.assert_allclose(found[11], ranks + 2**-7 * shares[:-1].sum(), rtol=rounded)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_loss_scale_answers_for_what_half_precision_cannot_hold(sums: Sums, ranks: int) -> None:
    for rank in sums(ranks):
        assert np.isposinf(rank["scaled"][0]), "the step must be skipped"
        assert rank["scaled"][1] == pytest.approx(ranks * 0.01 * 2**15, rel=1e-3), "clipped"
