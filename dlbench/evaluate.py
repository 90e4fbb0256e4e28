"""Score a network on a split: ``python -m dlbench.evaluate RUN [checkpoint=best] [split=val]``.

Under ``horovodrun -np N`` the ranks share the work; the numbers are the same bit for bit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench import config
from dlbench.errors import exit_status
from dlbench.runs import RunFolder

if TYPE_CHECKING:
    from dlbench.session import Session
    from dlbench.tasks import Evaluation


class Evaluator:
    """Scores a network on a split, each sample counted once, on all ranks together.

    The batches are the same for any number of ranks, and their sums are added in the order of
    batches, so the result does not depend on the number of ranks. Build it once and call it after
    every epoch: it keeps the compiled prediction and, as `data.cache` has it, decoded samples.
    """

    def __init__(self, session: Session, split: str) -> None:
        from dlbench.data import pipeline
        from dlbench.prediction import Predictor
        from dlbench.session import require_same_samples

        experiment, dataset, ranks = session.experiment, session.dataset, session.ranks
        self._split = split
        self._task = session.task
        require_same_samples(session, split)
        self._count = dataset.count(split)
        self._batch = experiment.training.evaluation_batch
        self._ranks = ranks
        self._predictor = Predictor(
            session.network,
            self._task.activation,
            samples=experiment.monte_carlo_samples,
            seed=experiment.seed,
        )
        self._batches = pipeline.evaluation_batches(
            dataset,
            split,
            batch=self._batch,
            ranks=ranks.size,
            rank=ranks.rank,
            size=experiment.data.size,
            cache=experiment.data.cache,
            workers=experiment.data.workers,
        )

    def __call__(self) -> Evaluation:
        """Score the network as it is now."""
        self._predictor.update()
        scorer = self._task.scorer(self._split, self._count, -(-self._count // self._batch))
        for image, target, native, index in self._batches:
            chunk = int(index[0]) // self._batch
            prediction, _ = self._predictor(image, draw=chunk)
            scorer.update(chunk, prediction, target, native)
        return scorer.result(self._ranks)


def main(arguments: list[str]) -> int:
    """Print the scores of a run's checkpoint and return the process's exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return exit_status("dlbench.evaluate", lambda: _evaluate_run(arguments))


def _evaluate_run(arguments: list[str]) -> None:
    folder, kind, split, root = _parse(arguments)
    experiment = folder.experiment()
    if root is not None:
        experiment.data.root = root
    experiment.data.cache = False  # each sample is read but once
    from dlbench import session as sessions

    session = sessions.start(experiment)
    sessions.restore(session, folder.checkpoint(kind))
    result = Evaluator(session, split)()
    if session.ranks.rank == 0:
        print(f"{folder.path}: checkpoint '{kind}' on {result.samples} samples of '{split}'")
        print(result.table())


def _parse(arguments: list[str]) -> tuple[RunFolder, str, str, str | None]:
    usage = "usage: python -m dlbench.evaluate RUN [checkpoint=best|last] [split=val] [root=FOLDER]"
    folders = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    if len(folders) != 1 or not options.keys() <= {"checkpoint", "split", "root"}:
        raise config.ConfigError(usage)
    kind = options.get("checkpoint", "best")
    if kind not in ("best", "last"):
        raise config.ConfigError(f"checkpoint={kind}: allowed are best and last; {usage}")
    return RunFolder(Path(folders[0])), kind, options.get("split", "val"), options.get("root")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
