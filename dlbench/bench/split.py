"""The split of a training step: waiting for input, waiting for other ranks, and its own work.

Instants are taken inside the step's graph, by ops that depend on what they wait for; nothing
depends on them, so no other op runs earlier or later for it. On a GPU such an op knows when work
was enqueued, not when it was done: what its steps wait for other ranks stays unknown (None), and
`dlbench.bench.steps` traces it. A step's input arrives on the host, and is known there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

INPUT, COMMUNICATION = "input_wait_s", "comm_wait_s"
"""What a step's graph returns beside its logs: seconds, float64, ()."""


def stamp(*after: Any) -> Any:
    """The instant at which all tensors ``after`` are there: seconds since 1970, float64, ().

    Stamps of a graph are taken in the order of their calls. Call it before building what uses
    the tensors, which would else be begun first.
    """
    import tensorflow as tf

    with tf.device("CPU:0"), tf.control_dependencies(tf.nest.flatten(after)):
        return tf.timestamp()


class Waits:
    """How long each step of a training function has waited, all steps in order.

    trainer.make_train_function()
    step_s = [...]                  # measured around trainer.train_function, synchronised
    Rank(step_s=step_s, **trainer.waits.within(step_s), ...)
    """

    def __init__(self) -> None:
        self.input_s: list[float] = []
        self.comm_s: list[float | None] = []

    def observe(
        self, train_function: Callable[[Any], dict[str, Any]]
    ) -> Callable[[Any], dict[str, Any]]:
        """``train_function`` whose waits are noted here, and no part of the logs that Keras shows;
        without `COMMUNICATION` among them it is unknown."""

        def observed(batches: Any) -> dict[str, Any]:
            logs = train_function(batches)
            self.input_s.append(float(logs.pop(INPUT)))
            comm = logs.pop(COMMUNICATION, None)
            self.comm_s.append(None if comm is None else float(comm))
            return logs

        return observed

    def within(self, step_s: Sequence[float]) -> dict[str, float | None]:
        """``input_wait_s`` and ``comm_wait_s`` of the last steps, which took ``step_s`` seconds.

        With the rest, their own work, they add up to the steps: should the machine's clock be set
        meanwhile, no wait counts as negative or as longer than its step.
        """
        made, steps = len(self.input_s), len(step_s)
        if steps > made:
            raise ValueError(f"the waits of {steps} steps are asked for; {made} were made")
        input_s = [
            min(max(waited, 0.0), step)
            for step, waited in zip(step_s, self.input_s[made - steps :], strict=True)
        ]
        comm_s = [
            None if waited is None else min(max(waited, 0.0), step - before)
            for step, before, waited in zip(
                step_s, input_s, self.comm_s[made - steps :], strict=True
            )
        ]
        known = [waited for waited in comm_s if waited is not None]
        return {
            "input_wait_s": sum(input_s),
            "comm_wait_s": sum(known) if len(known) == steps else None,
        }
