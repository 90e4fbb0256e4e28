"""All that a run of training is at one instant: saved beside the training, restored on every rank.

A checkpoint holds weights, optimiser, loss scale, seeds, the history of the epochs and the position
in the one that is going on. Between epochs the ranks are equal; within one, those with
batch-norm statistics of their own save them too. A resumed run goes on to the same bits.

In an elastic job the number of ranks may be another one then. The rest of the epoch's samples is
shared anew, each rank keeps the batch of the configuration, and so do the learning rate and its
schedule: from there on they are those of a run with so many ranks.
"""

from __future__ import annotations

import math
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from dlbench import checkpoint, elastic
from dlbench.config import ConfigError
from dlbench.data import pipeline
from dlbench.errors import UserError
from dlbench.schedule import schedule_of
from dlbench.training import Trainer, draw_own_dropout

if TYPE_CHECKING:
    from dlbench.runs import RunFolder
    from dlbench.session import Session

STATISTICS = "statistics"
"""Batch-norm statistics of each rank, (ranks, values), in a checkpoint within an epoch."""
LEAST_SCALE = 2.0**-14
"""Of the loss: 29 halvings from where Keras begins. At 0 the next finite step divides by it."""


class DivergenceError(UserError):
    """The loss or the weights are no longer numbers, or no longer ones that steps follow from."""


class TrainingState:
    """The run of a compiled and built ``trainer``; rank 0 alone reads and writes files.

    Saving copies the values and leaves the writing to a thread, one checkpoint at a time. What went
    wrong there is raised at the next call, at the latest at the end of the ``with`` statement, or
    told there if something else has gone wrong.
    """

    def __init__(
        self,
        session: Session,
        trainer: Trainer,
        folder: RunFolder,
        unreadable: pipeline.Unreadable | None = None,
    ) -> None:
        self._ranks = session.ranks
        self._training = session.experiment.training
        self._network = session.network
        self._score = session.task.score
        self._trainer = trainer
        self._folder = folder
        self._variables = checkpoint.variables_of(session.network, trainer.optimizer)
        self._statistics = [
            v for v in self._network.non_trainable_variables if v.dtype == "float32"
        ]
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self.history: list[dict[str, Any]] = []
        """What is known of each finished epoch."""
        self.unevaluated = False
        """Whether the last of them has been saved before its evaluation, which has yet to come."""
        self.saving_s = 0.0
        """How long training stood still for checkpoints."""
        self.step, self.done = 0, 0
        """Steps and samples done of the epoch after those."""
        self.first, self.begun = 0, 0
        """Of these, the ones before this process took the epoch up."""
        self.changes: list[dict[str, int]] = []
        """Since which place (``epoch``, from 1, and ``samples`` done of it) how many ``ranks``
        train."""
        self._ahead = 0
        """Of the schedule, so that it goes on."""
        self._applied = 0
        """Steps of the optimiser before the epoch."""
        self._samples = session.dataset.count("train")
        self._loss = [0.0, 0.0]
        self._unreadable = unreadable

    def __enter__(self) -> TrainingState:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            print(f"the last checkpoint was not written: {error}", file=sys.stderr, flush=True)
        finally:
            self._pool.shutdown()

    def start(self, resume: bool) -> None:
        """Give all ranks one state: that of the newest whole checkpoint, if rank 0 is to
        ``resume``, or rank 0's initial one. Raises `ConfigError` or `CheckpointError`."""
        arrays: dict[str, np.ndarray] = {}
        position: dict[str, Any] = {
            "history": [], "step": 0, "done": 0, "loss": self._loss, "ahead": 0, "unreadable": [],
            "changes": [{"epoch": 1, "samples": 0, "ranks": self._ranks.size}],
            "unevaluated": False,
        }  # fmt: skip
        if resume:
            arrays, meta = self._read()
            position |= {name: meta[name] for name in position.keys() & meta.keys()}
        told = self._ranks.gather(position)[0]
        self.history, self._loss, self.changes = told["history"], told["loss"], told["changes"]
        self.unevaluated = told["unevaluated"]
        self.first = self.step = told["step"]
        self.begun = self.done = told["done"]
        self._ahead = schedule_of(self._trainer.optimizer).ahead = told["ahead"]
        if self._unreadable is not None:
            self._unreadable.indices.update(told["unreadable"])
        self._ranks.broadcast(list(self._variables.values()))
        draw_own_dropout(self._network, self._ranks.rank)
        if self.step and self._ranks.size > 1 and self._statistics:
            self._take_statistics(arrays.get(STATISTICS))

    def steps_left(self) -> int:
        """Steps that this process makes of the epoch that it takes up."""
        training = self._training
        return pipeline.steps_per_epoch(
            self._samples,
            training.samples_per_step,
            self._ranks.size,
            training.drop_remainder,
            self.begun,
        )

    def ranks_of_epoch(self) -> str:
        """How many ranks train the epoch after the history; "3>2" where they became fewer in it."""
        epoch = len(self.history) + 1
        began = [c for c in self.changes if (c["epoch"], c["samples"]) <= (epoch, 0)]
        within = [c for c in self.changes if c["epoch"] == epoch and c["samples"]]
        return ">".join(str(change["ranks"]) for change in (*began[-1:], *within))

    def ranks_before(self) -> int:
        """How many ranks came to the place that the run goes on from."""
        here = {"epoch": len(self.history) + 1, "samples": self.done}
        earlier = [change["ranks"] for change in self.changes if change | here != change]
        return (earlier or [self._ranks.size])[-1]

    def begin_epoch(self) -> None:
        """Go on with the mean loss of an epoch that has been interrupted."""
        self._applied = int(self._trainer.optimizer.iterations)
        if self.first:
            for variable, value in zip(self._trainer.metrics[0].variables, self._loss, strict=True):
                variable.assign(value)

    def require_convergence(self, loss: float, steps: int | None = None) -> None:
        """Raise `DivergenceError`, on all ranks alike, where the mean ``loss`` of an epoch or of
        its first ``steps`` tells that training on is in vain, or where the weights do, which the
        last step has changed after it had its loss."""
        optimizer, told = self._trainer.optimizer, None
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        whole = steps is None and not self.first
        if scaled and (scale := float(optimizer.dynamic_scale)) < LEAST_SCALE:
            told = f"has gradients that overflow float16 even at a loss scale of {scale:.1g}"
        elif not math.isfinite(loss) and not scaled:
            told = f"is {loss}"
        # A step that overflowed was skipped and did no harm; where all are, the next epoch is this
        # one again.
        elif not math.isfinite(loss) and whole and int(optimizer.iterations) == self._applied:
            told = f"is {loss}, and each of its steps overflowed float16 and was skipped"
        elif not self._are_weights_finite():
            told = f"is {loss:.4g}, but weights are no longer numbers after its last step"
        if told is not None:
            place = "" if steps is None else f" up to step {steps}"
            newest = self._folder.checkpoint("last")
            saved = bool(self.history or self.step)
            before = f"{newest} holds what was" if saved else "nothing has been saved"
            raise DivergenceError(
                f"the loss of epoch {len(self.history) + 1}{place} {told}; {before} before; start "
                "anew with resume=false and a lower optimizer.learning_rate, or set "
                "optimizer.clip_norm"
            )

    def require_finite(self, loss: float, steps: int) -> None:
        """`require_convergence` as far as the mean ``loss`` alone tells, which costs nothing: to
        be asked after each step. Under loss scaling steps that overflow do no harm."""
        scaled = isinstance(self._trainer.optimizer, keras.optimizers.LossScaleOptimizer)
        if not math.isfinite(loss) and not scaled:
            self.require_convergence(loss, steps)

    def _are_weights_finite(self) -> bool:
        # Statistics, which differ between ranks, stay as they are where a batch's are no numbers.
        weights = self._network.trainable_variables
        return bool(tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in weights]))

    def save_epoch(self, unevaluated: bool = False) -> None:
        """Save the state after the epoch that the history ends with, as the best too if it is. One
        that is ``unevaluated`` is to be saved once more, in the place of this."""
        begun = time.monotonic()
        self.step, self.first, self._loss = 0, 0, [0.0, 0.0]
        self.done, self.begun = 0, 0
        again, self.unevaluated = self.unevaluated, unevaluated
        if self._ranks.rank == 0:
            best = not unevaluated and self._score.best(self.history) is self.history[-1]
            self._save({}, best, again)
        self.saving_s += time.monotonic() - begun

    def save_step(self, step: int) -> None:
        """Save the state after ``step`` steps of an epoch; all ranks come here."""
        begun = time.monotonic()
        self.require_convergence(float(self._trainer.metrics[0].result()), step)
        self.step = step
        made = (step - self.first) * self._training.samples_per_step * self._ranks.size
        self.done = self.begun + made
        self._loss = [float(variable) for variable in self._trainer.metrics[0].variables]
        self.count_unreadable()
        apart = self._ranks.size > 1 and bool(self._statistics)
        arrays = {STATISTICS: self._summed(self._own_row())} if apart else {}
        if self._ranks.rank == 0:
            self._save(arrays)
        self.saving_s += time.monotonic() - begun

    def count_unreadable(self) -> int | None:
        """How many samples no rank could read so far; None where one ends the run. All ranks come
        here."""
        if self._unreadable is None:
            return None
        for indices in self._ranks.gather(sorted(self._unreadable.indices)):
            self._unreadable.indices.update(indices)
        return len(self._unreadable.indices)

    def wait(self) -> None:
        """Return when what was saved is on disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def require_written(self) -> None:
        """Raise what has gone wrong in writing by now: what is trained without a file to go on
        from is lost."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _save(self, more: dict[str, np.ndarray], best: bool = False, again: bool = False) -> None:
        arrays = checkpoint.collect(self._variables) | more
        history = [dict(row) for row in self.history]
        meta = {
            "epoch": len(history),
            "step": self.step,
            "done": self.done,
            "loss": self._loss,
            "ranks": self._ranks.size,
            "changes": self.changes,
            "ahead": self._ahead,
            "samples": self._samples,
            "history": history,
            "unevaluated": self.unevaluated,
        }
        if self._unreadable is not None:
            meta["unreadable"] = sorted(self._unreadable.indices)
        self.wait()
        kept = None if again else self._training.keep_checkpoints

        def write() -> None:
            if best:
                checkpoint.save(self._folder.checkpoint("best"), arrays, meta)
            if history:
                self._folder.write_rows(self._folder.metrics, history)
            # Last: from here on a resumed run takes this epoch, with all that it wrote, as done.
            checkpoint.save(self._folder.checkpoint("last"), arrays, meta, kept)

        self._writing = self._pool.submit(write)

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        newest = self._folder.checkpoint("last")
        arrays, meta, path = checkpoint.load_newest(
            newest,
            lambda text: print(text, file=sys.stderr, flush=True),
            reserve=self._folder.checkpoint("best"),
        )
        if meta["ranks"] != self._ranks.size and not elastic.is_elastic():
            raise ConfigError(
                f"{path} was trained on {meta['ranks']} ranks, now there are {self._ranks.size}; "
                f"start it with horovodrun -np {meta['ranks']}, or, as ranks may change in an "
                "elastic job, with --host-discovery-script; or choose another name=..."
            )
        if meta.get("samples", self._samples) != self._samples:
            raise ConfigError(
                f"{path} was trained on {meta['samples']} samples, now there are {self._samples}; "
                "give the same data, or choose another name=..."
            )
        checkpoint.assign(self._variables, arrays, path)
        if path != newest:
            checkpoint.replace_lost(newest, path)
        meta = {"loss": self._loss, **meta}
        # Files that were written before ranks could change.
        samples = meta["step"] * self._training.samples_per_step * meta["ranks"]
        meta.setdefault("done", min(samples, self._samples))
        meta.setdefault("changes", [{"epoch": 1, "samples": 0, "ranks": meta["ranks"]}])
        if meta["ranks"] != self._ranks.size and meta["epoch"] < self._training.epochs:
            self._change_ranks(arrays, meta)
        return arrays, meta

    def _change_ranks(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Fit what another number of ranks has saved, on rank 0, to the present one."""
        place = {"epoch": meta["epoch"] + 1, "samples": meta["done"]}
        before = [change for change in meta["changes"] if change | place != change]
        meta["changes"] = [*before, {**place, "ranks": self._ranks.size}]
        # As at the end of an epoch, each takes the mean of all.
        rows = arrays.pop(STATISTICS, None)
        if rows is not None:
            self._assign_statistics(rows.mean(axis=0))
        # What is left of the epoch are the last of its steps, so that the next one begins in time.
        training, size = self._training, self._ranks.size
        shape = (self._samples, training.samples_per_step, size, training.drop_remainder)
        whole, left = (pipeline.steps_per_epoch(*shape, done) for done in (0, meta["done"]))
        optimizer: Any = self._trainer.optimizer
        made = int(getattr(optimizer, "inner_optimizer", optimizer).iterations)
        meta["ahead"] = (meta["epoch"] + 1) * whole - left - made

    def _take_statistics(self, rows: np.ndarray | None) -> None:
        """``rows`` (ranks, values) on rank 0; None on the others, and where the ranks are equal."""
        if self._ranks.gather(rows is not None)[0]:
            self._assign_statistics(self._summed(rows)[self._ranks.rank])

    def _assign_statistics(self, own: np.ndarray) -> None:
        start = 0
        for variable in self._statistics:
            stop = start + int(np.prod(variable.shape))
            variable.assign(own[start:stop].reshape(variable.shape))
            start = stop

    def _own_row(self) -> np.ndarray:
        """(ranks, values) with this rank's statistics in its row, zeros in the others."""
        own = np.concatenate([np.ravel(variable) for variable in self._statistics])
        rows = np.zeros((self._ranks.size, own.size), np.float32)
        rows[self._ranks.rank] = own
        return rows

    def _summed(self, rows: np.ndarray | None) -> np.ndarray:
        """Each row is zero on all ranks but one, so that the sum is every rank's row."""
        if rows is None:
            rows = np.zeros_like(self._own_row())
        return np.asarray(self._ranks.sum(tf.constant(rows), "checkpoint/statistics"))
