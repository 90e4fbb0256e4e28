"""What a training step costs on N ranks, with every rank's batch kept: a model of six parameters,
fitted to records of few ranks.

    step(N)     = compute + exposed(N)
    sum(n, N)   = wait + (N - 1) hop + 2 (N - 1) / N n (host + link / bandwidth)
    exposed(N)  = max(0, sum(gradients, N) - overlap compute) + trailing sum(0, N)

``sum`` is how long the ranks take, with nothing else to do, to add up n bytes, as a ring does it;
the records of `benchmarks/` hold measurements of it. ``compute`` is the slowest rank's own work, as
measured (of GPUs, whose steps do not tell it, that of one rank): it is no share of something else,
and holds for ranks that have as many cores or GPUs of their own as those that were measured. A
gradient is on its way while the backward pass goes on to the next: ``overlap`` of the compute time
hides that, but not what trails behind the pass. Among the CPUs of one host sums are made after it:
there ``overlap`` is 0, and launches tell nothing of it.

P. Patarasuk & X. Yuan, J. Parallel Distrib. Comput. 69 (2009) 117: a ring's 2 (N - 1) / N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from dlbench.report.records import Record

Values = npt.NDArray[np.float64]
SHARES = np.linspace(0.0, 1.0, 201)
"""Values of ``overlap`` that are tried."""


@dataclass(frozen=True)
class Launch:
    """What the model is fitted to, of one record; times in s of a step or a sum."""

    ranks: int
    link: float | None
    """Bits/s of the link between its hosts; infinite where there is one host, None if unknown."""
    step_s: float
    own_s: tuple[float, ...]
    """Of each rank: neither waiting for input nor for others; one rank's if not ``waits_seen``."""
    gradients: int
    """Bytes of a rank's gradients, on their way."""
    sums: tuple[tuple[float, float], ...]
    """(bytes, seconds) of sums with nothing else to do; none on one rank."""
    sums_overlap: bool = True
    """Whether the sums were made beside the backward pass."""
    waits_seen: bool = True
    """Whether its steps tell what they waited for others: those of several GPUs do not."""
    when: tuple[float, float] | None = None
    """Unix times at which its measured steps began and ended, by the clock of rank 0's host."""

    @property
    def exposed_s(self) -> float:
        return max(self.step_s - max(self.own_s), 0.0)

    @classmethod
    def of(cls, record: Record, alone_s: float | None = None) -> Launch | None:
        """None of a record that lacks something: one of another mode or of a run, and without
        ``alone_s``, the own work of one rank, one of several GPUs."""
        shared = record.ranks[0].conditions
        gradients, sums = shared.get("gradients"), shared.get("sums")
        several = record.workload.ranks > 1
        if record.workload.mode != "train" or not isinstance(gradients, dict):
            return None
        if several and not isinstance(sums, dict):
            return None
        own = []
        for rank in record.ranks:
            if not rank.step_s:
                return None
            if rank.comm_wait_s is not None:
                waits = rank.comm_wait_s + (rank.input_wait_s or 0.0)
                own.append((rank.wall_s - waits) / len(rank.step_s))
            elif alone_s is not None:
                own.append(alone_s)
            else:
                return None
        link = shared.get("link_bits_per_s")
        if len({rank.host for rank in record.ranks}) == 1:
            link = np.inf
        return cls(
            record.workload.ranks,
            None if link is None else float(link),  # type: ignore[arg-type]
            max(rank.wall_s / len(rank.step_s) for rank in record.ranks),
            tuple(own),
            int(gradients["bytes"]),  # type: ignore[arg-type]
            tuple(zip(sums["bytes"], sums["seconds"], strict=True)) if several else (),  # type: ignore
            bool(gradients.get("sums_overlap", True)),  # older records do not tell: they were
            all(rank.comm_wait_s is not None for rank in record.ranks),
            _when(record),
        )


def _when(record: Record) -> tuple[float, float]:
    match record.ranks[0].conditions.get("steps_at"):
        case [float() as begun, float() as ended]:
            return begun, ended
    # Older records tell when they were written, which is later by the probe of sums and the exit.
    ended = record.created.timestamp()
    return ended - record.ranks[0].wall_s, ended


@dataclass(frozen=True)
class Model:
    """The fitted parameters; seconds, and seconds a byte."""

    wait: float
    hop: float
    host: float
    link: float
    """Seconds a byte times the link's bytes/s: 1 if nothing but the bytes themselves went over."""
    overlap: float
    trailing: float

    def sum_s(self, size: float, ranks: int, link: float | None) -> float:
        """``link`` in bits/s, infinite within a host; None: the one that was fitted, of unknown
        rate."""
        ring = 2 * (ranks - 1) / ranks * size
        over = 0.0 if link is None else 8 * self.link / link
        return self.wait + (ranks - 1) * self.hop + ring * (self.host + over)

    def exposed_s(
        self,
        gradients: float,
        compute_s: float,
        ranks: int,
        link: float | None,
        sums_overlap: bool = True,
    ) -> float:
        """What a step waits for; 0 on one rank."""
        if ranks == 1:
            return 0.0
        hidden = self.overlap * compute_s if sums_overlap else 0.0
        left = self.sum_s(gradients, ranks, link) - hidden
        return max(left, 0.0) + self.trailing * self.sum_s(0.0, ranks, link)


def fit(launches: Sequence[Launch], hops: float = 0.0) -> Model:
    """The least squares of relative deviations: of the sums first, then of the exposed times, with
    no parameter below 0.

    All ``launches`` have more than one rank, and a known link unless all have the same unknown one.
    What a sum of nothing takes is divided into ``wait`` and ``hop`` by their numbers of ranks;
    where these are all the same, ``hops`` of it, from 0 to 1, are hops. Of one link alone,
    ``host`` is all of it.
    """
    ranks = np.array([one.ranks for one in launches for _ in one.sums], float)
    links = np.array([one.link for one in launches for _ in one.sums], float)
    sizes, seconds = np.array([point for one in launches for point in one.sums]).T
    ring = 2 * (ranks - 1) / ranks * sizes
    columns = np.stack([np.ones_like(ring), ranks - 1, ring, ring * 8 / links], axis=1)
    told = np.array([True, is_told(ranks), True, is_told(links)])
    solution = np.zeros(4)
    solution[told] = nnls(columns[:, told] / seconds[:, None], np.ones_like(seconds))[0]
    wait, hop, host, link = solution.tolist()
    if not told[1]:
        wait, hop = (1 - hops) * wait, hops * wait / float(ranks[0] - 1)
    return Model(wait, hop, host, link, *_overlap(launches, Model(wait, hop, host, link, 0.0, 0.0)))


def is_told(values: Values) -> bool:
    """Whether a dependence on ``values`` can be seen in them."""
    return len(np.unique(values)) > 1  # which takes all NaN, the unknown link's, for one


def _overlap(launches: Sequence[Launch], sums: Model) -> tuple[float, float]:
    """``overlap`` and ``trailing``, by what is exposed."""
    step = np.array([one.step_s for one in launches])
    hiding = np.array([max(one.own_s) if one.sums_overlap else 0.0 for one in launches])
    exposed = np.array([one.exposed_s for one in launches])
    whole = np.array([sums.sum_s(one.gradients, one.ranks, one.link) for one in launches])
    empty = np.array([sums.sum_s(0.0, one.ranks, one.link) for one in launches]) / step
    # Of every share (shares, launches): what is left once the trailing part is at its best.
    beyond = np.maximum(whole - SHARES[:, None] * hiding, 0.0)
    rest = (exposed - beyond) / step
    trailing = np.maximum(rest @ empty / max(float(empty @ empty), 1e-300), 0.0)
    wrong = ((rest - trailing[:, None] * empty) ** 2).sum(axis=1)
    best = int(np.argmin(wrong))
    return float(SHARES[best]), float(trailing[best])
