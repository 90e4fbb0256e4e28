"""What networks learn: one visible table, a data set's task -> its loss, scores and pictures."""

from __future__ import annotations

from dlbench.data.dataset import DataSet
from dlbench.tasks.segmentation import Segmentation
from dlbench.tasks.task import Evaluation, Loss, Scorer, Task
from dlbench.tasks.velocity import Velocity

__all__ = ["TASKS", "Evaluation", "Loss", "Scorer", "Task", "of"]

TASKS: dict[str, type[Task]] = {
    "segmentation": Segmentation,
    "velocity": Velocity,
}


def of(dataset: DataSet) -> Task:
    """The task that ``dataset`` is for."""
    return TASKS[dataset.task](dataset)
