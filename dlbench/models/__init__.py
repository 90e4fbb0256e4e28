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
    rescale: tuple[float, float] | None = None
    """(scale, offset) applied to the input on the device; empty: what maps the data set's range of
    values to the range that the network was published with."""
    packed_indices: bool = False
    """Pooling indices of two bits in place of one byte; same results."""


class DeepVelOptions(Section):
    """The defaults are the published network."""

    blocks: Annotated[int, Field(ge=0, le=100)] = 21
    """Residual blocks; each widens the 5 x 5 pixels that a velocity is seen from by 4."""
    filters: Annotated[int, Field(ge=1, le=1024)] = 64


Dropout = Annotated[float, Field(gt=0.0, lt=1.0)]


class BayesianOptions(SegNetOptions):
    dropout: Dropout = 0.5


@dataclass(frozen=True)
class Entry:
    """A row of the table: where the builder lives, how its options are checked, what it learns."""

    module: str
    builder: str
    options: type[Section]
    task: str = "segmentation"
    """As `DataSet.task`."""
    stride: int = 32
    """Pixels that the deepest layer makes one of."""
    input_range: tuple[float, float] | None = None
    """What the smallest and largest values of a data set are mapped to; None: they stay."""


BYTES = (0.0, 255.0)
SYMMETRIC = (-1.0, 1.0)

MODELS: dict[str, Entry] = {
    "segnet": Entry("segnet", "segnet", SegNetOptions, input_range=SYMMETRIC),
    # SegNet-Basic normalises raw grey values itself, by its first (LRN) layer.
    "segnet_basic": Entry("segnet", "segnet_basic", SegNetOptions, stride=16, input_range=BYTES),
    "segnet_bayesian": Entry("segnet", "segnet", BayesianOptions, input_range=SYMMETRIC),
    "segnet_basic_bayesian": Entry(
        "segnet", "segnet_basic", BayesianOptions, stride=16, input_range=BYTES
    ),
    "deepvel": Entry("deepvel", "deepvel", DeepVelOptions, task="velocity", stride=1),
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


def stride_of(name: str) -> int:
    """The stride of a network of this name, of ours or not; tiles start on its multiples."""
    return MODELS[name].stride if name in MODELS else max(e.stride for e in MODELS.values())


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
    value_range: tuple[float, float] = BYTES,
    normalization: type[keras.layers.Layer] | None = None,
    **options: Any,
) -> keras.Model:
    """Build the network ``name`` for ``(height, width, bands)`` inputs and ``outputs`` classes, or
    values a pixel.

    ``value_range`` is the data set's, for networks that rescale their input; ``normalization``
    replaces the batch-norm layer, for example by one synchronised over ranks.
    Returns a functional `keras.Model`: ``(batch, height, width, bands)`` to logits or values
    ``(batch, height, width, outputs)``.
    """
    checked = check(name, options)
    target = MODELS[name].input_range
    if target is not None and checked["rescale"] is None:
        scale = (target[1] - target[0]) / (value_range[1] - value_range[0])
        checked["rescale"] = (scale, target[0] - scale * value_range[0])
    module = importlib.import_module(f"{__name__}.{MODELS[name].module}")
    builder = getattr(module, MODELS[name].builder)
    return builder(input_shape, outputs, name=name, normalization=normalization, **checked)
