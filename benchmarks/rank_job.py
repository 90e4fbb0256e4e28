"""What every rank of a measured job does: ``python -m benchmarks.rank_job SPEC.json FOUND.json``,
alone or under ``horovodrun -np N``.

Rank 0 fixes how many steps all ranks make, and writes FOUND.json: the measurements of each rank, as
`dlbench.report.records.Rank` has them, and the scores that were checked.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import planted, sums, training_cases
from benchmarks.launching import Spec
from dlbench import compression
from dlbench.bench import conditions, energy, timing
from dlbench.bench.memory import PeakMemory
from dlbench.checkpoint import write_atomically
from dlbench.session import Session

Waits = dict[str, float | None]
WRONG_PLACES = 0.005
"""Share of a prediction that may differ from the network's as it is built."""
WRONG_PLACES_OF = {("segnet_basic", "mixed_bfloat16"): 0.1}
"""Where more may. In bfloat16, folding changes the place of the maximum in 0.1, 0.3 and 0.6 % of
the windows of SegNet-Basic's last three pools, and its 7 x 7 convolutions spread that over 5 to 6 %
of the values (both measured at 2 x 180 x 240 with AMX)."""


@dataclass
class Job:
    """A step that returns when it is done, and what is to be known of its repetitions."""

    step: Callable[[], Any]
    check: Callable[[Sequence[Any]], dict[str, Any]]
    """Of what the first and the last step returned: the scores; an assertion fails where they are
    wrong."""
    waits: Callable[[Sequence[float]], Waits]
    """Of the seconds of the measured steps, the last ones: what `Rank` calls its waits."""


def train(session: Session, sums_overlap: bool | None = None) -> Job:
    """Training steps on a batch that lies in memory; sums beside the backward pass or after it,
    by default as in a run."""
    if sums_overlap is not None:
        session.ranks.sums_overlap = sums_overlap
    trainer = training_cases.trainer_of(session)
    batches = training_cases.synthetic_batches(session)

    def check(losses: Sequence[float]) -> dict[str, Any]:
        assert np.isfinite(losses).all(), losses
        assert len(losses) < 2 or losses[-1] < losses[0], f"nothing is learnt: {losses}"
        everywhere = session.ranks.gather(losses[-1])
        assert len(set(everywhere)) == 1, f"the ranks' losses differ: {everywhere}"
        return {"first_loss": losses[0], "mean_loss": losses[-1]}

    step = training_cases.training_step(trainer, iter(batches))
    return Job(step, check, trainer.waits.within)


def inference(session: Session) -> Job:
    """Predictions for the batch in memory, with the weights that the network starts with."""
    import tensorflow as tf

    from dlbench.prediction import Predictor

    predictor = Predictor(session.network, session.task.activation, frozen=True)
    image, target = training_cases.synthetic_batch(session)

    def predict() -> tf.Tensor:
        prediction, _ = predictor(image)
        tf.test.experimental.sync_devices()
        return prediction

    def check(predictions: Sequence[tf.Tensor]) -> dict[str, Any]:
        found = predictions[-1].numpy()
        # The network as it is built, its batch-norms not yet folded into its convolutions.
        output = session.network(image, training=False)
        wanted = session.task.activation(tf.cast(output, tf.float32)).numpy()
        assert found.shape == (*target.shape[:3], len(session.dataset.outputs))
        precision = session.experiment.training.precision
        tolerance = (1e-3 if precision == "float32" else 0.1) * np.abs(wanted).max()
        # Not all: where two values of a pool are all but equal, rounding chooses the place.
        wrong = float(np.mean(np.abs(found - wanted) > tolerance))
        most = WRONG_PLACES_OF.get((session.experiment.model.name, precision), WRONG_PLACES)
        assert wrong < most, f"{wrong:.2%} of the values differ by more than {tolerance}"
        assert np.isfinite(found).all()
        return {}

    return Job(predict, check, lambda step_s: {"input_wait_s": 0.0, "comm_wait_s": 0.0})


def allreduce(session: Session) -> Job:
    """Sums over ranks of tensors of the network's gradients' shapes, as a training step asks for
    them: of all variables, in the configured compression."""
    import tensorflow as tf

    ranks = session.ranks
    generator = np.random.default_rng(0)
    # Whole numbers: their sums are exact, in half precision too.
    bases = [
        generator.integers(-1, 2, variable.shape).astype(np.float32)
        for variable in session.network.trainable_variables
    ]
    mine = [tf.constant(base * (ranks.rank + 1)) for base in bases]

    @tf.function
    def reduce(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return ranks.sum_gradients(tensors, [f"sum/{i}" for i in range(len(tensors))])

    def step() -> list[tf.Tensor]:
        sums: list[tf.Tensor] = reduce(mine)
        tf.test.experimental.sync_devices()
        return sums

    def check(results: Sequence[list[tf.Tensor]]) -> dict[str, Any]:
        factor = ranks.size * (ranks.size + 1) / 2
        for found, base in zip(results[-1], bases, strict=True):
            np.testing.assert_array_equal(found.numpy(), factor * base)
        return {}

    def waits(step_s: Sequence[float]) -> Waits:
        return {"input_wait_s": 0.0, "comm_wait_s": sum(step_s)}

    return Job(step, check, waits)


def gradients(session: Session) -> dict[str, int | bool]:
    """How many tensors a rank sends in a training step, their bytes on the way, and whether it
    sends them while the backward pass makes others."""
    values = [int(np.prod(v.shape)) for v in session.network.trainable_variables]
    whole = session.experiment.distributed.compression == "none"
    widths = [4 if whole or count <= compression.SMALL else 2 for count in values]
    return {
        "tensors": len(values),
        "bytes": int(np.dot(widths, values)),
        "sums_overlap": session.ranks.sums_overlap,
    }


KINDS: dict[str, Callable[[Session], Job]] = {
    "train": train,
    "train_and_sum": partial(train, sums_overlap=True),
    "train_then_sum": partial(train, sums_overlap=False),
    "inference": inference,
    "allreduce": allreduce,
}


def run(spec: Spec) -> tuple[int, dict[str, Any]]:
    """Measure on this rank; return its number and what FOUND.json holds: the measurements of all
    ranks, the scores, the configuration, and how many gradients with how many values the network
    has."""
    with training_cases.opened(spec.experiment) as session:
        ranks = session.ranks
        warmup, steps = ranks.gather([spec.warmup, spec.steps])[0]
        meter = energy.EnergyMeter.of_node(ranks.local_rank, ranks.local_size)
        with PeakMemory.of_rank(ranks.local_rank) as memory:
            job = KINDS[spec.kind](session)
            returned: list[Any] = []
            first_step_s: list[float] = []

            def once() -> None:
                del returned[1:]  # the first and the last alone: predictions are large
                returned.append(job.step())
                if not first_step_s:
                    first_step_s.append(timing.since_process_start())

            step = planted.step(spec.workload, once, ranks.rank)
            for _ in range(warmup):
                step()
            ranks.barrier()
            with meter or nullcontext():
                begun = time.time()
                measured = timing.measure(step, steps)
                ended = time.time()
            planted.grow(spec.workload, ranks.rank)
        quality = job.check(returned)
        mine: dict[str, Any] = {
            "rank": ranks.rank,
            "host": socket.gethostname(),
            "samples": session.experiment.training.samples_per_step * steps,
            "wall_s": measured.wall_s,
            "step_s": measured.step_s,
            **job.waits(measured.step_s),
            "first_step_s": first_step_s[0],
            "peak_bytes": memory.peak_bytes,
            "conditions": {
                **memory.conditions,
                "threads": session.experiment.training.threads,
                "collectives": ranks.describe()["backend"],
                "planted": [fault.text for fault in planted.of(spec.workload, ranks.rank)],
            },
        }
        if spec.kind == "train":
            mine["conditions"] |= {
                "steps_at": [begun, ended],
                "gradients": gradients(session),
                "sums": sums.measure(ranks) if ranks.size > 1 else None,
            }
        if meter is not None:
            mine[energy.NODE] = meter.joules
            mine["conditions"]["energy_sources"] = meter.sources
        everyone = ranks.gather(mine)
        variables = session.network.trainable_variables
        return ranks.rank, {
            "energy_j": energy.of_all_nodes(everyone),
            "ranks": conditions.settled(everyone),
            "quality": quality,
            "configuration": session.experiment.model_dump(mode="json"),
            "tensors": len(variables),
            "values": sum(int(np.prod(variable.shape)) for variable in variables),
        }


def main(given: Path, found: Path) -> None:
    rank, result = run(Spec(**json.loads(given.read_text())))
    if rank == 0:
        text = json.dumps(result).encode()
        write_atomically(found, lambda file: file.write(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
