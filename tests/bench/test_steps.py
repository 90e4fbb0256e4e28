"""The breakdown of a step, on traces made by hand and on one of TensorFlow's."""

from typing import Any

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from dlbench.bench import split, steps
from dlbench.bench.steps import StepTracer, breakdown

MS = 10**9  # ps
Event = tuple[str, float, float]
"""Name, begin and end in ms."""


def plane(name: str, lines: dict[str, list[Event]], op_of: dict[str, str] | None = None) -> Any:
    """As TensorFlow's profiler writes one; ``op_of`` names the op of a kernel."""
    made = xplane_pb2.XPlane(name=name)
    made.stat_metadata[1].name = "tf_op"
    for number, (line_name, events) in enumerate(lines.items()):
        # Each line counts from a time of its own.
        line = made.lines.add(name=line_name, timestamp_ns=1_000_000 * number)
        for event_name, begin, end in events:
            key = len(made.event_metadata) + 1
            made.event_metadata[key].name = event_name
            event = line.events.add(metadata_id=key)
            event.offset_ps = round((begin - number) * MS)
            event.duration_ps = round((end - begin) * MS)
            if op_of and event_name in op_of:
                event.stats.add(metadata_id=1, str_value=op_of[event_name])
    return made


PYTHON: list[Event] = [(steps.STEP, 10, 30), (steps.STEP, 34, 50)]


def milliseconds(times: steps.StepTimes) -> dict[str, float]:
    """Of both steps together."""
    return {kind: 1e3 * 2 * seconds for kind, seconds in times.kinds.items()}


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("deepvel_1/block3_add_1/DlbenchAdd:DlbenchAdd", "sums of two"),
        ("gradient_tape/AddN:AddN", "sums of two"),
        ("optimizer/adam/add:AddV2", "optimizer"),
        ("a/enc1_bn_1/add:AddV2", "batch normalisation"),
        ("a/Pad:Pad", steps.OTHER),
    ],
)
def test_kinds(op: str, kind: str) -> None:
    assert steps.kind_of(op) == kind


def test_each_instant_is_given_to_what_ran() -> None:
    host = plane(
        "/host:CPU",
        {
            "python": [
                *PYTHON,
                (split.INPUT, 9, 12),
                ("EagerExecute: Something", 10, 50),
                ("no.op::Name", 10, 50),
            ],
            "tf_Compute/1": [
                ("StatefulPartitionedCall/a/conv:_MklNativeFusedConv2D", 12, 20),
                ("g/a/Conv2DBackpropFilter:Conv2DBackpropFilter", 36, 40),
                ("g/b/DlbenchConv2DKernelGradient:DlbenchConv2DKernelGradient", 40, 46),
                ("x/enc1_bn_1/mul:Mul", 46, 47),
            ],
            "tf_Compute/2": [
                ("StatefulPartitionedCall/b:Relu", 16, 20),
                # One op that runs another on its thread.
                ("StatefulPartitionedCall/If:If", 20, 26),
                ("If/then/optimizer/adam/Sub:Sub", 22, 25),
                ("before/the/steps:Relu", 0, 9),
            ],
        },
    )
    found = breakdown([host], ranks=1)
    assert (found.steps, found.device) == (2, "CPU")
    assert found.step_s == pytest.approx(0.020)
    assert milliseconds(found) == pytest.approx(
        {
            "convolution": 4 + 4 / 2,
            "activation": 4 / 2,
            steps.OTHER: 2 + 1,
            "optimizer": 3,
            "convolution, gradient of its kernel": 10,
            "batch normalisation": 1,
            steps.INPUT: 2,
            steps.BETWEEN: 4,
            steps.ALONE: 4 + 2 + 3,
        }
    )
    assert next(iter(found.kinds)) == "convolution, gradient of its kernel", "the largest first"
    assert 2e3 * found.longest["a/MklNativeFusedConv2D"] == pytest.approx(8)


def test_ranks_wait_for_each_other() -> None:
    host = plane("/host:CPU", {"python": PYTHON, "tf_Compute/1": [("a:Relu", 10, 28)]})
    assert milliseconds(breakdown([host], ranks=2)) == pytest.approx(
        {"activation": 18, steps.RANKS: 18, steps.BETWEEN: 4}
    )


def test_with_a_gpu_its_kernels_count() -> None:
    """On a trace made by hand: there is no GPU here."""
    host = plane("/host:CPU", {"python": PYTHON, "tf_Compute/1": [("a/conv:Conv2D", 10, 11)]})
    device = plane(
        "/device:GPU:0",
        {
            "Stream #14(Compute)": [("sm90_xmma_fprop", 12, 26), ("unnamed", 36, 40)],
            "Stream #22(Other)": [("ncclDevKernel_AllReduce_Sum", 24, 30)],
            "TensorFlow Ops": [("Conv2D", 12, 26)],
        },
        {"sm90_xmma_fprop": "net/a/conv:Conv2D"},
    )
    found = breakdown([host, device], ranks=4)
    assert found.device == "GPU"
    assert milliseconds(found) == pytest.approx(
        {
            "convolution": 12 + 1,
            "sums over ranks": 1 + 4,
            steps.OTHER: 4,
            steps.RANKS: 2 + 2 + 10,
            steps.BETWEEN: 4,
        }
    )


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no 'dlbench step'"):
        breakdown([plane("/host:CPU", {"python": [("a:Relu", 0, 1)]})], ranks=1)


def test_a_trace_of_tensorflow() -> None:
    image, kernel = tf.random.normal((4, 64, 64, 8)), tf.random.normal((3, 3, 8, 8))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")))
        return tf.reduce_sum(tape.gradient(loss, kernel))

    tracer = StepTracer(ranks=1, skip=2, steps=3)
    for _ in range(7):
        tracer.begin()
        step().numpy()
        tracer.end()
    found = tracer.result
    assert found is not None
    assert found.steps == 3
    assert found.kinds["convolution"] > 0
    assert found.kinds["convolution, gradient of its kernel"] > 0
    assert 0 < found.step_s < 1
    assert f"Mean of 3 steps: {1e3 * found.step_s:.1f} ms" in found.markdown()
    tracer.close()
    assert tracer.result is found


def test_too_few_steps() -> None:
    tracer = StepTracer(ranks=1, skip=5)
    tracer.begin()
    tracer.end()
    tracer.close()
    assert tracer.result is None
