"""Input of every data set, small, in each mode; and what training loses to it.

    pytest benchmarks/bench_input_sets.py --benchmark-json=OUT.json [--profile=full]

synthetic   batches of noise that lie in memory: no input can be faster
cached      samples decoded once: kept by the pipeline or, where windows move from epoch to epoch,
            in the shards of `python -m dlbench.data prepare`
disk        the pipeline on the files themselves, whose pixels are decoded in a first epoch and then
            kept in memory, as in training
loader      the data set's reader alone, in as many threads, without batches

A round is an epoch of a pipeline that keeps running. Cached, disk and loader must give the same
samples. The input gap is what a training step on real input takes longer than one on synthetic
input, |real / synthetic - 1|, on the same cores: of the whole network that learns from the set, and
of a small one, whose steps of 10 ms show what the input costs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import planted, tiny_data, training_cases
from benchmarks.fixtures import Observer
from benchmarks.profiles import is_full, is_smoke
from dlbench import config, data
from dlbench.data import pipeline
from dlbench.data.dataset import DataSet, Sample
from dlbench.data.preparation import prepare
from dlbench.report.records import Workload

BATCH, WORKERS, SEED = 2, 2, 0
SIZES = {"granulation": (50, 50)}
SIZE = (64, 64)
STILL = config.Augmentation(flip_left_right=False)
MODES = ("synthetic", "cached", "disk", "loader")
DEFAULT_GAP = ("vaihingen",)
STEPS, DRAINED, ROUNDS, WARMUP_ROUNDS = 20, 8, 7, 2
"""Steps of a round on real input come after some that use up what the pipeline had ready."""
GAP = "input gap: |real input / synthetic input - 1|, of the time of a training step"
LARGEST_GAP = 0.02
MODELS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("segmentation", "small"): ("segnet_basic", {"width": 0.25}),
    ("velocity", "small"): ("deepvel", {"blocks": 2, "filters": 16}),
    ("segmentation", "whole"): ("segnet", {}),
    ("velocity", "whole"): ("deepvel", {}),
}
WHOLE_STEPS, WHOLE_DRAINED, WHOLE_ROUNDS = 8, 5, 11
"""Of the whole network, whose gap is small beside what its steps vary by here."""
Batches = Iterator[Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    gap = "source" in metafunc.fixturenames
    some = gap and not is_full(metafunc.config)
    metafunc.parametrize("name", DEFAULT_GAP if some else sorted(data.DATASETS))
    if gap:
        metafunc.parametrize("source", ("disk",) if some else ("disk", "cached"))
        metafunc.parametrize("network", ("small",) if some else ("small", "whole"))
    else:
        metafunc.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def opened(data_folder: Path) -> Callable[[str, str], DataSet]:
    """``opened(name, source)``: the data set from its files, or decoded once."""

    @cache
    def one(name: str, source: str) -> DataSet:
        size, options = SIZES.get(name, SIZE), tiny_data.OPTIONS.get(name, {})
        root = tiny_data.make(name, data_folder / name)
        files = data.build(name, root, size, **options)
        if source == "disk" or not files.jitters:
            return files
        ready = prepare(files, data_folder / f"{name}-prepared", ["train"])
        return data.build(name, ready, size, **options)

    return one


def batches(dataset: DataSet, cached: bool) -> Batches:
    found = pipeline.training_batches(
        dataset,
        batch=BATCH,
        seed=SEED,
        augmentation=STILL,
        size=dataset.size,
        cache=cached,
        workers=WORKERS,
    )
    return iter(found)


def epoch_of(source: Batches, steps: int) -> list[Any]:
    return [next(source) for _ in range(steps)]


def read_epoch(dataset: DataSet, epoch: int) -> list[Sample]:
    """Every sample once, in the order of training, windows where training has them."""

    def read(index: int) -> Sample:
        generator = pipeline._generator(SEED, epoch, index, pipeline._AUGMENTATION)
        return dataset.read("train", index, generator)

    with ThreadPoolExecutor(WORKERS) as pool:
        order = pipeline.epoch_order(dataset.count("train"), SEED, epoch)
        return list(pool.map(read, map(int, order)))


def check(dataset: DataSet, prepared: DataSet) -> None:
    """That all sources give the same samples."""
    count = dataset.count("train")
    steps = pipeline.steps_per_epoch(count, BATCH, 1)
    disk, cached = (
        [sample for batch in epoch_of(found, steps) for sample in zip(*batch, strict=True)]
        for found in (batches(dataset, False), batches(prepared, True))
    )
    read = read_epoch(dataset, 0)
    assert len(disk) == len(cached) == len(read) == count
    for one, two, three in zip(disk, cached, read, strict=True):
        for part, again, alone in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(part, again)
            if part.shape == alone.shape:  # pictures are resized by the pipeline
                np.testing.assert_array_equal(part, alone)


def test_input(
    benchmark: Any,
    time_in_turn: Callable[..., list[float]],
    attach_record: Callable[..., None],
    devices: None,
    opened: Callable[[str, str], DataSet],
    name: str,
    mode: str,
) -> None:
    dataset = opened(name, "disk")
    if mode == "cached":
        check(dataset, opened(name, "cached"))
    workload = Workload(
        id=f"input-{mode}/{name}",
        model=None,
        data=f"{name} miniature",
        precision=dataset.dtype.name,
        ranks=1,
        batch_per_rank=BATCH,
        shape=(*SIZES.get(name, SIZE), len(dataset.bands)),
        mode="input",
    )
    count = dataset.count("train")
    steps = pipeline.steps_per_epoch(count, BATCH, 1)
    slow = planted.reading(workload.id, opened(name, "cached" if mode == "cached" else "disk"))
    source: Batches
    if mode == "synthetic":
        source = itertools.repeat(next(batches(dataset, False)))
    else:
        source = batches(slow, mode == "cached")

    def run() -> None:
        if mode == "loader":
            read_epoch(slow, 0)
        else:
            epoch_of(source, steps)

    benchmark.group = f"input/{name}"
    time_in_turn(run)
    attach_record(workload, samples_per_step=count, judged=mode != "synthetic")


def test_input_gap(
    benchmark: Any,
    attach_record: Callable[..., None],
    note: Callable[[str, str], None],
    observe: Observer,
    devices: None,
    compute_threads: int,
    data_folder: Path,
    opened: Callable[[str, str], DataSet],
    request: pytest.FixtureRequest,
    name: str,
    source: str,
    network: str,
) -> None:
    dataset = opened(name, source)
    model, options = MODELS[dataset.task, network]
    size = SIZES.get(name, SIZE)
    workload = Workload(
        id=f"train-{'' if network == 'small' else 'whole-'}input-{source}/{model}/{name}",
        model=model,
        data=f"{name} miniature",
        precision="float32",
        ranks=1,
        batch_per_rank=BATCH,
        shape=(*size, len(dataset.bands)),
        mode="train",
    )
    content = training_cases.content(
        model, data_folder, threads=compute_threads, batch=BATCH, size=size, options=options,
        data=name,
    )  # fmt: skip
    steps, drained, times = STEPS, DRAINED, ROUNDS
    if network == "whole":
        steps, drained, times = WHOLE_STEPS, WHOLE_DRAINED, WHOLE_ROUNDS
    if is_smoke(request.config):
        steps, drained = 1, 0
    with training_cases.opened(content) as session:
        trainer = training_cases.trainer_of(session)
        slow = planted.reading(workload.id, dataset)
        real = training_cases.training_step(trainer, batches(slow, source == "cached"))
        held = training_cases.synthetic_batches(session)
        synthetic = training_cases.training_step(trainer, held)
        rounds: dict[str, list[list[float]]] = {"synthetic": [], "real": []}
        waits: list[dict[str, Any]] = []

        def on_synthetic() -> None:
            rounds["synthetic"].append([timed(synthetic) for _ in range(steps)])
            for _ in range(drained):
                real()

        def on_real() -> None:
            rounds["real"].append([timed(real) for _ in range(steps)])
            waits.append(trainer.waits.within(rounds["real"][-1]))

        benchmark.group = "input gap"
        with observe():
            benchmark.pedantic(
                on_real, setup=on_synthetic, rounds=times, warmup_rounds=WARMUP_ROUNDS
            )
    if is_smoke(request.config):
        return
    synthetic_s, real_s = (
        np.sum(rounds[kind][WARMUP_ROUNDS:], axis=1) for kind in ("synthetic", "real")
    )
    low, median, high = (100 * (np.percentile(real_s / synthetic_s, (25, 50, 75)) - 1)).tolist()
    benchmark.extra_info["input_gap"] = {"definition": GAP, "gap": abs(median) / 100}
    verdict = "met" if abs(median) <= 100 * LARGEST_GAP else "MISSED"
    note(
        GAP,
        f"{name}, {source}, {network} network: {abs(median):.1f} % (quartiles {low:+.1f} and "
        f"{high:+.1f} %), wanted <= {100 * LARGEST_GAP:.0f} %: {verdict}",
    )
    step_s = [seconds for one in rounds["real"][WARMUP_ROUNDS:] for seconds in one]
    attach_record(
        workload,
        samples_per_step=BATCH,
        step_s=step_s,
        waits={key: sum(one[key] for one in waits[WARMUP_ROUNDS:]) for key in waits[0]},
    )


def timed(step: Callable[[], float]) -> float:
    """Seconds of a step whose loss is a number."""
    start = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - start
    assert np.isfinite(loss), loss
    return seconds
