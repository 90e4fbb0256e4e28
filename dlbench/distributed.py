"""Horovod, or its one-process twin: the only file that imports Horovod.

Every collective is issued by all ranks in the same order. Sums are reduced; ratios are derived.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from dlbench import compression, elastic, fencing, launched
from dlbench.bench.split import stamp
from dlbench.config import ConfigError, Distributed

CALM_CYCLE_MS = 10.0
"""At Horovod's own 1 ms its threads take a tenth of the cores that the ranks compute on. Too long
for synchronised batch-norm, which waits for a sum at every layer."""


class SingleProcess:
    """The twin for one rank: every collective is the identity and Horovod is not needed."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    part: Any = 1.0
    """Whether this rank's batch counts in the step: 1, or 0 for one that only keeps step."""
    sums_overlap = True
    """Whether gradients are to be summed while the backward pass makes others."""

    @contextmanager
    def taking_part(self, part: Any) -> Iterator[None]:
        """Set `part`, a float32 scalar, for what is built or run inside."""
        self.part = part
        try:
            yield
        finally:
            self.part = 1.0

    _waits: list[Any] | None = None

    @contextmanager
    def timing_waits(self) -> Iterator[list[Any]]:
        """Give a list to which `sum_awaited`, built inside, adds its seconds: () float64 each."""
        self._waits = []
        try:
            yield self._waits
        finally:
            self._waits = None

    def sum(self, tensor: Any, name: str) -> Any:
        """Sum of ``tensor`` over ranks, same shape and dtype; differentiable."""
        return tensor

    def sum_awaited(self, tensor: Any, name: str) -> Any:
        """`sum`, not differentiable, for which the pass that it stands in has to wait."""
        if self._waits is None:
            return self.sum(tensor, name)
        begun = stamp(tensor)
        total = self.sum(tensor, name)
        self._waits.append(stamp(total) - begun)
        return total

    def sum_gradients(
        self, gradients: Sequence[Any], names: Sequence[str], scaled: bool = False
    ) -> list[Any]:
        """Sums of gradients over ranks, sent in the configured compression; ``scaled`` if they were
        multiplied by a loss scale, which then answers for what float16 cannot hold."""
        return list(gradients)

    def broadcast(self, variables: list[Any]) -> None:
        """Give every rank the values that rank 0 holds."""

    def gather(self, value: Any) -> list[Any]:
        """The JSON-able ``value`` of every rank, in rank order, on every rank."""
        return [value]

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def leave(self) -> None:
        """Take leave of the others, who do likewise; no collective comes after."""

    def describe(self) -> dict[str, Any]:
        """What carries the collectives, for the environment record."""
        return {"ranks": 1, "local_ranks": 1, "backend": None}


class Horovod(SingleProcess):
    """The ranks that ``horovodrun`` started."""

    def __init__(self, options: Distributed) -> None:
        self._variables = _variables(options)
        self._options = options.model_dump(
            exclude_defaults=True, exclude={"batch_norm", "stall_shutdown_s"}
        )
        # Horovod reads them when it initialises, and never again.
        with _exported(self._variables):
            import horovod.tensorflow as hvd

            elastic.meet() if elastic.is_elastic() else fencing.fence_from_afar()
            hvd.init()
        if hvd.size() != launched.size():
            raise ConfigError(
                f"{launched.size()} ranks were announced (HOROVOD_SIZE), but Horovod knows of "
                f"{hvd.size()}; start them by horovodrun, with the Horovod that dlbench installs "
                "(python -m install.horovod)"
            )
        if options.hierarchical and not hvd.nccl_built():
            raise ConfigError(
                "distributed.hierarchical=true needs a Horovod that sums by NCCL; this one sums by "
                "Gloo, which knows one ring of all ranks: leave it false, or build Horovod for "
                "GPUs (python -m install.horovod --accelerator cuda)"
            )
        self._hvd = hvd
        self._compression: compression.Compression = options.compression
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        # On the CPUs of one host there is no link to wait for: sums take cores of the pass.
        self.sums_overlap = self.size > self.local_size or _is_on_gpu()

    def sum(self, tensor: Any, name: str) -> Any:
        return self._hvd.allreduce(tensor, op=self._hvd.Sum, name=name)

    def sum_gradients(
        self, gradients: Sequence[Any], names: Sequence[str], scaled: bool = False
    ) -> list[Any]:
        # A sum for each starts as soon as the backward pass has made that gradient, and Horovod's
        # fusion buffer batches sums that wait. It batches no exchanges, so those are of packs.
        whole = self._compression == "none"
        sizes = [gradient.shape.num_elements() for gradient in gradients]
        sums = {
            place: self.sum(gradients[place], names[place])
            for place, size in enumerate(sizes)
            if whole or size <= compression.SMALL
        }
        for pack in [] if whole else compression.packs(sizes):
            # Horovod has no sum of bfloat16, and Gloo's of float16 loses a value now and then: it
            # does not assign one that equals the old one's bits taken for a number. Both move bits
            # well.
            name = names[pack[0]]
            found = compression.summed(
                [gradients[place] for place in pack],
                compression.Half(self._compression, scaled),
                self.size,
                partial(self._hvd.alltoall, name=f"{name}/parts"),
                partial(self._hvd.allgather, name=f"{name}/sums"),
            )
            sums.update(zip(pack, found, strict=True))
        return [sums[place] for place in range(len(gradients))]

    def broadcast(self, variables: list[Any]) -> None:
        # Horovod knows tf.Variable alone; Keras 3 keeps it in `.value`.
        raw = [getattr(variable, "value", variable) for variable in variables]
        self._hvd.broadcast_variables(raw, root_rank=0)

    def gather(self, value: Any) -> list[Any]:
        import numpy as np
        import tensorflow as tf

        # JSON, not pickle: nothing that arrives over the wire is executed.
        payload = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        sizes = self._hvd.allgather(tf.constant([len(payload)]), name="gather_sizes").numpy()
        joined = self._hvd.allgather(tf.constant(payload), name="gather_payload").numpy()
        ends = np.cumsum(sizes)
        return [
            json.loads(joined[end - size : end].tobytes())
            for size, end in zip(sizes, ends, strict=True)
        ]

    def barrier(self) -> None:
        self.gather(None)

    def leave(self) -> None:
        self._hvd.shutdown()

    def describe(self) -> dict[str, Any]:
        hvd = self._hvd
        return {
            "ranks": self.size,
            "local_ranks": self.local_size,
            "backend": "nccl" if hvd.nccl_built() else "mpi" if hvd.mpi_enabled() else "gloo",
            "mpi_built": bool(hvd.mpi_built()),
            "nccl_built": bool(hvd.nccl_built()),
            "options": self._options,
            "variables": self._variables,
        }


def _variables(options: Distributed) -> dict[str, str]:
    """The variables that tell Horovod the ``options``, without those that the user exported."""
    stall_s, cycle_ms = options.stall_shutdown_s, options.cycle_time_ms
    if cycle_ms is None and options.batch_norm == "local" and not _is_on_gpu():
        cycle_ms = CALM_CYCLE_MS
    wanted: dict[str, float | None] = {
        "HOROVOD_FUSION_THRESHOLD": None
        if options.fusion_threshold_mb is None
        else options.fusion_threshold_mb * 2**20,
        "HOROVOD_CYCLE_TIME": cycle_ms,
        "HOROVOD_TORUS_ALLREDUCE": 1 if options.hierarchical else None,
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": stall_s,
        "HOROVOD_STALL_CHECK_TIME_SECONDS": min(60, stall_s // 2),
    }
    return {k: str(v) for k, v in wanted.items() if v is not None and k not in os.environ}


def _is_on_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def _exported(variables: dict[str, str]) -> Iterator[None]:
    """Have ``variables`` in the environment inside, and not afterwards: what is there then is what
    the user chose, also for a process that begins again in this one's place."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def configure_devices(threads: int | None) -> None:
    """Share the host's cores and GPUs among its ranks; call before TensorFlow touches a device.

    ``threads`` compute threads a rank; empty: usable cores / ranks on the host. A rank sees the
    GPU of its local rank alone, with memory growth on; `ConfigError` if there is none left for it.
    """
    import tensorflow as tf

    threads = threads or max(1, len(os.sched_getaffinity(0)) // launched.local_size())
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Ops side by side as well: by default as many as the host has cores, in every rank, and the
    # ranks push each other off the cores while all wait for the slowest. One more where sums go
    # over a link: the backward pass would keep the only one to its end, and none begin before.
    over_link = launched.size() > launched.local_size()
    tf.config.threading.set_inter_op_parallelism_threads(threads + over_link)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        local_rank = int(os.environ.get("HOROVOD_LOCAL_RANK", 0))
        if local_rank >= len(gpus):
            most = len(gpus)
            raise ConfigError(
                f"local rank {local_rank} has no GPU: this host shows {most}, and each rank takes "
                f"one; start at most {most} rank(s) a host (horovodrun -np {most}, or make train "
                f"RANKS={most}), or let CUDA_VISIBLE_DEVICES show more"
            )
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[local_rank], True)


def listen_for_hosts(listener: Callable[[], object]) -> None:
    """Have the launcher of an elastic job call ``listener``, in a thread, when hosts come or go; it
    calls that of rank 0 alone."""
    from horovod.runner.elastic.worker import WorkerNotificationManager

    class Listener:
        def on_hosts_updated(self, timestamp: int, update: Any) -> None:
            listener()

    manager = WorkerNotificationManager()
    manager.register_listener(Listener())
    manager.init()


def start(options: Distributed) -> SingleProcess:
    """Join the ranks that the launcher started, or stand alone without one."""
    return Horovod(options) if launched.size() > 1 else SingleProcess()
