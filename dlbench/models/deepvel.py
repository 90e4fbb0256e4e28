"""DeepVel: horizontal velocities of the solar surface from two images, 30 s apart.

Asensio Ramos, Requerey & Vitas, "DeepVel", A&A 2017 (arXiv 1703.05128); the layers are those of the
authors' released network, which has 21 residual blocks where the paper says 20.
"""

from __future__ import annotations

from typing import Any

import keras

from dlbench.layers import Add, BatchNormalization, Conv2D, Fork

# Of the Keras release that the network was published with.
MOMENTUM, EPSILON = 0.99, 1e-3


def deepvel(
    input_shape: tuple[int | None, int | None, int],
    outputs: int,
    *,
    name: str = "deepvel",
    blocks: int = 21,
    filters: int = 64,
    normalization: type[keras.layers.Layer] | None = None,
) -> keras.Model:
    """DeepVel for inputs ``(batch, height, width, frames)`` divided by their median intensity.

    Returns ``(batch, height, width, outputs)``: vx and vy at each depth, linear. Each value is seen
    from 89 x 89 pixels around it.
    """
    normalization = normalization or BatchNormalization
    image = keras.Input(input_shape, name="image")
    x = _convolution(image, filters, "conv1", activation="relu")
    first, x = Fork(name="fork")(x)
    for block in range(1, blocks + 1):
        shortcut, x = Fork(name=f"block{block}_fork")(x)
        x = _normalized(x, filters, f"block{block}_1", normalization, activation="relu")
        x = _normalized(x, filters, f"block{block}_2", normalization)
        x = Add(name=f"block{block}_add")([shortcut, x])
    x = _normalized(x, filters, "conv2", normalization)
    x = Add(name="add")([first, x])
    # float32: velocities, not the features that lead to them.
    velocity = _convolution(x, outputs, "velocity", kernel=1, dtype="float32")
    return keras.Model(image, velocity, name=name)


def _normalized(
    x: Any,
    filters: int,
    name: str,
    normalization: type[keras.layers.Layer],
    activation: str | None = None,
) -> Any:
    x = _convolution(x, filters, f"{name}_conv")
    own = {"momentum": MOMENTUM, "epsilon": EPSILON, "activation": activation}
    return normalization(**own, name=f"{name}_bn")(x)


def _convolution(x: Any, filters: int, name: str, kernel: int = 3, **options: Any) -> Any:
    return Conv2D(
        filters, kernel, padding="same", kernel_initializer="he_normal", name=name, **options
    )(x)
