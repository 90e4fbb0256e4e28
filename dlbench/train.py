"""Train a network: ``[horovodrun -np N] python -m dlbench.train [CONFIG.yaml] [key=value ...]``.

Without arguments: SegNet on generated scenes. The sections below stand in the order of the run.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from dlbench import config
from dlbench.checkpoint import CheckpointError
from dlbench.data import DataError

if TYPE_CHECKING:
    import numpy as np

    from dlbench.callbacks import StepClock
    from dlbench.evaluate import Evaluation
    from dlbench.runs import RunFolder
    from dlbench.session import Session


def train(experiment: config.Experiment) -> RunFolder:
    """Run ``experiment`` from data to report and return its folder."""
    # ---- Ranks, data set, network (names and options are checked before TensorFlow is loaded)
    from dlbench import session as sessions

    session = sessions.start(experiment)
    ranks, training = session.ranks, experiment.training

    from dlbench import checkpoint
    from dlbench.bench.memory import PeakMemory
    from dlbench.callbacks import EpochEnd, StepClock
    from dlbench.data import pipeline
    from dlbench.evaluate import evaluate
    from dlbench.runs import RunFolder
    from dlbench.schedule import build_optimizer
    from dlbench.training import Trainer

    folder = RunFolder(experiment.run_folder)
    resume = ranks.rank == 0 and folder.prepare(experiment)

    # ---- Weights to start from
    if experiment.model.pretrained:
        _load_pretrained(session)

    # ---- Step, optimiser, loss
    count = session.dataset.count("train")
    steps = pipeline.steps_per_epoch(count, training.batch, ranks.size, training.drop_remainder)
    trainer = Trainer(
        session.network,
        ranks,
        _class_weights(session),
        0.0 if experiment.optimizer.name == "adamw" else experiment.optimizer.weight_decay,
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
    if ranks.rank == 0:
        _announce(session, folder, steps, len(history))

    # ---- Fit
    clock = StepClock(
        lambda step: len(
            pipeline.rank_share(range(count), step, training.batch, ranks.size, ranks.rank)
        )
    )
    callbacks: list[Any] = [clock, EpochEnd(session, folder, history)]
    if training.tensorboard and ranks.rank == 0:
        import keras

        callbacks.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    with PeakMemory() as memory:
        if len(history) < training.epochs:
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
    evaluation = evaluate(session.network, session.dataset, "val", experiment, ranks)
    measured = ranks.gather(_measured(session, clock, memory.peak_bytes))
    if ranks.rank == 0:
        _report(session, folder, evaluation, history, measured)
    ranks.barrier()
    return folder


def _verbosity(progress: str) -> int:
    """Keras's 1 (a bar) or 2 (a line an epoch); a bar makes no sense in a file or a pipe."""
    if progress == "auto":
        progress = "bar" if sys.stdout.isatty() else "epoch"
    return {"bar": 1, "epoch": 2}[progress]


def _class_weights(session: Session) -> np.ndarray:
    import numpy as np

    from dlbench.data import IGNORE
    from dlbench.training import median_frequency_weights

    settings = session.experiment.training.class_weights
    classes = len(session.dataset.classes)
    if settings.mode == "none":
        return np.ones(classes)
    if settings.mode == "given":
        if len(settings.values) != classes:
            raise config.ConfigError(
                f"training.class_weights.values has {len(settings.values)} weights, "
                f"{session.dataset.name} has {classes} classes"
            )
        values = np.asarray(settings.values)
        return np.minimum(values, settings.maximum) if settings.maximum else values
    pixels, of_images = np.zeros(classes), np.zeros(classes)
    for index in range(session.dataset.count("train")):
        _, target = session.dataset.read("train", index)
        counts = np.bincount(target[target != IGNORE], minlength=classes)
        pixels += counts
        of_images += np.where(counts > 0, counts.sum(), 0)
    return median_frequency_weights(pixels, of_images, settings.maximum)


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


def _measured(session: Session, clock: StepClock, peak_bytes: dict[str, Any]) -> dict[str, Any]:
    """This rank's part of the result record, JSON-ready."""
    import socket

    return {
        "rank": session.ranks.rank,
        "host": socket.gethostname(),
        "samples": clock.samples,
        "wall_s": sum(clock.step_s),
        "step_s": clock.step_s,
        # Not told apart yet: Keras draws the batch inside the compiled step.
        "input_wait_s": None,
        "comm_wait_s": None,
        "peak_bytes": peak_bytes,
    }


def _report(
    session: Session,
    folder: RunFolder,
    evaluation: Evaluation,
    history: list[dict[str, Any]],
    measured: list[dict[str, Any]],
) -> None:
    """Write the record, the tables and the pictures of the best weights (rank 0)."""
    from dlbench import environment, pictures
    from dlbench.report import records

    experiment, dataset, names = session.experiment, session.dataset, session.class_names
    workload = records.Workload(
        id=f"train/{experiment.model.name}/{dataset.name}",
        model=experiment.model.name,
        data=dataset.name,
        precision=experiment.training.precision,
        ranks=session.ranks.size,
        batch_per_rank=experiment.training.batch,
        shape=(*experiment.data.size, len(dataset.bands)) if experiment.data.size else None,
        mode="train",
    )
    best = max((row for row in history if "val_miou" in row), key=lambda row: row["val_miou"])
    record = records.now(
        workload,
        [records.Rank(**part) for part in measured],
        setup=records.setup(described=environment.describe(horovod=session.ranks.describe())),
        quality={"best_epoch": best["epoch"], **evaluation.quality(names)},
    )
    if any(part["samples"] for part in measured):  # an already complete run timed nothing
        records.write(record, folder.record)
    folder.write_confusion(evaluation.confusion.counts, names)
    pictures.confusion_figure(evaluation.confusion, names, folder.picture("confusion"))
    pictures.curve_figure(folder.metrics, folder.picture("curve"))
    _draw_predictions(session, folder)
    _export(session, folder)
    print(f"\nbest epoch: {best['epoch']}\n{evaluation.confusion.table(names)}")
    if record.throughput:
        peaks = [part["peak_bytes"]["host_rss"] or 0 for part in measured]
        print(
            f"{record.throughput:.2f} samples/s on {len(measured)} rank(s); peak memory "
            + ", ".join(f"{peak / 2**30:.2f}" for peak in peaks)
            + " GiB per rank"
        )
    print(f"pictures, record and weights: {folder.path}/", flush=True)


def _draw_predictions(session: Session, folder: RunFolder, count: int = 4) -> None:
    import numpy as np

    from dlbench import pictures
    from dlbench.data.augmentation import fit
    from dlbench.prediction import Predictor

    dataset, total = session.dataset, session.dataset.count("val")
    predictor = Predictor(session.network, session.experiment.monte_carlo_samples)
    chosen = sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(count)})
    samples = [fit(*dataset.read("val", i), session.experiment.data.size) for i in chosen]
    means, variances = zip(*(predictor(image[None]) for image, _ in samples), strict=True)
    pictures.prediction_grid(
        [image for image, _ in samples],
        [target for _, target in samples],
        [np.argmax(mean[0], axis=-1).astype(np.uint8) for mean in means],
        dataset.classes,
        folder.picture("predictions"),
        uncertainties=(
            None
            if variances[0] is None
            else [np.sum(variance[0], axis=-1) for variance in variances]
        ),
    )


def _export(session: Session, folder: RunFolder) -> None:
    """Save the network as one .keras file, free of what belongs to training under Horovod."""
    from dlbench import models

    experiment = session.experiment.model
    plain = models.build(
        experiment.name, session.network.input_shape[1:], len(session.dataset.classes),
        **experiment.options,
    )  # fmt: skip
    plain.set_weights(session.network.get_weights())
    temporary = folder.model.with_name(f".{folder.model.name}")
    plain.save(temporary)
    temporary.replace(folder.model)


def _announce(session: Session, folder: RunFolder, steps: int, epochs_done: int) -> None:
    from dlbench import environment

    experiment, dataset = session.experiment, session.dataset
    folder.write_json(folder.environment, environment.describe(horovod=session.ranks.describe()))
    print(
        f"{experiment.model.name} ({session.network.count_params():,} parameters) on "
        f"{dataset.name} at {dataset.root}: {dataset.count('train')} training and "
        f"{dataset.count('val')} validation samples, {len(dataset.classes)} classes\n"
        f"{session.ranks.size} rank(s) x batch {experiment.training.batch}, {steps} steps an "
        f"epoch, {experiment.training.precision}; results go to {folder.path}/",
        flush=True,
    )
    if epochs_done >= experiment.training.epochs:
        print("the run is complete; resume=false trains it anew", flush=True)
    elif epochs_done:
        print(f"resuming after epoch {epochs_done} of {experiment.training.epochs}", flush=True)


def main(arguments: list[str]) -> int:
    """Parse, train, and return the process's exit status: 2 for what the user can mend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        train(config.load(arguments))
    except (config.ConfigError, DataError, CheckpointError, FloatingPointError) as error:
        rank = os.environ.get("HOROVOD_RANK", "0")
        print(f"dlbench.train (rank {rank}): {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
