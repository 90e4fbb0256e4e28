"""Keras callbacks of a training run: the clock and the profile of its steps, what ends an epoch."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import keras

from dlbench import elastic
from dlbench.bench.energy import EnergyMeter
from dlbench.bench.steps import SKIPPED, TRACED, StepTracer
from dlbench.bench.timing import since_process_start
from dlbench.config import Training
from dlbench.evaluate import Evaluator
from dlbench.metrics import Score
from dlbench.runs import RunFolder
from dlbench.session import Session
from dlbench.state import TrainingState
from dlbench.stopping import StoppedError, StopRequest


class StepClock(keras.callbacks.Callback):
    """Wall time of every training step of this process, input wait included.

    The process's first steps (tracing, first allocation), ``skip`` in number, are left out; so are
    evaluation and checkpoints, between epochs and within. ``share(step)`` tells how many samples a
    step of an epoch has; ``energy`` runs while steps are timed.
    """

    def __init__(
        self, share: Callable[[int], int], skip: int = 1, energy: EnergyMeter | None = None
    ) -> None:
        super().__init__()
        self.step_s: list[float] = []
        self.samples = 0
        self.first_step_s: float | None = None
        """From the start of the process to the end of its first step."""
        self.energy = energy
        self._share = share
        self._skip = skip
        self._since = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.restart()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        float((logs or {})["loss"])  # wait for the device
        now = time.perf_counter()
        if self.first_step_s is None:
            self.first_step_s = since_process_start()
        if self._skip:
            self._skip -= 1
        else:
            self.step_s.append(now - self._since)
            self.samples += self._share(batch)
        self._start(now)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.suspend()

    def suspend(self) -> None:
        """Leave out what follows, up to `restart`."""
        if self.energy:
            self.energy.stop()

    def restart(self) -> None:
        """Time what follows as the next step."""
        self._start(time.perf_counter())

    def _start(self, now: float) -> None:
        self._since = now
        if self.energy and not self._skip:
            self.energy.start()


class Profile(keras.callbacks.Callback):
    """Writes and prints where the time of some steps of an epoch goes; for rank 0 alone, and before
    `EpochEnd`. `DISTURBED` steps of every rank are slower than without it."""

    DISTURBED = SKIPPED + TRACED + 1

    def __init__(self, folder: RunFolder, ranks: int) -> None:
        super().__init__()
        self._folder = folder
        self._tracer: StepTracer | None = StepTracer(ranks)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._tracer:
            self._tracer.begin()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        float((logs or {})["loss"])  # wait for the device
        if self._tracer:
            self._tracer.end()
            self._report()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._tracer:  # evaluation comes next: it is no step
            self._tracer.close()
            self._report()

    def tell_if_untraced(self) -> None:
        """To be called when the training is over."""
        if self._tracer:
            print(f"profile=true: no step was traced; the first {SKIPPED} never are", flush=True)

    def _report(self) -> None:
        if self._tracer and self._tracer.result:
            text = self._tracer.result.markdown()
            self._folder.write_text(self._folder.profile, text)
            print(f"\n{text}", flush=True)
            self._tracer = None


WORTH_SAVING_S = 60.0
"""Of training that a death during an evaluation would cost: longer epochs are saved before it."""


class EpochEnd(keras.callbacks.Callback):
    """Averages statistics, evaluates, saves checkpoints and history, and stops early.

    All ranks walk through it alike; rank 0 alone writes. The history travels in the checkpoint, and
    what follows from it (the best score, patience) is derived, so a resumed run goes on exactly.
    """

    def __init__(
        self,
        session: Session,
        evaluator: Evaluator,
        state: TrainingState,
    ) -> None:
        super().__init__()
        self._evaluator = evaluator
        self._score = session.task.score
        self._training = session.experiment.training
        self._state = state
        self._begun = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        training, history = self._training, self._state.history
        self.model.average_statistics()
        row: dict[str, Any] = {"epoch": epoch + 1, "loss": float(logs["loss"])}
        self._state.require_convergence(row["loss"])
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        if (unreadable := self._state.count_unreadable()) is not None:
            row["unreadable"] = unreadable
        if elastic.is_elastic():
            row["ranks"] = self._state.ranks_of_epoch()
        history.append(row)
        part = self._state.first > 0  # of an epoch: whole ones are another call of `fit`
        if (epoch + 1) % training.evaluate_every == 0 or epoch + 1 == training.epochs:
            if time.monotonic() - self._begun > WORTH_SAVING_S:
                self._state.save_epoch(unevaluated=True)
            logs |= self.evaluate()
        else:
            self._state.save_epoch()
        if part or is_complete(history, training, self._score):
            self.model.stop_training = True

    def evaluate(self) -> dict[str, float]:
        """The scores of the epoch that the history ends with, which is saved with them."""
        scores = self._evaluator().scores()
        self._state.history[-1] |= scores
        self._state.save_epoch()
        return scores


class Position(keras.callbacks.Callback):
    """Within an epoch: a checkpoint every so many steps, and the end that was asked for.

    All ranks end after the same step, in which they have told each other. In an elastic job hosts
    that come or go ask for it too, and only those that got a signal leave for good. To stand behind
    all others, which see the whole of an epoch.
    """

    def __init__(
        self,
        session: Session,
        state: TrainingState,
        stop: StopRequest,
        clock: StepClock,
    ) -> None:
        super().__init__()
        self._ranks = session.ranks
        self._training, self._score = session.experiment.training, session.task.score
        self._every = self._training.checkpoint_every
        self._again = "the same command"
        if not session.experiment.resume:
            self._again += " without resume=false"
        self._state = state
        self._stop = stop
        self._clock = clock

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._state.begin_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._stop.received or elastic.have_hosts_changed():
            self.model.stopping.assign(1.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        done = self._state.first + batch + 1
        self._state.require_finite(float((logs or {})["loss"]), done)
        self._state.require_written()
        if batch + 1 == self._state.steps_left():
            return  # the epoch's own end is next
        if self.model.all_stop or (self._every and done % self._every == 0):
            self._clock.suspend()
            self._state.save_step(done)
            self._clock.restart()
        if self.model.all_stop:
            self._leave(f"step {done} of epoch {len(self._state.history) + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # What is left of a run that is complete are its scores: that takes no other ranks.
        if self.model.all_stop and not (elastic.is_elastic() and self._is_complete()):
            self._leave(f"epoch {epoch + 1}")

    def _is_complete(self) -> bool:
        return is_complete(self._state.history, self._training, self._score)

    def _leave(self, place: str) -> None:
        self._state.wait()
        # The launcher ends the others soon after the first.
        self._ranks.barrier()
        if elastic.is_elastic() and self._stop.received is None:
            if self._ranks.rank == 0:
                print(f"hosts come or go: saved after {place}", flush=True)
            self._ranks.leave()
            raise elastic.RanksChangedError
        if self._ranks.rank == 0:
            print(f"stopped and saved after {place}; {self._again} goes on there", flush=True)
        # Of another rank's signal it is known that there was one.
        raise StoppedError(self._stop.received or signal.SIGTERM)


def is_complete(history: list[dict[str, Any]], training: Training, score: Score) -> bool:
    """Whether a run with this history has made all its epochs or has been stopped early."""
    stopped = training.early_stop and score.evaluations_since_best(history) >= training.early_stop
    return bool(stopped) or len(history) >= training.epochs
