"""The networks: one visible table, name -> builder and the options it takes.

Importing this package loads no TensorFlow, so that a name or option is checked before it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from dlbench.config import ConfigError, Section

if TYPE_CHECKING:
    import keras


class SegNetOptions(Section):
    """Options of the four SegNet networks."""

    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on every layer's number of filters; 1 is the published network."""
    rescale: tuple[float, float] = (1.0 / 127.5, -1.0)
    """(scale, offset) applied to the input on the device; the default maps uint8 to [-1, 1]."""
    packed_indices: bool = False
    """Pooling indices of two bits in place of one byte; same results."""


class BasicOptions(SegNetOptions):
    """SegNet-Basic normalises raw grey values itself, by its first (LRN) layer."""

    rescale: tuple[float, float] = (1.0, 0.0)


class DeepVelOptions(Section):
    """The defaults are the published network."""

    blocks: Annotated[int, Field(ge=0, le=100)] = 21
    """Residual blocks; each widens the 5 x 5 pixels that a velocity is seen from by 4."""
    filters: Annotated[int, Field(ge=1, le=1024)] = 64


Dropout = Annotated[float, Field(gt=0.0, lt=1.0)]


class BayesianOptions(SegNetOptions):
    dropout: Dropout = 0.5


class BayesianBasicOptions(BasicOptions):
    dropout: Dropout = 0.5


@dataclass(frozen=True)
class Entry:
    """A row of the table: where the builder lives, how its options are checked, what it learns."""

    module: str
    builder: str
    options: type[Section]
    task: str = "segmentation"
    """As `DataSet.task`."""


MODELS: dict[str, Entry] = {
    "segnet": Entry("segnet", "segnet", SegNetOptions),
    "segnet_basic": Entry("segnet", "segnet_basic", BasicOptions),
    "segnet_bayesian": Entry("segnet", "segnet", BayesianOptions),
    "segnet_basic_bayesian": Entry("segnet", "segnet_basic", BayesianBasicOptions),
    "deepvel": Entry("deepvel", "deepvel", DeepVelOptions, task="velocity"),
}


def check(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of model ``name`` with defaults filled in; `ConfigError` lists what is known."""
    if name not in MODELS:
        raise ConfigError(f"unknown model '{name}'; known: {', '.join(MODELS)}")
    entry = MODELS[name]
    try:
        return entry.options.model_validate(options).model_dump()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(entry.options.model_fields)
        raise ConfigError(f"model.options of '{name}': {wrong}; known options: {known}") from None


def check_task(name: str, dataset: str, task: str) -> None:
    """Raise `ConfigError` unless model ``name`` learns what the data set ``dataset`` holds."""
    if MODELS[name].task != task:
        fitting = ", ".join(other for other, entry in MODELS.items() if entry.task == task)
        raise ConfigError(
            f"model.name={name} is for {MODELS[name].task}, data.name={dataset} for {task}; models "
            f"that fit this data set: {fitting or 'none'}"
        )


def build(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    outputs: int,
    *,
    normalization: type[keras.layers.Layer] | None = None,
    **options: Any,
) -> keras.Model:
    """Build the network ``name`` for ``(height, width, bands)`` inputs and ``outputs`` classes, or
    values a pixel.

    ``normalization`` replaces the batch-norm layer, for example by one synchronised over ranks.
    Returns a functional `keras.Model`: ``(batch, height, width, bands)`` to logits or values
    ``(batch, height, width, outputs)``.
    """
    checked = check(name, options)
    module = importlib.import_module(f"{__name__}.{MODELS[name].module}")
    builder = getattr(module, MODELS[name].builder)
    return builder(input_shape, outputs, name=name, normalization=normalization, **checked)
