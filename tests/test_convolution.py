"""The compiled gradient of a convolution by its kernel, against the formula in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import ops
from dlbench.convolution import CHOICE, convolution, kernel_gradient
from dlbench.layers import Conv2D

ISAS = ("avx512", "avx2", "portable")
EPSILON = np.finfo(np.float32).eps


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in turn."""
    before = ops.isa()
    try:
        ops.use_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    ops.use_isa(before)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the compiled op whatever the processor."""
    monkeypatch.setenv(CHOICE, "compiled")


def sums(inputs: np.ndarray, outputs: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The formula in float64: one sum over all pixels for each shift of the image."""
    height, width = inputs.shape[1:3]
    edges = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    wide = np.pad(inputs.astype(np.float64), edges)
    shifts = [
        [
            np.einsum("nyxi,nyxo->io", wide[:, i : i + height, j : j + width], outputs)
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    return np.array(shifts)


def random_case(random: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and gradients of (batch, height, width, inputs, outputs)."""
    *pixels, inputs, outputs = shape
    return (
        random.standard_normal((*pixels, inputs)).astype(np.float32),
        random.standard_normal((*pixels, outputs)).astype(np.float32),
    )


def assert_right(inputs: np.ndarray, outputs: np.ndarray, rows: int, columns: int) -> None:
    found = kernel_gradient(inputs, outputs, rows, columns).numpy()
    # However it is added up, a sum of n products is off by less than n roundings of their sizes.
    limit = (inputs[..., 0].size + 1) * EPSILON * sums(abs(inputs), abs(outputs), rows, columns)
    error = abs(found - sums(inputs, outputs, rows, columns))
    assert (error <= limit).all(), (inputs.shape, outputs.shape, rows, columns, error.max())


def test_equals_the_formula_on_random_cases(isa: str) -> None:
    random = np.random.default_rng(ISAS.index(isa))
    for _ in range(250):
        batch, height, width = random.integers((0, 1, 1), (4, 14, 14))
        inputs, outputs = random.integers(1, 71, 2)
        rows, columns = random.choice([1, 3, 5, 7], 2)
        assert_right(*random_case(random, batch, height, width, inputs, outputs), rows, columns)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 1),
        (1, 1, 1, 70, 70),
        (2, 3, 2600, 5, 17),  # rows longer than a chunk
        (1, 300, 9, 13, 3),  # several chunks of rows
        (50, 7, 9, 20, 33),  # several images a chunk, the last one with fewer
        (3, 40, 50, 6, 16),
    ],
)
def test_equals_the_formula_over_several_chunks(isa: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    for size in (1, 3, 7):
        assert_right(*random_case(random, *shape), size, size)


@pytest.mark.parametrize("shape", [(0, 4, 5, 3, 2), (2, 0, 5, 3, 2), (2, 4, 0, 3, 2)])
def test_no_pixels_give_zeros(shape: tuple[int, ...]) -> None:
    found = kernel_gradient(*random_case(np.random.default_rng(0), *shape), 3, 3)
    np.testing.assert_array_equal(found, np.zeros((3, 3, 3, 2)))


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 2), (3, 0)])
def test_no_channels_give_an_empty_gradient(inputs: int, outputs: int) -> None:
    case = random_case(np.random.default_rng(0), 1, 4, 5, inputs, outputs)
    assert kernel_gradient(*case, 3, 3).shape == (3, 3, inputs, outputs)


@pytest.mark.parametrize(
    ("inputs", "outputs", "rows", "columns", "message"),
    [
        ((1, 4, 4, 2), (1, 4, 5, 2), 3, 3, "same batch, height and width"),
        ((1, 4, 4, 2), (2, 4, 4, 2), 3, 3, "same batch, height and width"),
        ((4, 4, 2), (4, 4, 2), 3, 3, "same batch, height and width"),
        ((1, 4, 4, 2), (1, 4, 4, 2), 2, 3, "must be odd, 1 to 63, got 2 x 3"),
        ((1, 4, 4, 2), (1, 4, 4, 2), 3, -1, "must be odd, 1 to 63, got 3 x -1"),
        ((1, 4, 4, 2), (1, 4, 4, 2), 65, 1, "must be odd, 1 to 63, got 65 x 1"),
    ],
)
def test_wrong_shapes_are_refused(
    inputs: tuple[int, ...], outputs: tuple[int, ...], rows: int, columns: int, message: str
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        kernel_gradient(tf.zeros(inputs), tf.zeros(outputs), rows, columns)


def test_shapes_are_inferred() -> None:
    """Also those that the graph does not know, and those that it knows to be wrong."""

    def traced(inputs: tuple[int | None, ...], outputs: tuple[int | None, ...]) -> list[int | None]:
        function = tf.function(lambda x, y: kernel_gradient(x, y, 3, 5))
        graph = function.get_concrete_function(tf.TensorSpec(inputs), tf.TensorSpec(outputs))
        return graph.output_shapes.as_list()

    assert traced((None,) * 4, (None, None, None, 7)) == [3, 5, None, 7]
    with pytest.raises(ValueError, match="Dimensions must be equal"):
        traced((1, 4, 4, 2), (1, 4, 5, 7))


def digest() -> str:
    """Of results for one seed, subnormal numbers among them."""
    random = np.random.default_rng(3)
    found = hashlib.sha256()
    for shape, size in (((2, 40, 50), 3), ((2, 12, 15), 7), ((9, 6, 5), 1)):
        for channels in ((3, 64), (64, 64), (70, 11)):
            inputs, outputs = random_case(random, *shape, *channels)
            result = kernel_gradient(inputs * np.float32(1e-20), outputs * 1e-19, size, size)
            found.update(result.numpy().tobytes())
    return found.hexdigest()


def test_threads_do_not_change_a_bit(launch: Callable[..., Any], tmp_path: Path) -> None:
    """Nor does it matter which thread takes subnormal numbers as zero."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "import tensorflow as tf; tf.config.threading.set_intra_op_parallelism_threads(5)\n"
    code += "import test_convolution; print(test_convolution.digest())"
    done = launch(["-c", code], tmp_path)
    assert done.output.split()[-1] == digest()


def gradients(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], x: tf.Tensor, k: tf.Tensor
) -> list[tf.Tensor]:
    """Value, first and second derivatives of a function of a convolution's output."""
    with tf.GradientTape() as outer:
        outer.watch([x, k])
        with tf.GradientTape() as inner:
            inner.watch([x, k])
            value = tf.reduce_sum(tf.sin(function(x, k)))
        first = inner.gradient(value, [x, k])
        mixed = sum(tf.reduce_sum(tf.square(one)) for one in first)
    return [value, *first, *outer.gradient(mixed, [x, k])]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_of_both_orders_equal_tensorflows(graph: bool) -> None:
    x = tf.random.stateless_normal((2, 5, 6, 3), (0, 1))
    k = tf.random.stateless_normal((3, 5, 3, 4), (0, 2)) / 5

    def ours(x: tf.Tensor, k: tf.Tensor) -> list[tf.Tensor]:
        return gradients(convolution, x, k)

    found = (tf.function(ours) if graph else ours)(x, k)
    expected = gradients(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), x, k)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def takes_compiled(function: Callable[..., tf.Tensor], x: tf.Tensor, k: tf.Tensor) -> bool:
    """Whether the gradient by the kernel is the compiled op's."""

    @tf.function
    def by_kernel(x: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(k)
            y = function(x, k)
        return tape.gradient(y, k)

    graph = by_kernel.get_concrete_function(x, k).graph
    return any(one.type == "DlbenchConv2DKernelGradient" for one in graph.get_operations())


def test_the_processor_or_the_user_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, k = tf.zeros((1, 4, 4, 2)), tf.zeros((3, 3, 2, 2))
    monkeypatch.delenv(CHOICE, raising=False)
    for name, expected in (("avx2", True), ("avx512", True), ("portable", False)):
        monkeypatch.setattr(ops, "isa", lambda name=name: name)
        assert takes_compiled(convolution, x, k) == expected
    for choice, expected in (("compiled", True), ("tensorflow", False)):
        monkeypatch.setenv(CHOICE, choice)
        assert takes_compiled(convolution, x, k) == expected
    monkeypatch.setenv(CHOICE, "fast")
    with pytest.raises(ValueError, match="allowed are compiled, tensorflow and nothing"):
        convolution(x, k)


@pytest.mark.usefixtures("compiled")
def test_what_the_op_lacks_is_tensorflows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, k = tf.zeros((1, 4, 4, 2)), tf.zeros((3, 3, 2, 2))
    assert takes_compiled(convolution, x, k)
    assert not takes_compiled(convolution, tf.cast(x, tf.float64), tf.cast(k, tf.float64))
    assert not takes_compiled(convolution, x, k[:2])
    assert not takes_compiled(convolution, x, k[:, :, :1])  # two groups
    edge = ops.max_kernel_length()
    for rows, expected in ((edge, True), (edge + 2, False)):
        assert takes_compiled(convolution, x, tf.zeros((rows, 1, 2, 2))) == expected
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert not takes_compiled(convolution, x, k)


@pytest.mark.usefixtures("compiled")
def test_xla_compiles_it() -> None:
    @tf.function(jit_compile=True)
    def by_kernel(x: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(k)
            y = tf.reduce_sum(convolution(x, k))
        return tape.gradient(y, k)

    found = by_kernel(tf.ones((1, 4, 5, 2)), tf.ones((3, 3, 2, 2)))
    assert found[1, 1, 0, 0] == 20 and found[0, 0, 0, 0] == 12


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": "same", "strides": 2},
        {"padding": "same", "dilation_rate": 2},
        {"padding": "same", "groups": 2},
    ],
)
def test_layer_equals_keras(options: dict[str, object], tmp_path: Path) -> None:
    """Outputs and gradients, also after the model was written and read."""
    image = keras.Input((None, None, 4))
    network = keras.Model(image, Conv2D(6, 3, name="own", **options)(image))
    network.save(tmp_path / "network.keras")
    network = keras.models.load_model(tmp_path / "network.keras")
    own = network.get_layer("own")
    assert type(own) is Conv2D
    other = keras.layers.Conv2D(6, 3, **options)
    other.build((None, None, None, 4))
    other.set_weights(own.get_weights())
    x = tf.random.stateless_normal((2, 6, 7, 4), (1, 2))
    for one in (x, x[:, :5, :4]):
        results = []
        for layer in (own, other):
            with tf.GradientTape() as tape:
                tape.watch(one)
                y = layer(one)
            results.append([y, *tape.gradient(y, [one, *layer.trainable_weights])])
        for found, expected in zip(*results, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
