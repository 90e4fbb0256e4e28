"""A trained network opened again, without the data set that it was trained on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench import checkpoint, config, distributed, models
from dlbench.config import ConfigError
from dlbench.data.facts import Facts
from dlbench.data.granulation import FRAMES
from dlbench.runs import RunFolder
from dlbench.session import build_network

if TYPE_CHECKING:
    import keras

OTHER_NETWORKS = "velocity"
"""The task of a .keras file whose network has none of our names."""


def task(run: Path) -> str:
    """What the network of a run folder or .keras file has learnt, as `models.Entry.task`.

    TensorFlow is not needed. Raises `ConfigError`.
    """
    if run.suffix == ".keras":
        try:
            with zipfile.ZipFile(run) as file:
                name = json.loads(file.read("config.json"))["config"]["name"]
        except FileNotFoundError:
            raise ConfigError(
                f"there is no file {run}; give the model.keras of a finished run"
            ) from None
        except Exception as error:  # damaged bytes reach the zip reader, which raises at will
            raise _unloadable(run, error) from error
        return models.MODELS[name].task if name in models.MODELS else OTHER_NETWORKS
    folder = RunFolder(run)
    experiment = folder.experiment()
    try:
        models.check(experiment.model.name, experiment.model.options)
    except ConfigError as error:
        raise ConfigError(f"{folder.config}: {error}") from None
    return models.MODELS[experiment.model.name].task


def velocity_network(run: Path, kind: str = "best") -> tuple[Callable[[], keras.Model], int]:
    """The DeepVel network of a run folder, weights of the checkpoint ``kind``, or a .keras file;
    and the ``x_axis`` of the pairs that it was trained on, 0 where that is not told. Beside a
    .keras file its run's other files are looked for.

    What a run folder holds is checked at once; TensorFlow is loaded when the first is called. That
    gives a model ``(batch, height, width, 2)`` to ``(batch, height, width, outputs)`` in km/s.
    Raises `ConfigError` or `CheckpointError`.
    """
    if run.suffix == ".keras":
        beside = RunFolder(run.parent)
        return lambda: _saved_velocity(run), _x_axis(beside, _beside(beside))
    folder = RunFolder(run)
    experiment = folder.experiment()
    path = folder.checkpoint(kind)
    arrays, _ = checkpoint.load(path)
    outputs = len(_last_bias(folder, path, arrays, "velocity"))
    x_axis = _x_axis(folder, experiment)
    return _builder(experiment, path, arrays, FRAMES, outputs), x_axis


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network that is not built yet, and what is known of its training."""

    build: Callable[[], keras.Model]
    """Gives ``(batch, height, width, bands)`` to logits ``(batch, height, width, outputs)``."""
    bands: int
    outputs: int
    facts: Facts | None
    """Of the data set; None where the run does not tell."""
    options: Mapping[str, Any] | None
    """Of the data set, as configured; None of a .keras file that has left its run."""
    samples: int
    """Monte-Carlo passes, where the network is Bayesian."""
    seed: int
    distributed: config.Distributed
    stride: int
    """As `models.Entry.stride`."""
    window: tuple[int, int] | None
    """Height and width of the images of its training, where they are known."""


def segmentation_network(run: Path, kind: str = "best") -> Segmenter:
    """The network of a segmentation run, weights of the checkpoint ``kind``, or a .keras file,
    beside which its run's other files are looked for.

    What a run folder holds is checked at once; TensorFlow is loaded for a .keras file alone. Raises
    `ConfigError` or `CheckpointError`.
    """
    if run.suffix == ".keras":
        network = _saved(run)
        before, after = _image_shapes(run, network)
        bands, outputs = before[-1], after[-1]
        folder = RunFolder(run.parent)
        facts = _fitting(folder, run, bands, outputs)
        experiment = _beside(folder) if facts is not None else None
        told = experiment or config.Experiment()
        return Segmenter(
            lambda: network,
            bands,
            outputs,
            facts,
            None if experiment is None else experiment.data.options,
            told.monte_carlo_samples,
            told.seed,
            told.distributed,
            models.stride_of(network.name),
            None if experiment is None else experiment.data.size,
        )
    folder = RunFolder(run)
    experiment = folder.experiment()
    path = folder.checkpoint(kind)
    arrays, _ = checkpoint.load(path)
    outputs = len(_last_bias(folder, path, arrays, "classifier"))
    kernels = [x for name, x in arrays.items() if name.startswith("model/") and x.ndim == 4]
    if not kernels:
        raise checkpoint.CheckpointError(
            f"{path} holds no convolution, so no segmentation network; give another run"
        )
    bands = kernels[0].shape[2]  # (height, width, bands, filters)
    facts = _fitting(folder, path, bands, outputs)
    value_range = models.BYTES if facts is None else facts.value_range
    return Segmenter(
        _builder(experiment, path, arrays, bands, outputs, value_range),
        bands,
        outputs,
        facts,
        experiment.data.options,
        experiment.monte_carlo_samples,
        experiment.seed,
        experiment.distributed,
        models.stride_of(experiment.model.name),
        experiment.data.size,
    )


def receptive_radius(network: keras.Model) -> int | None:
    """Pixels that a network sees to each side; None where a layer does not tell."""
    from dlbench import architecture

    field = architecture.describe(network, (1, 1)).receptive_field
    return None if field is None else field // 2


def _builder(
    experiment: config.Experiment,
    path: Path,
    arrays: dict[str, np.ndarray],
    bands: int,
    outputs: int,
    value_range: tuple[float, float] = models.BYTES,
) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        distributed.configure_devices(experiment.training.threads)
        network = build_network(experiment, bands, outputs, value_range=value_range)
        checkpoint.assign(checkpoint.variables_of(network), arrays, path)
        return network

    return build


def _last_bias(
    folder: RunFolder, path: Path, arrays: dict[str, np.ndarray], layer: str
) -> np.ndarray:
    bias = arrays.get(f"model/{layer}/bias")
    if bias is None or bias.ndim != 1:
        what = "velocity" if layer == "velocity" else "segmentation"
        raise checkpoint.CheckpointError(
            f"{path} holds no {what} network, which {folder.config} names; give another run"
        )
    return bias


def _beside(folder: RunFolder) -> config.Experiment | None:
    """The configuration that lies with a .keras file and the facts of its run; None without."""
    there = folder.config.is_file() and folder.dataset.is_file()
    return folder.experiment() if there else None


def _x_axis(folder: RunFolder, experiment: config.Experiment | None) -> int:
    x_axis = experiment.data.options.get("x_axis", 0) if experiment else 0
    if x_axis not in (0, 1):
        raise ConfigError(f"{folder.config}: data.options.x_axis is {x_axis!r}; allowed: 0 and 1")
    return int(x_axis)


def _fitting(folder: RunFolder, path: Path, bands: int, outputs: int) -> Facts | None:
    """The facts in a run folder, if they are of this network."""
    facts = folder.facts()
    if facts is not None and (len(facts.bands), len(facts.classes)) != (bands, outputs):
        raise ConfigError(
            f"{folder.dataset} tells of {len(facts.bands)} bands and {len(facts.classes)} classes, "
            f"but {path} has {bands} and {outputs}; they are of two runs: restore the right one"
        )
    return facts


def _saved(path: Path) -> keras.Model:
    distributed.configure_devices(None)
    import keras

    import dlbench.layers  # noqa: F401  # Keras finds them by name

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # damaged bytes reach the zip and HDF5 readers, which raise at will
        raise _unloadable(path, error) from error


def _image_shapes(path: Path, network: keras.Model) -> tuple[Any, ...]:
    """The shapes of a network's one input and one output, (batch, height, width, channels)."""
    # A network that was never built has none, one of several inputs has lists.
    shapes = tuple(getattr(network, f"{end}_shape", None) for end in ("input", "output"))
    if not all(isinstance(s, tuple) and len(s) == 4 and isinstance(s[3], int) for s in shapes):
        raise ConfigError(
            f"{path} maps {shapes[0]} to {shapes[1]}; needed is a network of images, (batch, "
            "height, width, bands) to (batch, height, width, outputs)"
        )
    return shapes


def _saved_velocity(path: Path) -> keras.Model:
    network = _saved(path)
    before, after = _image_shapes(path, network)
    if before != (None, None, None, 2) or after[:-1] != (None, None, None):
        raise ConfigError(
            f"{path} maps {before} to {after}; needed is a DeepVel network, (batch, height, width, "
            "2) to (batch, height, width, outputs) for any height and width"
        )
    return network


def _unloadable(path: Path, error: Exception) -> ConfigError:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(f"{path} cannot be loaded ({line}); give the model.keras of a finished run")
