"""The compiled batch normalisation against NumPy in float64."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dlbench import layers, models, normalization, ops

NAMES = ("y", "mean", "variance", "dx", "dgamma", "dbeta")
EPSILON = 1e-5


@pytest.fixture(params=["avx512", "avx2", "portable"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = ops.build_info()["isa"]
    try:
        ops.use_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    ops.use_isa(before)


Given = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def case(*shape: int, mean: float = 1.0, std: float = 3.0) -> Given:
    """x, gamma, beta and dy in float32."""
    rng = np.random.default_rng(shape[-1])
    x = (rng.standard_normal(shape) * std + mean).astype(np.float32)
    gamma = np.linspace(0.5, 2, shape[-1], dtype=np.float32)
    beta = np.linspace(-1, 1, shape[-1], dtype=np.float32)
    return x, gamma, beta, rng.standard_normal(shape).astype(np.float32)


def reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dy: np.ndarray, relu: bool = False
) -> dict[str, np.ndarray]:
    """Ioffe & Szegedy's formulas, in float64."""
    shape = x.shape
    x, dy = (one.astype(np.float64).reshape(-1, shape[-1]) for one in (x, dy))
    mean, variance = x.mean(0), x.var(0)
    normal = (x - mean) / np.sqrt(variance + EPSILON)
    y = normal * gamma + beta
    if relu:
        y, dy = np.maximum(y, 0), np.where(y > 0, dy, 0)
    dgamma, dbeta = (dy * normal).sum(0), dy.sum(0)
    lost = dbeta / len(x) + normal * dgamma / len(x)
    dx = gamma / np.sqrt(variance + EPSILON) * (dy - lost)
    found = (y.reshape(shape), mean, variance, dx.reshape(shape), dgamma, dbeta)
    return dict(zip(NAMES, found, strict=True))


def computed(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    dy: np.ndarray,
    relu: bool = False,
    dtype: str = "float32",
) -> dict[str, np.ndarray]:
    inputs = [tf.constant(x, dtype), tf.constant(gamma), tf.constant(beta)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        a, b, c = inputs
        y, mean, variance = normalization.normalize_batch(a, b, c, epsilon=EPSILON, relu=relu)
    gradients = tape.gradient(y, inputs, output_gradients=tf.constant(dy, dtype))
    found = (y, mean, variance, *gradients)
    return {name: one.numpy() for name, one in zip(NAMES, found, strict=True)}


def assert_close(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rtol: float
) -> None:
    for name in NAMES:
        apart = np.abs(found[name].astype(np.float64) - expected[name]).max()
        assert apart <= rtol * (np.abs(expected[name]).max() + 1e-3), name


@pytest.mark.parametrize("relu", [False, True])
def test_equals_numpy(isa: str, relu: bool) -> None:
    shapes = [(2, 5, 7, channels) for channels in range(1, 71)]
    # One row; less than a wide row; many parts; wide rows and some left over.
    shapes += [(1, 1, 1, 4), (3, 1, 1, 1), (4, 50, 50, 64), (1, 61, 53, 96), (1, 37, 41, 3)]
    for shape in shapes:
        given = case(*shape)
        assert_close(computed(*given, relu), reference(*given, relu), 2e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_bfloat16_is_rounded_once(isa: str, relu: bool) -> None:
    for shape in [(2, 5, 7, channels) for channels in (1, 3, 32, 64, 70)] + [(2, 50, 50, 64)]:
        x, gamma, beta, dy = case(*shape)
        x, dy = (tf.cast(tf.cast(one, tf.bfloat16), tf.float32).numpy() for one in (x, dy))
        expected = reference(x, gamma, beta, dy, relu)
        found = computed(x, gamma, beta, dy, relu, "bfloat16")
        for name in ("mean", "variance", "dgamma", "dbeta"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
        for name in ("y", "dx"):
            value = found[name].astype(np.float64)
            # Half a unit in the last of 8 bits, and what float32 takes before.
            allowed = np.abs(expected[name]) * 2.0**-8 + 1e-5
            assert np.all(np.abs(value - expected[name]) <= allowed), name


def test_variance_is_right_far_from_zero() -> None:
    given = case(2, 64, 64, 24, mean=1e4, std=1.0)
    found, expected = computed(*given), reference(*given)
    np.testing.assert_allclose(found["variance"], expected["variance"], rtol=1e-4)
    assert_close(found, expected, 1e-3)


def test_a_first_row_unlike_the_others_costs_no_accuracy() -> None:
    x, gamma, beta, dy = case(2, 64, 64, 24, mean=1e4, std=1.0)
    x[0, 0, 0] = 0
    expected = reference(x, gamma, beta, dy)["variance"]
    np.testing.assert_allclose(computed(x, gamma, beta, dy)["variance"], expected, rtol=5e-5)


def test_constant_channels_have_no_variance() -> None:
    x, gamma, beta, dy = case(2, 9, 9, 5)
    x[..., 3] = 1e4
    found = computed(x, gamma, beta, dy)
    assert found["variance"][3] == 0
    np.testing.assert_array_equal(found["y"][..., 3], beta[3])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_in_its_channel(relu: bool, dtype: str) -> None:
    x, gamma, beta, dy = case(2, 9, 9, 5)
    x[1, 8, 8, 2] = np.nan
    found = computed(x, gamma, beta, dy, relu, dtype)
    for name in ("y", "mean", "variance"):
        assert np.all(np.isnan(found[name][..., 2])), name
    for name in NAMES:
        kept = np.delete(found[name].astype(np.float64), 2, axis=-1)
        assert np.all(np.isfinite(kept)), name


def test_without_rows() -> None:
    found = computed(*case(0, 4, 4, 3))
    assert found["y"].shape == found["dx"].shape == (0, 4, 4, 3)
    assert np.all(np.isnan([found["mean"], found["variance"]]))
    np.testing.assert_array_equal([found["dgamma"], found["dbeta"]], np.zeros((2, 3)))


def test_every_processor_gives_the_same_bits(isa: str) -> None:
    given = case(3, 50, 50, 70)
    for dtype in ("float32", "bfloat16"):
        found = computed(*given, True, dtype)
        ops.use_isa("portable")
        expected = computed(*given, True, dtype)
        ops.use_isa(isa)
        for name in NAMES:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_any_number_of_threads_gives_the_same_bits(tmp_path: Path) -> None:
    code = f"""
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
from tests.test_normalization import case, computed
np.savez({str(tmp_path / "one.npz")!r}, **computed(*case(3, 50, 50, 70)))
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300, check=True)
    found, one = computed(*case(3, 50, 50, 70)), np.load(tmp_path / "one.npz")
    for name in NAMES:
        np.testing.assert_array_equal(found[name], one[name], err_msg=name)


@pytest.mark.parametrize("relu", [False, True])
def test_second_gradient_equals_that_of_the_formulas(relu: bool) -> None:
    given = [tf.constant(one) for one in case(2, 3, 3, 4)]

    def loss(own: bool) -> list[tf.Tensor]:
        x, gamma, beta, dy = given
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as inner:
                inner.watch([x, gamma])
                if own:
                    y = normalization.normalize_batch(x, gamma, beta, EPSILON, relu)[0]
                else:
                    mean, variance = tf.nn.moments(x, [0, 1, 2])
                    y = (x - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta
                    y = tf.nn.relu(y) if relu else y
            dx, dgamma = inner.gradient(y, [x, gamma], output_gradients=dy)
            total = tf.reduce_sum(dx**2) + tf.reduce_sum(dgamma**2)
        return outer.gradient(total, [x, gamma, dy])

    for found, expected in zip(loss(True), loss(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_unknown_dimensions_and_wrong_shapes() -> None:
    def traced(x: tf.Tensor, gamma: tf.Tensor) -> list[tf.TensorShape]:
        return [one.shape for one in normalization.normalize_batch(x, gamma, gamma, EPSILON)]

    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 5, None, 4))
        vector = tf.compat.v1.placeholder(tf.float32, (None,))
        assert [one.as_list() for one in traced(x, vector)] == [[None, 5, None, 4], [4], [4]]
        with pytest.raises(ValueError, match="Dimension"):
            traced(x, tf.zeros(3))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must have shape \[4\], got \[3\]"):
        traced(tf.zeros((2, 5, 5, 4)), tf.zeros(3))


def test_the_layer_takes_the_kernel_where_there_is_one() -> None:
    def used(dtype: str, training: bool, jit_compile: bool = False) -> bool:
        layer = layers.BatchNormalization()
        layer.build((None, 5, 5, 4))
        call = tf.function(lambda x: layer(x, training=training), jit_compile=jit_compile)
        graph = call.get_concrete_function(tf.TensorSpec((2, 5, 5, 4), dtype)).graph
        return any(op.type == "DlbenchBatchNormalization" for op in graph.get_operations())

    on_cpu = not tf.config.get_visible_devices("GPU")
    assert used("float32", True) == used("bfloat16", True) == on_cpu
    assert not used("float32", False)
    assert not used("float16", True)
    assert not used("float64", True)
    assert not used("float32", True, jit_compile=True)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize(
    "shape", [(0, 3), (1,), (63,), (2, 5, 7, 64), (32768,), (2, 32768), (3, 41, 1000)]
)
def test_sum(isa: str, shape: tuple[int, ...], dtype: tf.DType) -> None:
    """Rounded once, as TensorFlow's: the same bits; parts, and values that fill no vector."""
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.standard_normal(shape), dtype) for _ in range(2))
    before = a.numpy(), b.numpy()
    np.testing.assert_array_equal(normalization.add(a, b), a + b)
    np.testing.assert_array_equal(a, before[0])  # its buffer is not the sum's
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_sum_in_the_place_of_what_nothing_else_reads(dtype: tf.DType) -> None:
    values = tf.cast(tf.random.stateless_normal((3, 70, 64), (1, 2)), dtype)

    @tf.function(input_signature=[tf.TensorSpec(None, dtype)])
    def sums(x: tf.Tensor) -> list[tf.Tensor]:
        ways = [
            normalization.add(-x, x),
            normalization.add(x, 2 * x),
            normalization.add(-x, 2 * x),
            normalization.add(x, x),
        ]
        return [*ways, x]

    for found, factor in zip(sums(values), (0, 3, 1, 2, 1), strict=True):
        np.testing.assert_array_equal(found, factor * values)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float64])
def test_sum_without_a_kernel(dtype: tf.DType) -> None:
    a, b = (tf.constant([1.0, -2.0], dtype) for _ in range(2))
    np.testing.assert_array_equal(normalization.add(a, b), a + b)
    compiled = tf.function(normalization.add, jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant([1.0]), tf.constant([2.0])), [3.0])


def test_sum_of_special_values(isa: str) -> None:
    values = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
    for dtype in (tf.float32, tf.bfloat16):
        a, b = (tf.constant(one, dtype) for one in np.meshgrid(values, values))
        found = normalization.add(a, b).numpy()
        # In NumPy, since TensorFlow takes subnormal numbers for zeros.
        with np.errstate(over="ignore", invalid="ignore"):
            expected = (a.numpy().astype(np.float32) + b.numpy()).astype(found.dtype)
        np.testing.assert_array_equal(*(one.astype(np.float32) for one in (found, expected)))


def test_sum_of_different_shapes() -> None:
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="3"):
        normalization.add(tf.zeros((2, 3)), tf.zeros((2, 1)))


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_fork_sums_up_gradients(dtype: tf.DType) -> None:
    """Of every order, in a graph and outside; an unused way counts as zero."""
    x = tf.constant([1.0, -2.0, 3.0], dtype)

    def gradients(used: int) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                ways = normalization.fork(x)
                y = tf.add_n([x * x * way for way in ways[:used]])
            first = tape.gradient(y, x)
        return first, outer.gradient(first, x)

    for used in (1, 2):
        for run in (gradients, tf.function(gradients)):
            first, second = run(used)
            np.testing.assert_array_equal(first, used * 3 * x * x)
            np.testing.assert_array_equal(second, used * 6 * x)


def test_residual_layers_add_by_the_compiled_op() -> None:
    """In the forward pass of a training step and where gradients come together, nowhere else."""
    network = models.build("deepvel", (None, None, 2), 6, blocks=2, filters=4)

    @tf.function
    def step(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            y = network(x, training=True)
        return tape.gradient(y, network.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec((2, 9, 11, 2))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    on_cpu = not tf.config.get_visible_devices("GPU")
    assert kinds.count("DlbenchAdd") == (3 + 3 if on_cpu else 0)
    assert "AddN" not in kinds
    predicting = tf.function(network).get_concrete_function(tf.TensorSpec((2, 9, 11, 2))).graph
    assert "DlbenchAdd" not in {operation.type for operation in predicting.get_operations()}
