"""What a finished run leaves in its folder: the result record, tables, pictures, the model."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from typing import IO, Any

from dlbench import elastic, environment, models, pictures
from dlbench.bench import conditions, energy
from dlbench.bench.memory import PeakMemory
from dlbench.bench.split import Waits
from dlbench.callbacks import StepClock
from dlbench.checkpoint import AbsentError, DamagedError, load_newest, write_atomically
from dlbench.data.augmentation import fit
from dlbench.prediction import Predictor
from dlbench.report import page, records
from dlbench.runs import RunFolder
from dlbench.session import Session, restore
from dlbench.tasks import Evaluation

PICTURED = 4
"""Validation samples in the picture of predictions, spread evenly over the split."""


def measured_by_rank(
    session: Session, clock: StepClock, waits: Waits, memory: PeakMemory, saving_s: float
) -> dict[str, Any]:
    """This rank's part of the result record, JSON-ready, and of a node's first rank its energy."""
    measured: dict[str, Any] = {
        "rank": session.ranks.rank,
        "host": socket.gethostname(),
        "samples": clock.samples,
        "wall_s": sum(clock.step_s),
        "step_s": clock.step_s,
        **waits.within(clock.step_s),
        # Unknown of a process in whose place another began.
        "first_step_s": None if elastic.is_again() else clock.first_step_s,
        "peak_bytes": memory.peak_bytes,
        "conditions": {**memory.conditions, "checkpoint_wait_s": saving_s},
    }
    if clock.energy is not None:
        measured[energy.NODE] = clock.energy.joules
        measured["conditions"]["energy_sources"] = clock.energy.sources
    return measured


def restore_best(
    session: Session, folder: RunFolder, history: list[dict[str, Any]], is_new: bool
) -> int | None:
    """Put the best weights into the network, on every rank.

    Where they are lost and the run ``is_new`` or without a record, its newest checkpoint stands in,
    whose epoch is returned, to rank 0. Raises `CheckpointError`.
    """

    def require_same_course(meta: dict[str, Any]) -> None:
        """Where rank 0 died between the two files, the epoch was trained anew, maybe on other ranks
        and worse."""
        # As text: what is no number does not equal itself.
        if json.dumps(meta["history"]) != json.dumps(history[: meta["epoch"]]):
            raise DamagedError(
                f"{folder.checkpoint('best')} holds an epoch {meta['epoch']} that the run has gone "
                "back behind and trained anew"
            )

    try:
        restore(session, folder.checkpoint("best"), require_same_course)
    except (AbsentError, DamagedError) as error:
        # On rank 0, which alone reads; the others wait for its weights.
        if not is_new and folder.record.exists():
            raise
        _, meta, path = load_newest(folder.checkpoint("last"), _warn)
        _warn(f"warning: {error}. The report is on the newest checkpoint, {path}")
        restore(session, path)
        return int(meta["epoch"])
    return None


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_report(
    session: Session,
    folder: RunFolder,
    evaluation: Evaluation,
    history: list[dict[str, Any]],
    measured: list[dict[str, Any]],
    changes: list[dict[str, int]],
    epoch: int | None = None,
) -> None:
    """Write and print what the run achieved with its best weights, or those of the ``epoch`` that
    `restore_best` told; rank 0 alone.

    A run that was complete already has timed nothing and keeps the record that it has; one that
    died before it had any gets it now, without a speed. A record without its page gets that.
    """
    best = session.task.score.best(history)
    assert best is not None  # the last epoch is always evaluated
    quality: dict[str, Any] = {"best_epoch": best["epoch"]}
    if epoch is not None and epoch != best["epoch"]:
        quality = {"epoch": epoch, "lost_best_epoch": best["epoch"]}
    if len(changes) > 1:
        quality["rank_changes"] = changes
    lines = ["", _told(quality), evaluation.table()]
    if any(part["samples"] for part in measured) or not folder.record.exists():
        record = _record(session, measured, {**quality, **evaluation.quality()})
        folder.summary.unlink(missing_ok=True)  # that of another record
        records.write(record, folder.record)
        peaks = [(part["peak_bytes"]["host_rss"] or 0) / 2**30 for part in measured]
        speed = record.throughput
        timed = "no step was timed" if speed is None else f"{speed:.2f} samples/s"
        lines.append(
            f"{timed} on {len(measured)} rank(s); peak memory per rank "
            + ", ".join(f"{peak:.2f} GiB" for peak in peaks)
        )
        if (saving_s := measured[0].get("conditions", {}).get("checkpoint_wait_s")) is not None:
            lines.append(f"training stood still for checkpoints: {saving_s:.2f} s in all")
    # After the record, which no defect of the page may cost.
    if not folder.summary.exists():
        folder.write_text(folder.summary, _summary(records.read(folder.record)))
    session.task.write(evaluation, folder)
    # They are there, unless they were lost since.
    folder.write_rows(folder.metrics, history)
    pictures.curve_figure(folder.metrics, folder.picture("curve"), session.task.score)
    _draw_predictions(session, folder)
    lines.append(f"pictures, record and weights: {folder.path}/")
    print("\n".join(lines), flush=True)


def _summary(record: records.Record) -> str:
    quality = record.quality
    is_to_be_told = "lost_best_epoch" in quality or "rank_changes" in quality
    return page.markdown(record) + (f"\n{_told(quality)}\n" if is_to_be_told else "")


def _told(quality: Mapping[str, Any]) -> str:
    if "lost_best_epoch" in quality:
        told = (
            f"best epoch: {quality['lost_best_epoch']}, whose weights are lost; scored and "
            f"exported: those of epoch {quality['epoch']}"
        )
    else:
        told = f"best epoch: {quality['best_epoch']}"
    if changes := quality.get("rank_changes"):
        places = [f"{c['ranks']} from epoch {c['epoch']}, sample {c['samples']:,}" for c in changes]
        told += f"; ranks: {'; '.join(places)}; speed and memory are those of the last"
    return told


def export(session: Session, folder: RunFolder) -> None:
    """Save the network as one .keras file, free of what belongs to training under Horovod."""
    experiment = session.experiment.model
    plain = models.build(
        experiment.name,
        session.network.input_shape[1:],
        len(session.dataset.outputs),
        value_range=session.dataset.value_range,
        **experiment.options,
    )
    plain.set_weights(session.network.get_weights())
    temporary = folder.path / f".{folder.model.name}"  # Keras insists on the suffix

    def write(file: IO[bytes]) -> None:
        plain.save(temporary)
        file.write(temporary.read_bytes())

    try:
        write_atomically(folder.model, write)
    finally:
        temporary.unlink(missing_ok=True)


def _record(
    session: Session, measured: list[dict[str, Any]], quality: dict[str, Any]
) -> records.Record:
    experiment, dataset = session.experiment, session.dataset
    size, training = experiment.data.size, experiment.training
    several = training.accumulate_steps
    accumulated = "" if several == 1 else f"/accumulate-{several}"
    workload = records.Workload(
        # No repeat of a run whose ranks were the same ones all along.
        id=f"train/{experiment.model.name}/{dataset.name}{accumulated}"
        + ("/elastic" if "rank_changes" in quality else ""),
        model=experiment.model.name,
        data=dataset.name,
        precision=training.precision,
        ranks=session.ranks.size,
        batch_per_rank=training.samples_per_step,
        shape=(*size, len(dataset.bands)) if size else None,
        mode="train",
    )
    described = environment.describe(horovod=session.ranks.describe())
    energy_j = energy.of_all_nodes(measured)
    return records.now(
        workload,
        [records.Rank(**part) for part in conditions.settled(measured)],
        setup=records.setup(described=described),
        energy_j=energy_j,
        quality=quality,
        configuration=experiment.model_dump(mode="json"),
    )


def _draw_predictions(session: Session, folder: RunFolder) -> None:
    dataset, count = session.dataset, session.dataset.count("val")
    predictor = Predictor(
        session.network,
        session.task.activation,
        samples=session.experiment.monte_carlo_samples,
    )
    chosen = sorted({round(i * (count - 1) / (PICTURED - 1)) for i in range(PICTURED)})
    samples = [fit(*dataset.read("val", i), session.experiment.data.size) for i in chosen]
    drawn = [predictor(image[None]) for image, _ in samples]
    variances = [variance[0].numpy() for _, variance in drawn if variance is not None]
    session.task.draw(
        [image for image, _ in samples],
        [target for _, target in samples],
        [mean[0].numpy() for mean, _ in drawn],
        variances or None,
        folder.picture("predictions"),
    )
