"""Sums of compressed gradients against the sums in float64, within the bounds that are stated."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks.sums import PACKS, SHAPES, SPECIAL, gradient

from dlbench import compression as compressions

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


def bound(compression: str, ranks: int, parts: np.ndarray, scaled: bool = False) -> np.ndarray:
    """Of the sum's error: as `config.Distributed.compression` has it, and the additions' rounding
    in float32, whose smallest numbers count as 0."""
    size, total = np.abs(parts).sum(axis=0), np.abs(parts.sum(axis=0))
    additions = ranks * (2.0**-24 * size + 2.0**-126)
    if compression == "bf16":
        return 2.0**-8 * (size + total) + additions
    if compression == "fp16":
        least = 2.0**-25 if scaled else 2.0**-35
        return 2.0**-11 * (size + total) + (ranks + 1) * least + additions
    return additions


@pytest.mark.parametrize("way", PACKS)
@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_errors_keep_within_their_bounds(
    sums: Sums, ranks: int, compression: str, way: str
) -> None:
    worst = 0.0
    for number, shape in enumerate(SHAPES):
        parts = np.stack([gradient(rank, shape).astype(np.float64) for rank in range(ranks)])
        parts = parts.reshape(ranks, -1)[:, SPECIAL if parts[0].size > SPECIAL else 0 :]
        most = bound(compression, ranks, parts)
        for rank in sums(ranks):
            found = rank[f"{compression}/{way}/{number}"]
            assert (found.shape, found.dtype) == (shape, np.float32)
            error = np.abs(found.reshape(-1)[-parts.shape[1] :] - parts.sum(axis=0))
            assert (error <= most).all()
            worst = max(worst, float((error / most).max()))
    assert worst > 0.3, "the bound is far too wide"


@pytest.mark.parametrize("way", PACKS)
@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_get_the_same_bits(sums: Sums, ranks: int, compression: str, way: str) -> None:
    first, *others = sums(ranks)
    for rank in others:
        for number in range(len(SHAPES)):
            name = f"{compression}/{way}/{number}"
            assert first[name].tobytes() == rank[name].tobytes()


@pytest.mark.parametrize("way", PACKS)
@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_is_no_number_stays_so_and_what_is_huge_or_tiny_too(
    sums: Sums, ranks: int, compression: str, way: str
) -> None:
    rounded = {"none": 1e-6, "fp16": 2.0**-10, "bf16": 2.0**-7}[compression]
    shares = np.arange(1, ranks + 1)
    for number, shape in enumerate(SHAPES):
        found = sums(ranks)[0][f"{compression}/{way}/{number}"].reshape(-1)
        if found.size <= SPECIAL:
            continue
        assert np.isposinf(found[:ranks]).all()
        assert np.isnan(found[3 : 3 + ranks]).all()
        assert np.isnan(found[6]), "inf - inf"
        huge = np.array([1e30 * shares.sum(), -1e30 * (1 / shares).sum()])
        if compression == "fp16" and np.prod(shape) > compressions.SMALL:
            huge = np.clip(huge, -63.97, 63.97)
        np.testing.assert_allclose(found[7:9], huge, rtol=rounded)
        assert abs(found[9]) <= 3.1e-39 * shares.sum(), "a subnormal number may count as 0"
        assert found[10] == 0.0
        np.testing.assert_allclose(found[11], ranks + 2**-7 * shares[:-1].sum(), rtol=rounded)


@pytest.mark.parametrize("compression", ["fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_packs_change_no_sum(sums: Sums, ranks: int, compression: str) -> None:
    for rank in sums(ranks):
        for number in range(len(SHAPES)):
            together, apart = (rank[f"{compression}/{way}/{number}"] for way in PACKS)
            np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_an_exchange_waits_for_its_own_gradients(sums: Sums, ranks: int, compression: str) -> None:
    """And so goes on beside the backward pass that makes the others."""
    for rank in sums(ranks):
        together, apart = (json.loads(str(rank[f"{compression}/{way}/waits"])) for way in PACKS)
        assert together == ([] if compression == "none" else [[2, 3, 4]])
        assert sorted(apart) == ([] if compression == "none" else [[2], [3], [4]])


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_loss_scale_answers_for_what_half_precision_cannot_hold(sums: Sums, ranks: int) -> None:
    for rank in sums(ranks):
        for sign, found in zip((1, -1), rank["scaled"], strict=True):
            assert np.isposinf(sign * found[0]), "the step must be skipped"
            assert sign * found[1] == pytest.approx(ranks * 0.01 * 2**15, rel=1e-3), "clipped"
            assert found[2] == 0.0, "a gain as well"


@pytest.mark.parametrize("ranks", [2, 3])
def test_without_one_half_precision_cuts_off_what_is_large_and_keeps_what_is_small(
    sums: Sums, ranks: int
) -> None:
    for rank in sums(ranks):
        for sign, found in zip((1, -1), rank["unscaled"], strict=True):
            np.testing.assert_array_equal(sign * found[:2], 65504 / 1024)
            assert sign * found[2] == ranks * 2.0**-26


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_half_precision_keeps_its_bounds_with_a_loss_scale_and_without(
    sums: Sums, ranks: int, scaled: bool
) -> None:
    parts = np.stack([gradient(rank, (5000,)) for rank in range(ranks)])[:, SPECIAL:]
    parts = parts.astype(np.float64)
    most = bound("fp16", ranks, parts, scaled)
    for rank in sums(ranks):
        for sign, found in zip((1, -1), rank["scaled" if scaled else "unscaled"], strict=True):
            error = np.abs(sign * found[SPECIAL:] - parts.sum(axis=0))
            assert (error <= most).all()
            assert (error / most).max() > 0.3, "the bound is far too wide"


def test_packs_hold_what_the_backward_pass_makes_one_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compressions, "PACK", 10_000)
    assert compressions.packs([]) == []
    assert compressions.packs([1, compressions.SMALL]) == [], "these travel whole"
    assert compressions.packs([6000, 64, 5000, 5000]) == [[3, 2], [0]]
    assert compressions.packs([5000, 5001, 5000]) == [[2], [1], [0]], "one more would be too many"
    assert compressions.packs([5000, 30_000, 5000]) == [[2], [1], [0]], "one that is large is alone"
    assert compressions.packs([30_000]) == [[0]]
