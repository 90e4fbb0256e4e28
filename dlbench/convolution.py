"""Convolution whose gradient by the kernel comes from a compiled op where that is the faster one.

TensorFlow's own convolution (oneDNN's) and its gradient by the input come near a processor's peak;
its gradient by the kernel stays below, on processors with AVX2 but not AVX-512 by half. The
compiled op does not depend on the number of threads, bit for bit.

DLBENCH_CONVOLUTION_GRADIENT=compiled or =tensorflow takes the one or the other for comparison.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from dlbench import ops
from dlbench.errors import UserError

CHOICE = "DLBENCH_CONVOLUTION_GRADIENT"


def convolution(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`tf.nn.conv2d` with stride 1 and padding "SAME": (batch, height, width, inputs) and
    (rows, columns, inputs, outputs) -> (batch, height, width, outputs), with gradients of every
    order."""
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    if not _suits(inputs, kernel) or chosen() != "compiled":
        return tf.nn.conv2d(inputs, kernel, 1, "SAME")

    @tf.custom_gradient
    def convolved(
        inputs: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_input = _input_gradient(inputs, kernel, outputs)
            return by_input, kernel_gradient(inputs, outputs, *kernel.shape[:2])

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradient

    return convolved(inputs, kernel)


def chosen() -> str:
    """Whose gradient by the kernel this machine or the user chooses, "compiled" or "tensorflow":
    the compiled op is for CPUs. UserError if the variable holds something else."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "compiled", "tensorflow"):
        raise UserError(f"{CHOICE} is {choice!r}; allowed are compiled, tensorflow and nothing")
    if tf.config.get_visible_devices("GPU"):
        return "tensorflow"
    # With AVX-512, for which TensorFlow's kernels are better than with AVX2, it still makes a whole
    # step of SegNet 6 % and of DeepVel 2 to 3 % shorter.
    return choice or ("tensorflow" if ops.isa() == "portable" else "compiled")


def kernel_gradient(inputs: tf.Tensor, outputs: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """The compiled op: a convolution's inputs (batch, height, width, inputs) and the gradient by
    its outputs (batch, height, width, outputs), float32 -> (rows, columns, inputs, outputs), the
    gradient by its kernel, whose rows and columns are odd; else InvalidArgumentError."""
    return ops.load_library().dlbench_conv2d_kernel_gradient(
        input=inputs, gradient=outputs, rows=rows, columns=columns
    )


@tf.RegisterGradient("DlbenchConv2DKernelGradient")
def _kernel_gradient_gradient(op: tf.Operation, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # The op is linear in both: for any kernel k, <k, op(x, y)> = <convolution(x, k), y>.
    inputs, outputs = op.inputs
    return _input_gradient(inputs, kernel, outputs), convolution(inputs, kernel)


def _input_gradient(inputs: tf.Tensor, kernel: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(inputs),
        filter=kernel,
        out_backprop=outputs,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )


def _suits(inputs: tf.Tensor, kernel: tf.Tensor) -> bool:
    """Whether the compiled op has this case; others, grouped convolutions too, are TensorFlow's."""
    rows, columns, channels = kernel.shape[:3]
    return (
        inputs.dtype == kernel.dtype == tf.float32
        and None not in (rows, columns, channels)
        and rows % 2 == columns % 2 == 1
        and inputs.shape[3] == channels
        and not ops.for_xla()
        and max(rows, columns) <= ops.max_kernel_length()
    )
