"""SegNet, SegNet-Basic and their Bayesian variants, layer by layer as published.

Badrinarayanan, Kendall & Cipolla, "SegNet", PAMI 2017 (arXiv 1511.00561); Kendall et al.,
"Bayesian SegNet" (arXiv 1511.02680); the layers are those of the authors' prototxt files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlbench.errors import UserError
from dlbench.layers import (
    BatchNormalization,
    Conv2D,
    LocalResponseNormalization,
    MaxPoolWithIndices,
    MaxUnpool,
    MonteCarloDropout,
    SpatialSize,
)

# Filters of each convolution; the encoder is VGG16's, the decoder mirrors it.
ENCODER = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DECODER = ((64,), (64, 128), (128, 256, 256), (256, 512, 512), (512, 512, 512))
BASIC_STAGES, BASIC_FILTERS = 4, 64
# Dropout follows the pools and decoder stages numbered from here on (Bayesian SegNet, best mix).
FIRST_DROPOUT_STAGE = 3


def segnet(
    input_shape: tuple[int | None, int | None, int],
    outputs: int,
    *,
    name: str = "segnet",
    width: float = 1.0,
    rescale: tuple[float, float] = (1.0, 0.0),
    dropout: float = 0.0,
    packed_indices: bool = False,
    normalization: type[keras.layers.Layer] | None = None,
) -> keras.Model:
    """SegNet for inputs ``(batch, height, width, bands)``; ``dropout`` > 0 makes it Bayesian.

    Returns logits ``(batch, height, width, outputs)`` at the input's size, whatever it is: each
    unpooling restores its pool's true input size.
    """
    normalization = normalization or BatchNormalization
    image, x = _input(input_shape, rescale)
    pools: list[tuple[Any, Any]] = []
    for stage, filters in enumerate(ENCODER, start=1):
        for number, count in enumerate(filters, start=1):
            x = _block(x, _scaled(count, width), 3, f"enc{stage}_{number}", normalization)
        size = SpatialSize(name=f"size{stage}")(x)
        x, indices = MaxPoolWithIndices(packed=packed_indices, name=f"pool{stage}")(x)
        pools.append((indices, size))
        if dropout and stage >= FIRST_DROPOUT_STAGE:
            x = MonteCarloDropout(dropout, name=f"pool{stage}_dropout")(x)
    for stage, filters in reversed(list(enumerate(DECODER, start=1))):
        indices, size = pools[stage - 1]
        x = MaxUnpool(packed=packed_indices, name=f"unpool{stage}")([x, indices, size])
        for number, count in reversed(list(enumerate(filters, start=1))):
            x = _block(x, _scaled(count, width), 3, f"dec{stage}_{number}", normalization)
        if dropout and stage >= FIRST_DROPOUT_STAGE:
            x = MonteCarloDropout(dropout, name=f"dec{stage}_dropout")(x)
    logits = _convolution(x, outputs, 3, "classifier")
    return keras.Model(image, logits, name=name)


def segnet_basic(
    input_shape: tuple[int | None, int | None, int],
    outputs: int,
    *,
    name: str = "segnet_basic",
    width: float = 1.0,
    rescale: tuple[float, float] = (1.0, 0.0),
    dropout: float = 0.0,
    packed_indices: bool = False,
    normalization: type[keras.layers.Layer] | None = None,
) -> keras.Model:
    """SegNet-Basic: four stages of 7x7 convolutions, no ReLU in the decoder, 1x1 classifier."""
    normalization = normalization or BatchNormalization
    filters = _scaled(BASIC_FILTERS, width)
    image, x = _input(input_shape, rescale)
    x = LocalResponseNormalization(size=5, alpha=1e-4, beta=0.75, name="lrn")(x)
    pools: list[tuple[Any, Any]] = []
    for stage in range(1, BASIC_STAGES + 1):
        x = _block(x, filters, 7, f"enc{stage}", normalization)
        size = SpatialSize(name=f"size{stage}")(x)
        x, indices = MaxPoolWithIndices(packed=packed_indices, name=f"pool{stage}")(x)
        pools.append((indices, size))
        if dropout and stage >= FIRST_DROPOUT_STAGE:
            x = MonteCarloDropout(dropout, name=f"pool{stage}_dropout")(x)
    for stage in range(BASIC_STAGES, 0, -1):
        indices, size = pools[stage - 1]
        x = MaxUnpool(packed=packed_indices, name=f"unpool{stage}")([x, indices, size])
        x = _block(x, filters, 7, f"dec{stage}", normalization, activation=None)
        if dropout and stage >= FIRST_DROPOUT_STAGE:
            x = MonteCarloDropout(dropout, name=f"dec{stage}_dropout")(x)
    logits = _convolution(x, outputs, 1, "classifier")
    return keras.Model(image, logits, name=name)


def load_vgg16_encoder(network: keras.Model, weights: Path) -> str:
    """Initialise the 13 encoder convolutions from a Keras VGG16 weights file (.h5).

    VGG16 was trained on BGR; its first kernel is turned to RGB. With another number of bands than
    3 the first convolution gets the mean over colours, scaled by 3/bands so that responses keep
    their size. Returns one sentence that says what was done. Raises `UserError`, naming the file,
    where a layer is missing or has another shape; the network is then as it was.
    """
    import h5py

    if not any(layer.name == "enc1_1_conv" for layer in network.layers):
        raise UserError(
            f"{weights}: {network.name} has another encoder than VGG16; model.pretrained goes with "
            "segnet and segnet_bayesian"
        )
    convolutions = [
        (f"enc{stage}_{number}_conv", f"block{stage}_conv{number}")
        for stage, filters in enumerate(ENCODER, start=1)
        for number in range(1, len(filters) + 1)
    ]
    bands = network.input_shape[-1]
    read: list[tuple[Any, list[np.ndarray]]] = []
    try:
        with h5py.File(weights, "r") as file:
            for ours, theirs in convolutions:
                kernel, bias = _read_convolution(file, theirs)
                if ours == "enc1_1_conv":
                    kernel = kernel[:, :, ::-1, :]
                    if bands != 3:
                        mean = kernel.mean(axis=2, keepdims=True)
                        kernel = np.repeat(mean, bands, axis=2) * (3.0 / bands)
                layer = network.get_layer(ours)
                if layer.kernel.shape != kernel.shape:
                    raise UserError(
                        f"{weights}: {theirs} has a kernel of shape {kernel.shape}, the model's "
                        f"{ours} needs {tuple(layer.kernel.shape)}; VGG16 fits segnet at width 1"
                    )
                read.append((layer, [kernel, bias]))
    except (OSError, KeyError) as error:
        raise UserError(
            f"{weights} is not a readable Keras VGG16 weights file ({error}); expected the file "
            "that keras.applications.VGG16(weights='imagenet', include_top=False) saves"
        ) from error
    for layer, values in read:
        layer.set_weights(values)
    first = "as they are" if bands == 3 else f"the mean over colours repeated for {bands} bands"
    return f"13 encoder convolutions initialised from {weights}; first kernel: {first}"


def _read_convolution(file: Any, layer: str) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    found: dict[int, np.ndarray] = {}

    def collect(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[item.ndim] = item[()]

    group = file.get("model_weights", file)
    group = group.get("layers", group)
    _named(group, layer).visititems(collect)
    if set(found) != {1, 4}:
        raise KeyError(f"'{layer}' holds no kernel and bias")
    return found[4], found[1]


def _named(group: Any, layer: str) -> Any:
    if layer in group:
        return group[layer]
    # Keras 3 numbers the layers of a .weights.h5 by kind and keeps their names as attributes.
    for numbered in group.values():
        if "vars" in numbered and numbered["vars"].attrs.get("name") == layer:
            return numbered
    raise KeyError(f"it has no layer '{layer}'")


def _input(input_shape: tuple[int | None, int | None, int], rescale: tuple[float, float]) -> Any:
    # Any input type is accepted and rescaled in float32 on the device: uint8 travels as uint8.
    image = keras.Input(input_shape, name="image")
    scale, offset = rescale
    return image, keras.layers.Rescaling(scale, offset, dtype="float32", name="rescale")(image)


def _block(
    x: Any,
    filters: int,
    kernel: int,
    name: str,
    normalization: type[keras.layers.Layer],
    activation: str | None = "relu",
) -> Any:
    """Convolution -> batch normalisation -> ReLU, the paper's order."""
    x = _convolution(x, filters, kernel, f"{name}_conv")
    return normalization(activation=activation, name=f"{name}_bn")(x)


def _convolution(x: Any, filters: int, kernel: int, name: str) -> Any:
    return Conv2D(filters, kernel, padding="same", kernel_initializer="he_normal", name=name)(x)


def _scaled(filters: int, width: float) -> int:
    return max(1, round(filters * width))
