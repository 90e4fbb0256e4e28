"""Train a network: ``[horovodrun -np N] python -m dlbench.train [CONFIG.yaml] [key=value ...]``.

Without arguments: SegNet on generated scenes. The sections below stand in the order of the run.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench import config, elastic, fencing, processes, rendezvous, supervise
from dlbench.errors import FINAL

if TYPE_CHECKING:
    from dlbench.runs import RunFolder
    from dlbench.session import Session
    from dlbench.state import TrainingState


def train(experiment: config.Experiment) -> RunFolder:
    """Run ``experiment`` from data to report and return its folder."""
    # ---- Ranks, data set, network (names and options are checked before TensorFlow is loaded)
    from dlbench import session as sessions
    from dlbench.runs import RunFolder

    session = sessions.start(experiment)
    elastic.met(session.ranks)
    folder = RunFolder(experiment.run_folder)
    with ExitStack() as ends:
        if session.ranks.rank == 0:
            ends.enter_context(folder.alone(_patience_s()))
        _train(session, folder, ends)
    return folder


def _train(session: Session, folder: RunFolder, ends: ExitStack) -> None:
    experiment, ranks = session.experiment, session.ranks
    training, score = experiment.training, session.task.score

    from dlbench import session as sessions
    from dlbench.bench.energy import EnergyMeter
    from dlbench.bench.memory import PeakMemory
    from dlbench.callbacks import EpochEnd, Position, Profile, StepClock, is_complete
    from dlbench.data import pipeline
    from dlbench.evaluate import Evaluator
    from dlbench.results import export, measured_by_rank, restore_best, write_report
    from dlbench.schedule import build_optimizer
    from dlbench.state import TrainingState
    from dlbench.stopping import StopRequest
    from dlbench.training import Trainer

    resume = ranks.rank == 0 and folder.prepare(experiment)

    # ---- Weights to start from
    if experiment.model.pretrained:
        _load_pretrained(session)

    # ---- Step, optimiser, loss
    sessions.require_same_samples(session, "train")
    count = session.dataset.count("train")
    likely = sessions.sampling_probabilities(session)
    batch = training.samples_per_step
    steps = pipeline.steps_per_epoch(count, batch, ranks.size, training.drop_remainder)
    trainer = Trainer(
        session.network,
        ranks,
        sessions.counted_once(ranks, lambda: session.task.loss(training)),
        0.0 if experiment.optimizer.name == "adamw" else experiment.optimizer.weight_decay,
        training.recompute,
        batch,
        training.accumulate_steps,
        one_size=experiment.data.size is not None,
    )
    optimizer = build_optimizer(
        experiment.optimizer,
        steps_per_epoch=steps,
        epochs=training.epochs,
        ranks=ranks.size,
        precision=training.precision,
    )
    optimizer.build(session.network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)

    # ---- Resume: rank 0 reads, all ranks receive
    skip = experiment.data.on_unreadable == "skip"
    unreadable = pipeline.Unreadable() if skip else None
    state = ends.enter_context(TrainingState(session, trainer, folder, unreadable))
    state.start(resume)
    if ranks.rank == 0:
        _announce(session, folder, steps, state)

    # ---- Fit
    order = np.arange(count)

    def share(step: int) -> int:
        done = state.begun + step * batch * ranks.size
        return len(pipeline.rank_share(order, done, batch, ranks.size, ranks.rank))

    clock = StepClock(
        share,
        skip=Profile.DISTURBED if experiment.profile else 1,
        energy=EnergyMeter.of_node(ranks.local_rank, ranks.local_size),
    )
    evaluator = Evaluator(session, "val")
    profile = Profile(folder, ranks.size) if experiment.profile and ranks.rank == 0 else None
    callbacks: list[Any] = [clock, *([profile] if profile else [])]
    epoch_end = EpochEnd(session, evaluator, state)
    callbacks.append(epoch_end)
    if training.tensorboard and ranks.rank == 0:
        import keras

        callbacks.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    with PeakMemory.of_rank(ranks.local_rank) as memory, StopRequest() as stop:
        callbacks.append(Position(session, state, stop, clock))
        if state.unevaluated:
            epoch_end.evaluate()
        # What is left of an epoch that was interrupted, then whole ones.
        while not is_complete(state.history, training, score):
            batches = pipeline.training_batches(
                session.dataset,
                batch=batch,
                ranks=ranks.size,
                rank=ranks.rank,
                seed=experiment.seed,
                epochs_from=(len(state.history), state.begun),
                augmentation=experiment.data.augmentation,
                size=experiment.data.size,
                cache=experiment.data.cache,
                workers=experiment.data.workers,
                drop_remainder=training.drop_remainder,
                likely=likely,
                unreadable=unreadable,
            )
            trainer.fit(
                batches,
                steps_per_epoch=state.steps_left(),
                epochs=training.epochs,
                initial_epoch=len(state.history),
                callbacks=callbacks,
                verbose=_verbosity(training.progress) if ranks.rank == 0 else 0,
            )
        state.wait()
    if profile:
        profile.tell_if_untraced()

    # ---- Score the best weights, write the report
    epoch = restore_best(session, folder, state.history, is_new=bool(clock.step_s))
    evaluation = evaluator()
    measured = ranks.gather(measured_by_rank(session, clock, trainer.waits, memory, state.saving_s))
    if ranks.rank == 0:
        export(session, folder)
        write_report(session, folder, evaluation, state.history, measured, state.changes, epoch)
    ranks.barrier()


def _patience_s() -> float:
    """How long ranks before these may still hold the run folder: of an elastic job, on other hosts
    than their launcher, or of a start before under the same supervisor."""
    if elastic.is_again() or not rendezvous.is_here():
        return fencing.handover_s()
    return processes.grace_s() + supervise.BEYOND if FINAL in os.environ else 0.0


def _batch(training: config.Training) -> str:
    batch, several = f"batch {training.batch}", training.accumulate_steps
    return batch if several == 1 else f"{batch} x {several} micro-batches"


def _verbosity(progress: str) -> int:
    """Keras's 1 (a bar) or 2 (a line an epoch); a bar makes no sense in a file or a pipe."""
    if progress == "auto":
        progress = "bar" if sys.stdout.isatty() else "epoch"
    return {"bar": 1, "epoch": 2}[progress]


def _load_pretrained(session: Session) -> None:
    from pathlib import Path

    from dlbench.models.segnet import load_vgg16_encoder

    assert session.experiment.model.pretrained
    message = load_vgg16_encoder(session.network, Path(session.experiment.model.pretrained))
    if session.ranks.rank == 0:
        print(message, flush=True)


def _announce(session: Session, folder: RunFolder, steps: int, state: TrainingState) -> None:
    from dlbench import environment
    from dlbench.callbacks import is_complete
    from dlbench.data.facts import facts

    experiment, dataset = session.experiment, session.dataset
    is_over = is_complete(state.history, experiment.training, session.task.score)
    is_over = is_over and not state.unevaluated
    if not is_over:  # else they are of those that made the steps
        described = environment.describe(horovod=session.ranks.describe())
        folder.write_json(folder.dataset, facts(dataset).model_dump(mode="json"))
        folder.write_json(folder.environment, described)
    is_begun = bool(state.history or state.step)
    if not (elastic.is_again() and is_begun):
        print(
            f"{experiment.model.name} ({session.network.count_params():,} parameters) on "
            f"{dataset.name} at {dataset.root}: {dataset.count('train')} training and "
            f"{dataset.count('val')} validation samples, {len(dataset.outputs)} outputs a pixel\n"
            f"{session.ranks.size} rank(s) x {_batch(experiment.training)}, {steps} steps an "
            f"epoch, {experiment.training.precision}; results go to {folder.path}/",
            flush=True,
        )
    epochs = f"epoch {len(state.history)} of {experiment.training.epochs}"
    before = state.ranks_before()
    if is_over:
        print("the run is complete; resume=false trains it anew", flush=True)
    elif is_begun and (elastic.is_again() or before != session.ranks.size):
        print(
            f"{before} -> {session.ranks.size} ranks at epoch {len(state.history) + 1}, "
            f"{state.done:,} of {dataset.count('train'):,} samples done",
            flush=True,
        )
    elif state.step:
        print(f"resuming after {epochs} and {state.step} steps of the next", flush=True)
    elif state.history:
        first = ", which is to be evaluated first" if state.unevaluated else ""
        print(f"resuming after {epochs}{first}", flush=True)


def main(arguments: list[str]) -> int:
    """Parse, train, and return the process's exit status: 2 for what the user can mend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return elastic.run("dlbench.train", lambda: train(config.load(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
