"""Where a step's time goes, by kind of work, from TensorFlow's own trace.

Each instant of the traced steps is given to the ops that ran then, in equal parts where several
did, so that the parts add up to the wall time. An instant without any op is waiting: for input, for
other ranks, or between two steps; what prepares input beside the step is no part of it. With a GPU
the ops are its kernels, and waiting is the GPU's, but for what waits for other ranks inside NCCL.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dlbench.bench import split

# What is sought in "scope/of/the/op:Type"; the first that is found counts.
KINDS = {
    "sums over ranks": r"nccl",  # on the CPU they run beside the step, on Horovod's own thread
    "optimizer": r"(^|/)optimizer/",
    "convolution": r"Conv2D(?!Backprop|KernelGradient)\w*$",
    "convolution, gradient of its input": r"Conv2DBackpropInput\w*$",
    "convolution, gradient of its kernel": r"Conv2D(BackpropFilter|KernelGradient)\w*$",
    "batch normalisation": r"(Fused|Dlbench)BatchNorm\w*$|_bn(_\d+)?/",
    "pooling and unpooling": r":DlbenchMax\w+$|MaxPool\w*$",
    "activation": r":\w*(Relu|Elu|Sigmoid|Tanh)\w*$",
    "loss": r":\w*(SoftmaxCrossEntropy|SquaredDifference)\w*$",
    "sums of two": r":(DlbenchAdd|AddN|AddV2)$",
}
OTHER = "other ops"
INPUT, BETWEEN = "waiting for input", "between steps"
RANKS, ALONE = "waiting for other ranks, or dispatch", "waiting for dispatch"
"""Dispatch: Python, and ops that wait for each other's results."""

STEP = "dlbench step"
OP = re.compile(r"[^\s:]+:_?[A-Za-z]\w*")
FUNCTION = "StatefulPartitionedCall/"
LONGEST = 10
SKIPPED, TRACED = 5, 10
"""Steps of a run before those that are traced, and these."""


class Span(NamedTuple):
    """What one thread or stream did from ``start`` to ``end``, in ps since the epoch."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class StepTimes:
    """Mean of the traced steps, seconds a step."""

    steps: int
    device: str
    """Whose ops these are: CPU or GPU."""
    kinds: dict[str, float]
    """Seconds by kind of work and of waiting, the largest first; they add up to the step."""
    longest: dict[str, float]
    """Seconds of the longest single ops, overlaps with others included."""

    @property
    def step_s(self) -> float:
        return sum(self.kinds.values())

    def markdown(self) -> str:
        """Both tables, in ms."""
        title = f"Mean of {self.steps} steps: {1e3 * self.step_s:.1f} ms a step ({self.device})"
        rows = [title, "", "| where the time goes | ms a step | share |", "|---|---:|---:|"]
        for kind, seconds in self.kinds.items():
            rows.append(f"| {kind} | {1e3 * seconds:.2f} | {seconds / self.step_s:.1%} |")
        rows += ["", "| longest ops | ms a step |", "|---|---:|"]
        rows += [f"| `{name}` | {1e3 * seconds:.2f} |" for name, seconds in self.longest.items()]
        return "\n".join(rows) + "\n"


class StepTracer:
    """Traces ``steps`` steps of this process, one of ``ranks``, after ``skip`` others; call `begin`
    and `end` around each step, and `close` after the last. Tracing makes those steps a few per cent
    slower."""

    def __init__(self, ranks: int, skip: int = SKIPPED, steps: int = TRACED) -> None:
        self._ranks = ranks
        self._first, self._last = skip, skip + steps - 1
        self._number = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._step: Any = None
        self.result: StepTimes | None = None

    def begin(self) -> None:
        import tensorflow as tf

        if self._number == self._first:
            folder = tempfile.TemporaryDirectory(prefix="dlbench-trace-")
            options = tf.profiler.experimental.ProfilerOptions(
                host_tracer_level=2, python_tracer_level=0, device_tracer_level=1
            )
            try:
                tf.profiler.experimental.start(folder.name, options)
            except tf.errors.AlreadyExistsError:
                warnings.warn("another profiler is running: no step is traced", stacklevel=2)
            else:
                self._folder = folder
        if self._folder is not None:
            self._step = tf.profiler.experimental.Trace(STEP)
            self._step.__enter__()

    def end(self) -> None:
        """After the step's results have arrived."""
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
        if self._number == self._last:
            self.close()
        self._number += 1

    def close(self) -> None:
        """Read the trace, if there is one, into ``result``."""
        import tensorflow as tf

        if self._folder is None:
            return
        tf.profiler.experimental.stop()
        with self._folder as folder:
            (trace,) = Path(folder).glob("**/*.xplane.pb")
            self.result = read(trace, self._ranks)
        self._folder = None


def read(trace: Path, ranks: int) -> StepTimes:
    """The breakdown of an ``.xplane.pb`` whose steps were traced by `StepTracer`."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    return breakdown(space.planes, ranks)


def breakdown(planes: Iterable[Any], ranks: int) -> StepTimes:
    """Of the planes of a trace (``tensorflow.profiler.XPlane``) of one of ``ranks``."""
    threads: list[tuple[str, list[Span]]] = []
    streams: list[list[Span]] = []
    for plane in planes:
        if plane.name.startswith("/device:GPU"):
            streams += [_spans(plane, line) for line in plane.lines if "Stream" in line.name]
        else:
            threads += [(line.name, _spans(plane, line)) for line in plane.lines]
    host = [span for _, line in threads for span in line]
    steps = sorted(span for span in host if span.name == STEP)
    if not steps:
        raise ValueError(f"the trace holds no '{STEP}'; StepTracer marks them")
    begin, end = steps[0].start, steps[-1].end
    on_gpu = any(streams)
    on_cpu = ([span for span in line if OP.fullmatch(span.name)] for _, line in threads)
    own = [
        Span(max(start, begin), min(stop, end), name)
        for line in (streams if on_gpu else on_cpu)
        for start, stop, name in _innermost(line)
        if stop > begin and start < end
    ]
    shares, idle = _shared_out(own, begin, end)
    inputs = [span for span in host if span.name == split.INPUT]
    shares += _waiting(idle, steps, inputs, RANKS if ranks > 1 else ALONE)
    longest: Counter[str] = Counter()
    for span in own:
        longest[_short(span.name)] += span.end - span.start

    def per_step(counter: Counter[str], limit: int | None = None) -> dict[str, float]:
        return {name: ps / 1e12 / len(steps) for name, ps in counter.most_common(limit)}

    device = "GPU" if on_gpu else "CPU"
    return StepTimes(len(steps), device, per_step(shares), per_step(longest, LONGEST))


def kind_of(op: str) -> str:
    """The kind of ``scope/of/the/op:Type``, one of `KINDS` or `OTHER`."""
    return next((kind for kind, sought in KINDS.items() if re.search(sought, op)), OTHER)


def _short(op: str) -> str:
    """``scope/name:_Type`` -> ``scope/Type``: the type tells more than the name."""
    return re.sub(r"[^/]*:_?", "", op.removeprefix(FUNCTION))


def _spans(plane: Any, line: Any) -> list[Span]:
    origin = line.timestamp_ns * 1000
    return [
        Span(
            origin + event.offset_ps,
            origin + event.offset_ps + event.duration_ps,
            _name(plane, event),
        )
        for event in line.events
    ]


def _name(plane: Any, event: Any) -> str:
    """A kernel's own name says nothing of its op; that stands beside it."""
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name == "tf_op":
            return str(stat.str_value or plane.stat_metadata[stat.ref_value].name)
    return str(plane.event_metadata[event.metadata_id].name)


def _innermost(spans: list[Span]) -> Iterator[Span]:
    """The spans of one thread without what others inside them took."""
    open_spans: list[Span] = []
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        while open_spans and open_spans[-1].end <= span.start:
            done = open_spans.pop()
            yield Span(at, done.end, done.name)
            at = done.end
        if open_spans:
            yield Span(at, span.start, open_spans[-1].name)
        open_spans.append(span)
        at = span.start
    while open_spans:
        done = open_spans.pop()
        yield Span(at, done.end, done.name)
        at = done.end


def _shared_out(
    spans: list[Span], begin: int, end: int
) -> tuple[Counter[str], list[tuple[int, int]]]:
    """Time of each kind, shared where spans overlap, and the intervals without any."""
    changes = [(span.start, 1, kind_of(span.name)) for span in spans]
    changes += [(span.end, -1, kind_of(span.name)) for span in spans]
    active: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    idle = []
    now = begin
    for time, change, kind in [*sorted(changes), (end, 0, "")]:
        running = active.total()
        if time > now and running:
            for name, count in active.items():
                shares[name] += (time - now) * count // running
        elif time > now:
            idle.append((now, time))
        now = time
        active[kind] += change
    return shares, idle


def _waiting(
    idle: list[tuple[int, int]], steps: list[Span], inputs: list[Span], rest: str
) -> Counter[str]:
    waiting: Counter[str] = Counter()
    for start, end in idle:
        inside = _overlap(start, end, steps)
        for_input = min(inside, _overlap(start, end, inputs))
        waiting[BETWEEN] += end - start - inside
        waiting[INPUT] += for_input
        waiting[rest] += inside - for_input
    return waiting


def _overlap(start: int, end: int, spans: list[Span]) -> int:
    return sum(max(0, min(end, span.end) - max(start, span.start)) for span in spans)
