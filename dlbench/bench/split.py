"""The split of a training step: waiting for input, waiting for other ranks, and its own work.

Input comes before the step's graph runs. What that waits for other ranks is told by instants that
are taken inside, by ops that depend on what they wait for; nothing depends on them, so no other op
runs earlier or later for it. On a GPU such an op knows when work was enqueued, not when it ended:
what steps wait for other ranks stays unknown (None) there, and `dlbench.bench.steps` traces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INPUT = "dlbench input"
"""What a trace calls the wait for a batch."""
COMMUNICATION = "comm_wait_s"
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
    """How long each step has waited, all steps in order.

    step_s = [...]                  # measured around trainer.step, synchronised
    Rank(step_s=step_s, **trainer.waits.within(step_s), ...)
    """

    def __init__(self) -> None:
        self.input_s: list[float] = []
        self.comm_s: list[float | None] = []

    def observed(self, input_s: float, logs: dict[str, Any]) -> dict[str, Any]:
        """Note the waits of a step, and give its ``logs`` without them, as Keras shows them;
        without `COMMUNICATION` among them that is unknown."""
        self.input_s.append(input_s)
        comm = logs.pop(COMMUNICATION, None)
        self.comm_s.append(None if comm is None else float(comm))
        return logs

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
