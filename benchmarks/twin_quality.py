"""What SegNet-Basic learns when it is written in plain Keras, everything else being as ours.

    python -m benchmarks.twin_quality configs/segnet_basic_camvid.yaml training.precision=float32

is ``python -m dlbench.train`` with the network of `twin_keras` in the place of ours: the same first
weights, samples in the same order, loss, optimizer and scores.
"""

from __future__ import annotations

import sys
from typing import Any

from dlbench import models, train

our_build = models.build


def build(
    name: str, input_shape: tuple[int | None, int | None, int], outputs: int, **options: Any
) -> Any:
    """The twin of `dlbench.models.build`, with the first weights that ours would have."""
    from benchmarks import twin_keras

    if name != "segnet_basic" or input_shape[-1] != twin_keras.BANDS:
        raise ValueError(f"there is no twin of {name} for {input_shape[-1]} bands")
    ours = our_build(name, input_shape, outputs, **options)
    twin = twin_keras.segnet_basic(outputs=outputs)
    twin_keras.load(twin, {one.path: one.numpy() for one in ours.variables})
    return twin


if __name__ == "__main__":
    models.build = build
    sys.exit(train.main(sys.argv[1:]))
