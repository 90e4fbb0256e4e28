"""A trained network opened again, without the data set that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench import checkpoint, distributed, models
from dlbench.config import ConfigError
from dlbench.data.granulation import FRAMES
from dlbench.runs import RunFolder
from dlbench.session import build_network

if TYPE_CHECKING:
    import keras


def velocity_network(run: Path, kind: str = "best") -> tuple[Callable[[], keras.Model], int]:
    """The DeepVel network of a run folder, weights of the checkpoint ``kind``, or a .keras file;
    and the ``x_axis`` of the pairs that it was trained on, 0 where that is not told.

    What a run folder holds is checked at once; TensorFlow is loaded when the first is called. That
    gives a model ``(batch, height, width, 2)`` to ``(batch, height, width, outputs)`` in km/s.
    Raises `ConfigError` or `CheckpointError`.
    """
    if run.suffix == ".keras":
        if not run.is_file():
            raise ConfigError(f"there is no file {run}; give the model.keras of a finished run")
        return lambda: _saved(run), 0
    folder = RunFolder(run)
    experiment = folder.experiment()
    models.check(experiment.model.name, experiment.model.options)
    _require_velocity(experiment.model.name, run)
    path = folder.checkpoint(kind)
    arrays, _ = checkpoint.load(path)
    bias = arrays.get("model/velocity/bias")
    if bias is None or bias.ndim != 1:
        raise checkpoint.CheckpointError(
            f"{path} holds no velocity network, which {folder.config} names; give another run"
        )

    def build() -> keras.Model:
        distributed.configure_devices(experiment.training.threads)
        network = build_network(experiment, FRAMES, len(bias))
        checkpoint.assign(checkpoint.variables_of(network), arrays, path)
        return network

    return build, int(experiment.data.options.get("x_axis", 0))


def receptive_radius(network: keras.Model) -> int | None:
    """Pixels that a network sees to each side; None where a layer does not tell."""
    from dlbench import architecture

    field = architecture.describe(network, (1, 1)).receptive_field
    return None if field is None else field // 2


def _saved(path: Path) -> keras.Model:
    distributed.configure_devices(None)
    import keras

    import dlbench.layers  # noqa: F401  # Keras finds them by name

    try:
        network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # damaged bytes reach the zip and HDF5 readers, which raise at will
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{path} cannot be loaded ({line}); give the model.keras of a finished DeepVel run"
        ) from error
    if network.name in models.MODELS:
        _require_velocity(network.name, path)
    before, after = network.input_shape, network.output_shape
    if before != (None, None, None, 2) or after[:-1] != (None, None, None):
        raise ConfigError(
            f"{path} maps {before} to {after}; needed is a DeepVel network, (batch, height, width, "
            "2) to (batch, height, width, outputs) for any height and width"
        )
    return network


def _require_velocity(name: str, path: Path) -> None:
    task = models.MODELS[name].task
    if task != "velocity":
        fitting = ", ".join(n for n, entry in models.MODELS.items() if entry.task == "velocity")
        raise ConfigError(
            f"{path} is a run of {name}, for {task}; rasters are not read by this command yet, "
            f"which predicts velocities: give a run of {fitting}"
        )
