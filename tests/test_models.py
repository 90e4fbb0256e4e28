"""The networks against the facts published about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from dlbench import layers, models
from dlbench.config import ConfigError
from dlbench.errors import UserError
from dlbench.models.segnet import load_vgg16_encoder

VGG16 = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
VGG16 += [(256, 512), *[(512, 512)] * 5]
BLOCKS = (2, 2, 3, 3, 3)
DECODER = [(512, 512)] * 5 + [(512, 256), (256, 256), (256, 256), (256, 128), (128, 128)]
DECODER += [(128, 64), (64, 64)]
SMALL: dict[str, dict[str, Any]] = {name: {"width": 0.05} for name in models.MODELS}
SMALL["deepvel"] = {"filters": 4, "blocks": 2}


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


def build(name: str, bands: int = 3, classes: int = 11, **options: Any) -> keras.Model:
    return models.build(name, (None, None, bands), classes, **options)


@pytest.fixture(scope="module")
def segnet() -> keras.Model:
    keras.config.set_dtype_policy("float32")
    return build("segnet")


def trainable(network: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def weights(network: keras.Model) -> int:
    """Trainable weights and batch-norm statistics; the state of a random generator is neither."""
    return sum(int(np.prod(v.shape)) for v in network.variables if v.dtype == "float32")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("segnet", (29_449_355, 29_465_227)),
        ("segnet_bayesian", (29_449_355, 29_465_227)),
        ("segnet_basic", (1_416_587, 1_417_611)),
        ("segnet_basic_bayesian", (1_416_587, 1_417_611)),
        ("deepvel", (1_595_014, 1_600_518)),
    ],
)
def test_parameter_counts(name: str, expected: tuple[int, int], segnet: keras.Model) -> None:
    sides = {"deepvel": (2, 6)}.get(name, (3, 11))  # frames and velocities, bands and classes
    network = segnet if name == "segnet" else build(name, *sides)
    assert (trainable(network), weights(network)) == expected


@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
def test_packed_indices_change_nothing(name: str) -> None:
    plain, packed = (build(name, width=0.1, packed_indices=chosen) for chosen in (False, True))
    packed.set_weights(plain.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (2, 37, 45, 3)).astype(np.uint8)
    assert np.array_equal(packed(image), plain(image))
    bytes_of = [network.get_layer("pool1").output[1].shape[-1] for network in (plain, packed)]
    assert bytes_of[1] == -(-bytes_of[0] // 4)


def kinds(network: keras.Model, first: str, last: str) -> list[str]:
    """The kinds of layers between two named ones, both included, in the order of the network."""
    names = [layer.name for layer in network.layers]
    chosen = network.layers[names.index(first) : names.index(last) + 1]
    return [type(layer).__name__ for layer in chosen if type(layer).__name__ != "SpatialSize"]


def convolutions(network: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (layer.name, tuple(layer.kernel.shape))
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


def activations(network: keras.Model) -> list[str | None]:
    return [x.activation for x in network.layers if isinstance(x, layers.BatchNormalization)]


def test_segnet_layers(segnet: keras.Model) -> None:
    found = convolutions(segnet)
    assert [shape for _, shape in found] == [(3, 3, *io) for io in [*VGG16, *DECODER, (64, 11)]]
    for name, _ in found:
        layer = segnet.get_layer(name)
        assert layer.use_bias and layer.padding == "same" and layer.strides == (1, 1)
        assert layer.activation is keras.activations.linear
    block = ["Conv2D", "BatchNormalization"]
    assert set(activations(segnet)) == {"relu"}
    for stage, count in enumerate(BLOCKS, start=1):
        last = f"pool{stage}"
        assert kinds(segnet, f"enc{stage}_1_conv", last) == [*block * count, "MaxPoolWithIndices"]
    assert kinds(segnet, "unpool5", "dec5_1_bn") == ["MaxUnpool", *block * 3]
    assert kinds(segnet, "unpool1", "classifier") == ["MaxUnpool", *block, "Conv2D"]
    assert segnet.layers[-1].name == "classifier", "neither batch-norm nor ReLU comes after"
    assert not any("Dropout" in type(layer).__name__ for layer in segnet.layers)


def test_basic_layers() -> None:
    network = build("segnet_basic")
    found = convolutions(network)
    assert [s for _, s in found] == [(7, 7, 3, 64), *[(7, 7, 64, 64)] * 7, (1, 1, 64, 11)]
    assert kinds(network, "lrn", "pool1") == [
        "LocalResponseNormalization", "Conv2D", "BatchNormalization", "MaxPoolWithIndices",
    ]  # fmt: skip
    for stage in (4, 3, 2, 1):
        decoder = kinds(network, f"unpool{stage}", f"dec{stage}_bn")
        assert decoder == ["MaxUnpool", "Conv2D", "BatchNormalization"]
    assert activations(network) == ["relu"] * 4 + [None] * 4, "no ReLU in the decoder"
    assert network.layers[-1].name == "classifier"
    lrn = network.get_layer("lrn")
    assert (lrn.size, lrn.alpha, lrn.beta) == (5, 1e-4, 0.75)


def upstream(layer: keras.layers.Layer) -> list[str]:
    return [tensor._keras_history.operation.name for tensor in keras.tree.flatten(layer.input)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "segnet_bayesian",
            {"pool3": "enc4_1_conv", "pool4": "enc5_1_conv", "pool5": "unpool5"}
            | {"dec5_1_bn": "unpool4", "dec4_1_bn": "unpool3", "dec3_1_bn": "unpool2"},
        ),
        (
            "segnet_basic_bayesian",
            {"pool3": "enc4_conv", "pool4": "unpool4"}
            | {"dec4_bn": "unpool3", "dec3_bn": "unpool2"},
        ),
    ],
)
def test_dropouts_stand_where_the_paper_has_them(name: str, expected: dict[str, str]) -> None:
    network = build(name, width=0.05)
    between = {}
    for layer in network.layers:
        if type(layer).__name__ == "MonteCarloDropout":
            assert layer.rate == 0.5
            after = [x.name for x in network.layers if layer.name in upstream(x)]
            between[upstream(layer)[0]] = after[0]
            assert len(after) == 1
    assert between == expected


def test_unpools_use_the_indices_and_size_of_their_pool() -> None:
    network = build("segnet", width=0.05)
    for stage in range(1, 6):
        values, indices, size = upstream(network.get_layer(f"unpool{stage}"))
        assert values == ("pool5" if stage == 5 else f"dec{stage + 1}_1_bn")
        assert (indices, size) == (f"pool{stage}", f"size{stage}")
        pooled = upstream(network.get_layer(f"pool{stage}"))
        assert upstream(network.get_layer(f"size{stage}")) == pooled


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize(("height", "width", "bands"), [(45, 61, 3), (33, 32, 1), (40, 37, 13)])
def test_any_size_and_bands(name: str, height: int, width: int, bands: int) -> None:
    network = build(name, bands, classes=5, **SMALL[name])
    image = np.random.default_rng(0).integers(0, 255, (2, height, width, bands), np.uint8)
    logits = network(image).numpy()
    assert logits.shape == (2, height, width, 5)
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0


def test_a_network_for_one_size() -> None:
    network = models.build("segnet", (45, 61, 3), 5, width=0.05)
    assert network(np.zeros((1, 45, 61, 3), np.uint8)).shape == (1, 45, 61, 5)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_saved_and_read_again(name: str, policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    network = build(name, **SMALL[name])
    generator = np.random.default_rng(0)
    for variable in network.non_trainable_variables:
        if variable.dtype == "float32":
            variable.assign(generator.uniform(0.5, 2.0, variable.shape))
    network.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    again = keras.models.load_model(tmp_path / "model.keras")
    image = generator.integers(0, 255, (1, 45, 61, 3), np.uint8)
    np.testing.assert_array_equal(again(image), network(image))


@pytest.mark.parametrize(
    ("name", "value_range", "expected"),
    [
        ("segnet", (0.0, 255.0), (-1.0, 1.0)),
        ("segnet_bayesian", (0.0, 4000.0), (-1.0, 1.0)),
        ("segnet", (1000.0, 5000.0), (-1.0, 1.0)),
        # Local response normalisation has constants that are meant for grey values.
        ("segnet_basic", (0.0, 255.0), (0.0, 255.0)),
        ("segnet_basic_bayesian", (0.0, 4000.0), (0.0, 255.0)),
    ],
)
def test_the_input_is_rescaled_from_the_data_sets_range(
    name: str, value_range: tuple[float, float], expected: tuple[float, float]
) -> None:
    network = build(name, width=0.05, value_range=value_range)
    found = network.get_layer("rescale")(np.array([value_range], np.float32))
    np.testing.assert_allclose(found, [expected], atol=1e-4)


def test_a_given_rescale_stands() -> None:
    network = build("segnet", width=0.05, value_range=(0.0, 9.0), rescale=(2.0, 1.0))
    np.testing.assert_allclose(network.get_layer("rescale")(np.array([[3.0]])), [[7.0]])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segnett", {}, "unknown model 'segnett'; known: segnet, segnet_basic"),
        ("segnet", {"dropout": 0.5}, "dropout: .*; known options: width, rescale, packed_indices$"),
        ("segnet", {"width": 0}, "width: .*greater than 0"),
        ("segnet_bayesian", {"dropout": 1.0}, "dropout: .*less than 1"),
    ],
)
def test_wrong_names_and_options_are_told(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models.check(name, options)


# ---- VGG16 initialisation


@pytest.fixture(scope="module")
def vgg16() -> keras.Model:
    keras.config.set_dtype_policy("float32")
    network = keras.applications.VGG16(weights=None, include_top=False)
    generator = np.random.default_rng(0)
    network.set_weights([generator.normal(size=w.shape) for w in network.get_weights()])
    return network


def published_layout(network: keras.Model, file: Path) -> None:
    """As vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5, which Keras 1 wrote."""
    with h5py.File(file, "w") as h5:
        h5.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = h5.create_group(layer.name)
            names = [f"{layer.name}_{x}_1:0" for x in ("W", "b")] if layer.weights else []
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=value)


LAYOUTS = {
    "vgg16.weights.h5": lambda network, file: network.save_weights(file),
    "whole.h5": lambda network, file: network.save(file),
    "published.h5": published_layout,
}


@pytest.fixture(scope="module", params=LAYOUTS)
def vgg16_file(
    request: pytest.FixtureRequest, vgg16: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("vgg16") / request.param
    LAYOUTS[request.param](vgg16, file)
    return file


@pytest.mark.parametrize("bands", [3, 4])
def test_vgg16_initialises_the_encoder(vgg16_file: Path, vgg16: keras.Model, bands: int) -> None:
    network = build("segnet", bands)
    decoder = network.get_layer("dec1_1_conv").get_weights()
    message = load_vgg16_encoder(network, vgg16_file)
    assert str(vgg16_file) in message
    assert ("as they are" in message) == (bands == 3)
    for stage, count in enumerate(BLOCKS, start=1):
        for number in range(1, count + 1):
            kernel, bias = network.get_layer(f"enc{stage}_{number}_conv").get_weights()
            source, source_bias = vgg16.get_layer(f"block{stage}_conv{number}").get_weights()
            if (stage, number) == (1, 1):
                mean = source.mean(axis=2, keepdims=True)
                # VGG16 reads blue, green, red.
                source = source[:, :, ::-1] if bands == 3 else mean.repeat(4, axis=2) * 0.75
            np.testing.assert_allclose(kernel, source, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(bias, source_bias)
    for before, after in zip(decoder, network.get_layer("dec1_1_conv").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("content", [None, b"not HDF5", "empty", "lacks a layer"])
def test_a_wrong_vgg16_file_is_named(
    content: bytes | str | None, tmp_path: Path, segnet: keras.Model
) -> None:
    file = tmp_path / "weights.h5"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        with h5py.File(file, "w") as h5:
            if content == "lacks a layer":
                h5.create_group("block1_conv1")["kernel"] = np.zeros((3, 3, 3, 64))
    before = segnet.get_layer("enc1_1_conv").get_weights()
    with pytest.raises(UserError, match="weights.h5 is not a readable Keras VGG16"):
        load_vgg16_encoder(segnet, file)
    np.testing.assert_array_equal(segnet.get_layer("enc1_1_conv").get_weights()[0], before[0])


def test_vgg16_does_not_fit_another_network(vgg16: keras.Model, tmp_path: Path) -> None:
    file = tmp_path / "vgg16.weights.h5"
    vgg16.save_weights(file)
    with pytest.raises(UserError, match=r"vgg16.weights.h5: block1_conv1 has a kernel of shape"):
        load_vgg16_encoder(build("segnet", width=0.5), file)
    with pytest.raises(UserError, match="segnet_basic has another encoder than VGG16"):
        load_vgg16_encoder(build("segnet_basic"), file)


def test_deepvel_sees_89_pixels() -> None:
    network = build("deepvel", 2, 6, filters=4)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            # Each looks at its last row and column alone: the farthest pixel arrives undiminished.
            kernel = np.zeros(layer.kernel.shape, np.float32)
            kernel[-1, -1] = 1 / kernel.shape[2]
            layer.kernel.assign(kernel)
    image = np.zeros((1, 101, 95, 2), np.float32)
    assert network(image).shape == (1, 101, 95, 6)
    image[0, 94, 91] = 1.0
    seen = network(image).numpy()[0].any(axis=-1)
    assert seen[94 - 44, 91 - 44]
    assert seen[93, 90], "over the skip connection, the first convolution alone"
    assert not seen[: 94 - 44].any()
    assert not seen[:, : 91 - 44].any()


def test_deepvel_is_made_as_published() -> None:
    """Convolution, 21 residual blocks without a ReLU at their end, a skip over all of them."""
    network = build("deepvel", 2, 6)
    block = ["Conv2D", "BatchNormalization", "Conv2D", "BatchNormalization", "Add"]
    assert activations(network) == 21 * ["relu", None] + [None]
    # A fork computes nothing: it adds up gradients.
    computing = [x for x in network.layers if not isinstance(x, layers.Fork)]
    assert [type(layer).__name__ for layer in computing] == [
        "InputLayer",
        "Conv2D",
        *21 * block,
        "Conv2D",
        "BatchNormalization",
        "Add",
        "Conv2D",
    ]
    assert network.get_layer("conv1").activation is keras.activations.relu
    assert network.get_layer("velocity").activation is keras.activations.linear
    first, last = network.get_layer("add").input
    assert first is network.get_layer("fork").output[0]
    assert network.get_layer("fork").input is network.get_layer("conv1").output
    assert last is network.get_layer("conv2_bn").output
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert layer.kernel_size == ((1, 1) if layer.name == "velocity" else (3, 3))
        if isinstance(layer, layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.99, 1e-3)


def test_a_model_goes_with_its_task() -> None:
    models.check_task("segnet", "camvid", "segmentation")
    with pytest.raises(ConfigError, match="deepvel is for velocity, data.name=camvid for segment"):
        models.check_task("deepvel", "camvid", "segmentation")
