"""Gradients in half precision on their way between ranks: which travel together, and as what bits.

TensorFlow is imported where it is used: `dlbench.distributed` is loaded before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

Compression = Literal["none", "fp16", "bf16"]
HALF_GAIN = 1024.0
"""Mean losses have gradients near 1e-6, below which half precision has few digits left."""
SMALL = 4096
"""Values up to which a gradient travels whole, in a fused sum."""
PACK = 2**20
"""Most values of a pack of several gradients, 4 MB of float32: Horovod fuses no exchanges, so each
pack costs two messages to every rank; but it leaves when its last gradient is there. On loopback
packs of 4 and 16 million were no faster."""


def packs(sizes: Sequence[int]) -> list[list[int]]:
    """Places of the gradients of so many values that travel together: in the order in which a
    backward pass makes them, the last first; without those that travel whole."""
    found: list[list[int]] = []
    room = 0
    for place in reversed(range(len(sizes))):
        if sizes[place] <= SMALL:
            continue
        if sizes[place] > room:
            found.append([])
            room = PACK
        found[-1].append(place)
        room -= sizes[place]
    return found


class Half:
    """How values in float32 become 16 bits, and what those tell; ``scaled`` values have been
    multiplied by a loss scale."""

    def __init__(self, compression: Compression, scaled: bool) -> None:
        import tensorflow as tf

        is_fp16 = compression == "fp16"
        self._kind = tf.float16 if is_fp16 else tf.bfloat16
        # Under a loss scale float16 overflows in the open: an inf has the step skipped and the
        # scale halved.
        self._clips = is_fp16 and not scaled
        self.gain = HALF_GAIN if self._clips else 1.0

    def bits(self, wide: Any) -> Any:
        """uint16, of values that have been multiplied by the gain."""
        import tensorflow as tf

        return tf.bitcast(tf.cast(clipped(wide) if self._clips else wide, self._kind), tf.uint16)

    def values(self, bits: Any) -> Any:
        """float32, the gain still in them."""
        import tensorflow as tf

        return tf.cast(tf.bitcast(bits, self._kind), tf.float32)


def clipped(values: Any) -> Any:
    """What is finite, within what float16 holds; the rest as it is."""
    import tensorflow as tf

    largest = float(tf.float16.max)
    return tf.where(tf.math.is_finite(values), tf.clip_by_value(values, -largest, largest), values)


def summed(
    gradients: Sequence[Any],
    half: Half,
    ranks: int,
    exchange: Callable[[Any], Any],
    gather: Callable[[Any], Any],
) -> list[Any]:
    """The sums over so many ``ranks`` of a pack of ``gradients``, on all the same bits.

    ``exchange`` gives each rank its part of the flat bits of all, in rank order; ``gather`` joins
    the parts of all. Each rank sums its part in float32 and gives the sum to all. A ring of sums
    sends as many bytes, but rounds at each rank; here a value is rounded twice.
    """
    import tensorflow as tf

    sizes = [gradient.shape.num_elements() for gradient in gradients]
    padding = -sum(sizes) % ranks
    # Bits before they are packed: each gradient's as soon as it is there, and half the copying.
    mine = [tf.reshape(half.bits(gradient * half.gain), [-1]) for gradient in gradients]
    flat = tf.concat([*mine, tf.zeros([padding], tf.uint16)], 0)
    total = tf.add_n(tf.split(half.values(exchange(flat)), ranks))
    *joined, _ = tf.split(gather(half.bits(total)), [*sizes, padding])
    return [
        tf.cast(tf.reshape(half.values(bits) / half.gain, gradient.shape), gradient.dtype)
        for bits, gradient in zip(joined, gradients, strict=True)
    ]
