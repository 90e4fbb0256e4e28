"""Keras layers: pooling with stored indices, its inverse, and the rest of our networks."""

from typing import Any

import keras
import tensorflow as tf

from dlbench import normalization, ops
from dlbench.convolution import convolution

register = keras.saving.register_keras_serializable(package="dlbench")


def _pooled_length(length: int | None, pool_size: int) -> int | None:
    return None if length is None else -(-length // pool_size)


class _WindowLayer(keras.layers.Layer):
    """A layer with windows of one size, `pool_size` from 2 to 16; with `packed`, which goes with
    pool_size 2 alone, indices take two bits in place of eight."""

    def __init__(self, pool_size: int = 2, packed: bool = False, **options: Any) -> None:
        super().__init__(**options)
        ops.check_windows(pool_size, packed)
        self.pool_size = pool_size
        self.packed = packed

    def get_config(self) -> dict[str, Any]:
        own = {"pool_size": self.pool_size, "packed": self.packed}
        return {**super().get_config(), **own}


@register
class MaxPoolWithIndices(_WindowLayer):
    """Max pooling that also gives where each maximum stood, see `ops.max_pool_with_indices`:
    (batch, height, width, channels) -> values and uint8 indices, each
    (batch, ceil(height / k), ceil(width / k), channels), packed ones of ceil(channels / 4)."""

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return ops.max_pool_with_indices(inputs, self.pool_size, self.packed)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        batch, height, width, channels = inputs.shape
        shape = (
            batch,
            _pooled_length(height, self.pool_size),
            _pooled_length(width, self.pool_size),
            channels,
        )
        indices = (*shape[:3], _pooled_length(channels, 4)) if self.packed else shape
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(indices, "uint8")


@register
class SpatialSize(keras.layers.Layer):
    """Height and width of an image batch, (batch, height, width, channels) -> int32 (2,): the size
    that `MaxUnpool` needs where a model is built for any size."""

    def __init__(self, **options: Any) -> None:
        super().__init__(autocast=False, **options)  # only the shape is read

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.shape(inputs)[1:3]

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((2,), "int32")


@register
class MaxUnpool(_WindowLayer):
    """Max unpooling, see `ops.max_unpool`: `[values, indices, size]` -> (batch, height, width,
    channels), where `size` is the (height, width) of the pool's input, two ints or the int32
    tensor of `SpatialSize`, and `packed` is as the pool has it."""

    def __call__(self, inputs: list[Any], **options: Any) -> Any:
        if len(inputs) == 3 and isinstance(inputs[2], tuple | list):
            # Keras takes tensors alone among the inputs, and other values by keyword.
            values, indices, size = inputs
            if None in size:
                raise ValueError(
                    f"size {tuple(size)} is not known while the model is built: give "
                    "SpatialSize()(x) of the pool's input x instead"
                )
            inputs, options = [values, indices], {**options, "size": tuple(size)}
        return super().__call__(inputs, **options)

    def call(self, inputs: list[tf.Tensor], size: tuple[int, int] | None = None) -> tf.Tensor:
        values, indices, output_size = inputs if size is None else (*inputs, size)
        return ops.max_unpool(values, indices, output_size, self.pool_size, self.packed)

    def compute_output_spec(
        self, inputs: list[keras.KerasTensor], size: tuple[int, int] | None = None
    ) -> keras.KerasTensor:
        batch, rows, columns, channels = inputs[0].shape
        height, width = size or (None, None)
        for length, pooled in ((height, rows), (width, columns)):
            if None not in (length, pooled) and _pooled_length(length, self.pool_size) != pooled:
                raise ValueError(
                    f"size {size} does not fit values of shape {inputs[0].shape} at pool_size "
                    f"{self.pool_size}: give the (height, width) of the pool's input"
                )
        return keras.KerasTensor((batch, height, width, channels), self.compute_dtype)


@register
class Conv2D(keras.layers.Conv2D):
    """Keras' layer with a faster gradient by the kernel, see `dlbench.convolution`, where stride
    and dilation are 1 and the padding is "same"; other convolutions are computed as Keras does."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        plain = (self.strides, self.dilation_rate, self.groups) == ((1, 1), (1, 1), 1)
        if plain and self.padding == "same" and self.data_format == "channels_last":
            return convolution(inputs, kernel)
        return super().convolution_op(inputs, kernel)


def fused_batch_normalization(
    inputs: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    statistics: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """TensorFlow's fused kernel: inputs (batch, height, width, channels) in float32, bfloat16 or
    half, normalised by ``statistics``, mean and variance (channels,) float32, by default those of
    the batch; and the mean and population variance of the batch, or what was given."""
    empty: list[float] = []  # the kernel takes the statistics from the batch
    mean, variance = statistics or (empty, empty)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=statistics is None,
    )
    if statistics is None:
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (count - 1) / count  # the kernel's is divided by n - 1
    return outputs, mean, variance


@register
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation over all axes but the last of (batch, height, width, channels), in
    the compiled op of `dlbench.normalization` where that has a kernel and TensorFlow's fused kernel
    elsewhere (Ioffe & Szegedy, 2015, arXiv 1502.03167).

    Inputs keep their dtype; parameters and statistics are float32 (float64 inputs are computed in
    float64, without the fused kernel, which lacks it). The moving variance follows the population
    variance (divided by n), as Keras' own layer does: the fused kernel's n - 1 would make it
    depend on how a batch is split over ranks. The default momentum averages over some 50 steps,
    since a step of two images says little; SegNet's authors used the whole training set.

    With ``activation="relu"`` the outputs pass through a ReLU: in the compiled op that costs
    nothing, where a layer of its own reads and writes them once more in each direction.
    """

    def __init__(
        self,
        momentum: float = 0.98,
        epsilon: float = 1e-5,
        activation: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(autocast=False, **options)
        if activation not in (None, "relu"):
            raise ValueError(f"activation must be None or 'relu', got {activation!r}")
        self.momentum = momentum
        self.epsilon = epsilon
        self.activation = activation
        self.keeps_statistics = False
        """While set, a training step leaves the moving statistics as they are."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if len(input_shape) != 4 or channels is None:
            raise ValueError(
                f"expected (batch, height, width, channels) with channels known, got {input_shape}"
            )

        def weight(name: str, initial: str, trainable: bool) -> keras.Variable:
            # autocast=False: under mixed precision the kernel still gets float32 parameters.
            return self.add_weight(
                (channels,),
                initial,
                dtype="float32",
                trainable=trainable,
                autocast=False,
                name=name,
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            return self.activated(self._by_statistics(inputs))
        outputs, mean, variance = self.normalize_batch(inputs)
        if not self.keeps_statistics:
            self._update(mean, variance)
        return outputs

    def normalize_batch(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What a training step gives, and the mean and population variance (channels,) that it
        normalises with, NaN without samples."""
        if inputs.dtype == tf.float64:
            mean, variance = tf.nn.moments(inputs, (0, 1, 2))
            outputs = self.activated(self._wide(inputs, mean, variance))
            mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)
        else:
            given = (
                inputs,
                tf.convert_to_tensor(self.gamma),
                tf.convert_to_tensor(self.beta),
                self.epsilon,
            )
            if normalization.has_kernel(inputs):
                relu = self.activation == "relu"
                outputs, mean, variance = normalization.normalize_batch(*given, relu=relu)
            else:
                outputs, mean, variance = fused_batch_normalization(*given)
                outputs = self.activated(outputs)
        return outputs, mean, variance

    def activated(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(outputs) if self.activation == "relu" else outputs

    def _by_statistics(self, inputs: tf.Tensor) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        mean = tf.convert_to_tensor(self.moving_mean)
        variance = tf.convert_to_tensor(self.moving_variance)
        if inputs.dtype == tf.float64:
            return self._wide(inputs, mean, variance)
        return fused_batch_normalization(inputs, gamma, beta, self.epsilon, (mean, variance))[0]

    def _wide(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        vectors = (tf.cast(v, tf.float64) for v in (mean, variance, self.beta, self.gamma))
        return tf.nn.batch_normalization(inputs, *vectors, self.epsilon)

    def _update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        # A batch without samples says nothing, nor does one that overflows under loss scaling: its
        # step is skipped.
        usable = tf.reduce_all(tf.math.is_finite(mean) & tf.math.is_finite(variance))
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            batch = tf.stop_gradient(tf.cast(batch, tf.float32))
            follows = self.momentum * moving + (1 - self.momentum) * batch
            moving.assign(tf.where(usable, follows, moving))

    def compute_output_spec(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"momentum": self.momentum, "epsilon": self.epsilon, "activation": self.activation}
        return {**super().get_config(), **own}


@register
class Fork(keras.layers.Layer):
    """What goes two ways, as where a residual connection begins: x -> x, x. It adds up the
    gradients that come back, see `dlbench.normalization.fork`."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        return normalization.fork(inputs) if training else (inputs, inputs)

    def compute_output_spec(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        one, other = (keras.KerasTensor(inputs.shape, self.compute_dtype) for _ in range(2))
        return one, other


@register
class Add(keras.layers.Add):
    """Keras' layer for two tensors of one shape, as where a residual connection ends; in training
    see `dlbench.normalization.add`. In prediction TensorFlow adds within the convolution before."""

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        one, *others = input_shape
        if others != [one]:
            raise ValueError(f"expected two tensors of one shape, got {input_shape}")
        super().build(input_shape)

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        return normalization.add(*inputs) if training else super().call(inputs)

    def compute_output_spec(
        self, inputs: list[keras.KerasTensor], training: bool | None = None
    ) -> keras.KerasTensor:
        return super().compute_output_spec(inputs)


@register
class LocalResponseNormalization(keras.layers.Layer):
    """Local response normalisation across channels as Caffe defines it, alpha divided by size:
    `x / (1 + alpha / size * sum of x^2 over size channels) ** beta`; same shape as the input,
    computed in float32 and given in the layer's compute dtype (Krizhevsky et al., 2012)."""

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, **options: Any
    ) -> None:
        super().__init__(autocast=False, **options)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size must be an odd number of channels, got {size}")
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.nn.local_response_normalization(
            tf.cast(inputs, tf.float32),
            depth_radius=self.size // 2,
            bias=1.0,
            alpha=self.alpha / self.size,
            beta=self.beta,
        )
        return tf.cast(outputs, self.compute_dtype)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}


@register
class MonteCarloDropout(keras.layers.Dropout):
    """Dropout that stays on at inference while `monte_carlo` is set, so that repeated predictions
    sample the posterior (Kendall et al., 2017, arXiv 1511.02680); same shape and dtype.

    Set `monte_carlo` before a model's first `predict`, or clear `model.predict_function`: a
    function that is already traced keeps what it was traced with.
    """

    def __init__(self, rate: float = 0.5, monte_carlo: bool = False, **options: Any) -> None:
        super().__init__(rate, **options)
        self.monte_carlo = monte_carlo

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return super().call(inputs, training=bool(training) or self.monte_carlo)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "monte_carlo": self.monte_carlo}
