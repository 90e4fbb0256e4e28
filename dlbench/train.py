"""Train a network: ``[horovodrun -np N] python -m dlbench.train [CONFIG.yaml] [key=value ...]``.

Without arguments: SegNet on generated scenes. The sections below stand in the order of the run.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench import config
from dlbench.errors import exit_status

if TYPE_CHECKING:
    from dlbench.runs import RunFolder
    from dlbench.session import Session


def train(experiment: config.Experiment) -> RunFolder:
    """Run ``experiment`` from data to report and return its folder."""
    # ---- Ranks, data set, network (names and options are checked before TensorFlow is loaded)
    from dlbench import session as sessions

    session = sessions.start(experiment)
    ranks, training, score = session.ranks, experiment.training, session.task.score

    from dlbench import checkpoint
    from dlbench.bench.energy import EnergyMeter
    from dlbench.bench.memory import PeakMemory
    from dlbench.callbacks import EpochEnd, Profile, StepClock, is_complete
    from dlbench.data import pipeline
    from dlbench.evaluate import Evaluator
    from dlbench.results import export, measured_by_rank, write_report
    from dlbench.runs import RunFolder
    from dlbench.schedule import build_optimizer
    from dlbench.training import Trainer, draw_own_dropout

    folder = RunFolder(experiment.run_folder)
    resume = ranks.rank == 0 and folder.prepare(experiment)

    # ---- Weights to start from
    if experiment.model.pretrained:
        _load_pretrained(session)

    # ---- Step, optimiser, loss
    count = session.dataset.count("train")
    likely = sessions.sampling_probabilities(session)
    steps = pipeline.steps_per_epoch(count, training.batch, ranks.size, training.drop_remainder)
    trainer = Trainer(
        session.network,
        ranks,
        session.task.loss(training),
        0.0 if experiment.optimizer.name == "adamw" else experiment.optimizer.weight_decay,
        training.recompute,
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
    history: list[dict[str, Any]] = []
    variables = checkpoint.variables_of(session.network, optimizer)
    if resume:
        history = _restore(folder, variables, ranks.size)
    history = ranks.gather(history)[0]
    ranks.broadcast(list(variables.values()))
    draw_own_dropout(session.network, ranks.rank)
    if ranks.rank == 0:
        _announce(session, folder, steps, len(history), is_complete(history, training, score))

    # ---- Fit
    evaluator = Evaluator(session, "val")
    order = np.arange(count)
    clock = StepClock(
        lambda step: len(pipeline.rank_share(order, step, training.batch, ranks.size, ranks.rank)),
        skip=Profile.DISTURBED if experiment.profile else 1,
        energy=EnergyMeter.of_node(ranks.local_rank, ranks.local_size),
    )
    callbacks: list[Any] = [clock]
    if experiment.profile and ranks.rank == 0:
        callbacks.append(Profile(folder, ranks.size))
    callbacks.append(EpochEnd(session, evaluator, folder, history))
    if training.tensorboard and ranks.rank == 0:
        import keras

        callbacks.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    with PeakMemory.of_rank(ranks.local_rank) as memory:
        if not is_complete(history, training, score):
            batches = pipeline.training_batches(
                session.dataset,
                batch=training.batch,
                ranks=ranks.size,
                rank=ranks.rank,
                seed=experiment.seed,
                epochs_from=(len(history), 0),
                augmentation=experiment.data.augmentation,
                size=experiment.data.size,
                cache=experiment.data.cache,
                workers=experiment.data.workers,
                drop_remainder=training.drop_remainder,
                likely=likely,
            )
            trainer.fit(
                batches,
                steps_per_epoch=steps,
                epochs=training.epochs,
                initial_epoch=len(history),
                callbacks=callbacks,
                shuffle=False,  # the pipeline orders the samples
                verbose=_verbosity(training.progress) if ranks.rank == 0 else 0,
            )

    # ---- Score the best weights, write the report
    sessions.restore(session, folder.checkpoint("best"))
    evaluation = evaluator()
    measured = ranks.gather(measured_by_rank(session, clock, trainer.waits, memory))
    if ranks.rank == 0:
        export(session, folder)
        write_report(session, folder, evaluation, history, measured)
    ranks.barrier()
    return folder


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


def _restore(folder: RunFolder, variables: dict[str, Any], ranks: int) -> list[dict[str, Any]]:
    from dlbench import checkpoint

    path = folder.checkpoint("last")
    arrays, meta = checkpoint.load(path)
    if meta["ranks"] != ranks:
        raise config.ConfigError(
            f"{path} was trained on {meta['ranks']} ranks, now there are {ranks}; start it with "
            f"horovodrun -np {meta['ranks']}, or choose another name=..."
        )
    checkpoint.assign(variables, arrays, path)
    history: list[dict[str, Any]] = meta["history"]
    return history


def _announce(
    session: Session, folder: RunFolder, steps: int, epochs_done: int, complete: bool
) -> None:
    from dlbench import environment
    from dlbench.data.facts import facts

    experiment, dataset = session.experiment, session.dataset
    folder.write_json(folder.dataset, facts(dataset).model_dump(mode="json"))
    folder.write_json(folder.environment, environment.describe(horovod=session.ranks.describe()))
    print(
        f"{experiment.model.name} ({session.network.count_params():,} parameters) on "
        f"{dataset.name} at {dataset.root}: {dataset.count('train')} training and "
        f"{dataset.count('val')} validation samples, {len(dataset.outputs)} outputs a pixel\n"
        f"{session.ranks.size} rank(s) x batch {experiment.training.batch}, {steps} steps an "
        f"epoch, {experiment.training.precision}; results go to {folder.path}/",
        flush=True,
    )
    if complete:
        print("the run is complete; resume=false trains it anew", flush=True)
    elif epochs_done:
        print(f"resuming after epoch {epochs_done} of {experiment.training.epochs}", flush=True)


def main(arguments: list[str]) -> int:
    """Parse, train, and return the process's exit status: 2 for what the user can mend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return exit_status("dlbench.train", lambda: train(config.load(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
