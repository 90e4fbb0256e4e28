"""Adam with each variable's step in one pass over memory.

Keras writes the step as ten operations, each of which reads and writes whole tensors: for SegNet's
29 million parameters a sixth of a training step in bfloat16. TensorFlow has the same formula as one
kernel (Kingma & Ba, 2015, arXiv 1412.6980, the form before section 2.1).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

register = keras.saving.register_keras_serializable(package="dlbench")


class _OnePass(keras.optimizers.Adam):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        raw = variable.value if isinstance(variable, keras.Variable) else variable

        beta1, beta2, epsilon = (
            tf.constant(value, raw.dtype) for value in (self.beta_1, self.beta_2, self.epsilon)
        )
        step = tf.cast(self.iterations + 1, raw.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=raw.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1**step,
            beta2_power=beta2**step,
            lr=tf.cast(learning_rate, raw.dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            grad=tf.cast(gradient, raw.dtype),
        )


@register
class Adam(_OnePass):
    """`keras.optimizers.Adam`, arguments, variables and result (to rounding) included."""


@register
class AdamW(_OnePass, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, arguments, variables and result (to rounding) included."""
