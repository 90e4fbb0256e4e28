"""What training, evaluation and benchmarks share: ranks, devices, data set and network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlbench import checkpoint, data, distributed, launched, models
from dlbench.config import ConfigError, Experiment

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dlbench.tasks import Task

Counted = TypeVar("Counted")
MOST_NAMES = 1000
"""Samples by whose names two ranks are compared, evenly among all."""
TOLD = 40
"""Characters of what ranks differ in that a message has room for."""
PACKAGES = ("horovod", "numpy", "pillow", "rasterio", "keras")
"""What decides, beside TensorFlow, which sums are made of which samples in which order."""
SOURCES = (".py", ".yaml", ".csv")


@dataclass
class Session:
    """An experiment with everything that it names, ready to be used."""

    experiment: Experiment
    ranks: distributed.SingleProcess
    dataset: data.DataSet
    network: keras.Model
    task: Task


def start(experiment: Experiment) -> Session:
    """Check names, join the ranks, open the data set and build the network with equal weights.

    Whatever can be checked without TensorFlow is checked before it is loaded.
    """
    models.check(experiment.model.name, experiment.model.options)
    # Scenes that are still to be generated wait until the ranks can take turns.
    generated = launched.size() > 1 and experiment.data.root is None
    dataset = None if generated else _open(experiment)
    distributed.configure_devices(experiment.training.threads)
    _require_ops()
    ranks = distributed.start(experiment.distributed)
    if ranks.size > 1:
        _require_alike(ranks.gather(_what_runs(experiment)))
    if dataset is None:
        if ranks.local_rank == 0:
            _open(experiment)
        ranks.barrier()
        dataset = _open(experiment)
    from dlbench import tasks
    from dlbench.sync_normalization import sync_batch_normalization

    sync = experiment.distributed.batch_norm == "sync" and ranks.size > 1
    normalization = sync_batch_normalization(ranks) if sync else None
    network = build_network(
        experiment,
        len(dataset.bands),
        len(dataset.outputs),
        value_range=dataset.value_range,
        normalization=normalization,
    )
    return Session(experiment, ranks, dataset, network, tasks.of(dataset))


def sampling_probabilities(session: Session) -> np.ndarray | None:
    """How likely each training sample is to be drawn; None: each comes once an epoch."""
    if session.experiment.data.sampling == "uniform":
        return None
    from dlbench.data import sampling

    return counted_once(session.ranks, lambda: sampling.probabilities(session.dataset))


def counted_once(ranks: distributed.SingleProcess, count: Callable[[], Counted]) -> Counted:
    """What ``count`` returns: one rank of a host reads the data for it, the others find what it
    has remembered."""
    found = count() if ranks.local_rank == 0 else None
    ranks.barrier()
    return count() if found is None else found


def require_same_samples(session: Session, split: str) -> None:
    """Raise `ConfigError` unless all ranks hold the same samples of a split: each takes its share
    of what it holds itself.
    """
    if session.ranks.size == 1:
        return
    from dlbench.data import pipeline

    dataset = session.dataset
    count = dataset.count(split)
    names = [dataset.sample_name(split, i) for i in range(0, count, max(count // MOST_NAMES, 1))]
    # NumPy does not promise that its streams stay as they are.
    order = pipeline.epoch_order(count, session.experiment.seed, 0)
    found = {
        f"the number of samples of '{split}'": str(count),
        f"the list of samples of '{split}'": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        f"the order of samples of '{split}'": hashlib.sha256(order.tobytes()).hexdigest(),
    }
    _require_alike(session.ranks.gather(found))


def restore(
    session: Session, path: Path, require: Callable[[dict[str, Any]], object] = lambda meta: None
) -> None:
    """Put a checkpoint's weights into the session's network, on every rank, unless ``require``
    raises what is wrong with the rest of it; rank 0 alone reads it."""
    variables = checkpoint.variables_of(session.network)
    if session.ranks.rank == 0:
        arrays, meta = checkpoint.load(path)
        require(meta)
        checkpoint.assign(variables, arrays, path)
    session.ranks.broadcast(list(variables.values()))


def _require_ops() -> None:
    """Raise `UserError` unless the compiled ops can be used, before samples are read for them."""
    from dlbench import ops

    ops.isa()


def _what_runs(experiment: Experiment) -> dict[str, str]:
    import tensorflow as tf

    from dlbench import ops

    # Not the library's bytes: two compilations of the same sources need not have the same.
    build = {k: v for k, v in ops.read_build(ops.LIBRARY).items() if k != "compiler"}
    return {
        "Python": platform.python_version(),
        "tensorflow": tf.__version__,  # its package has several names
        **{package: _version(package) for package in PACKAGES},
        "the build of the ops": json.dumps(build),
        **_own_files(),
        # Last: other code writes out other defaults.
        "the configuration": experiment.model_dump_json(exclude={"data": {"root"}}),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _own_files() -> dict[str, str]:
    """Digests of dlbench's files by their names: checkouts have changes that no version tells."""
    root = Path(__file__).parent
    return {
        f"dlbench/{path.relative_to(root)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.suffix in SOURCES
    }


def _require_alike(ranks: list[dict[str, str]]) -> None:
    """Raise `ConfigError` where two ranks run different things: they would pair other sums."""
    for rank, own in enumerate(ranks):
        for what in ranks[0] | own:
            first, value = ranks[0].get(what, "none"), own.get(what, "none")
            if value == first:
                continue
            told = f" ({first} and {value})" if max(len(first), len(value)) < TOLD else ""
            raise ConfigError(
                f"{what} of rank {rank} is not that of rank 0{told}; every host needs the same "
                "versions, the same command and the same files"
            )


def _open(experiment: Experiment) -> data.DataSet:
    settings = experiment.data
    root, options = settings.resolved_root(), settings.options
    dataset = data.build(settings.name, root, settings.size, **options)
    models.check_task(experiment.model.name, settings.name, dataset.task)
    return dataset


def build_network(
    experiment: Experiment,
    bands: int,
    outputs: int,
    *,
    value_range: tuple[float, float] = models.BYTES,
    normalization: type[keras.layers.Layer] | None = None,
) -> keras.Model:
    """The experiment's network with its initial weights, for any height and width."""
    import keras

    # Keras numbers names as the process goes on; a checkpoint finds its variables by them.
    keras.utils.clear_session()
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(experiment.training.precision)
    return models.build(
        experiment.model.name,
        (None, None, bands),
        outputs,
        value_range=value_range,
        normalization=normalization,
        **experiment.model.options,
    )
