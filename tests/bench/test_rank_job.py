"""What a rank of a measured job tells, with naps in place of a network's steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from benchmarks import rank_job, training_cases
from benchmarks.launching import Spec
from dlbench.config import Experiment
from dlbench.distributed import SingleProcess

NAP = 0.1


def test_the_instants_of_the_measured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the warm-up nor what is asked for after the steps lies between them."""

    network = SimpleNamespace(trainable_variables=[])
    session = SimpleNamespace(ranks=SingleProcess(), experiment=Experiment(), network=network)

    def waits(step_s: Sequence[float]) -> rank_job.Waits:
        time.sleep(NAP)
        return {"input_wait_s": 0.0, "comm_wait_s": 0.0}

    job = rank_job.Job(lambda: time.sleep(NAP), lambda returned: {}, waits)
    monkeypatch.setattr(training_cases, "opened", lambda content: nullcontext(session))
    monkeypatch.setitem(rank_job.KINDS, "train", lambda session: job)
    before = time.time()
    (rank,) = rank_job.run(Spec("train", "test", {}, warmup=2, steps=3))[1]["ranks"]
    begun, ended = rank["conditions"]["steps_at"]
    assert before + 2 * NAP < begun
    assert ended < time.time() - NAP
    assert ended - begun == pytest.approx(rank["wall_s"], abs=NAP / 2)
