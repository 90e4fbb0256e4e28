"""What SegNet-Basic learns when it is written in plain Keras, everything else being as ours.

    python -m benchmarks.twin_quality configs/segnet_basic_camvid.yaml training.precision=float32

is ``python -m dlbench.train`` with the network of `twin_keras` in the place of ours: the same first
weights, samples in the same order, loss, optimizer and scores.

    python -m benchmarks.twin_quality table RECORD.json [...]

prints a table of such runs, a row for each record, under its file's name.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dlbench import models, train
from dlbench.config import ConfigError
from dlbench.report import records

our_build = models.build


def build(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    outputs: int,
    width: float = 1.0,
    **options: Any,
) -> Any:
    """The twin of `dlbench.models.build`, with the first weights that ours would have; ConfigError
    where it lacks what is asked for."""
    from benchmarks import twin_keras

    given = {"name": name, "bands": input_shape[-1], **options}
    # Where each is none or as the twin has it.
    known = {
        "name": "segnet_basic",
        "bands": twin_keras.BANDS,
        "rescale": None,
        "value_range": models.BYTES,
        "normalization": None,
        "packed_indices": False,
    }
    lacking = [f"{key}={value}" for key, value in given.items() if value != known.get(key)]
    if lacking:
        raise ConfigError(f"the twin in plain Keras has no {', '.join(lacking)}")
    ours = our_build(name, input_shape, outputs, width=width, **options)
    twin = twin_keras.segnet_basic(width, outputs)
    twin_keras.load(twin, {one.path: one.numpy() for one in ours.variables})
    return twin


def table(paths: list[Path]) -> str:
    """Markdown."""
    rows = [
        "| run | precision | steps | val mIoU, training size | val mIoU, native size |",
        "|---|---|---:|---:|---:|",
    ]
    for path in paths:
        record = records.read(path)
        scores: Any = record.quality
        size, native = (
            f"{scores[kind]['mean_iou_all_classes']:.4f}"
            for kind in ("training_size", "native_size")
        )
        steps = len(record.ranks[0].step_s)
        rows.append(f"| {path.stem} | {record.workload.precision} | {steps} | {size} | {native} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["table"]:
        print(table([Path(one) for one in sys.argv[2:]]), end="")
    else:
        models.build = build
        sys.exit(train.main(sys.argv[1:]))
