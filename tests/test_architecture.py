"""The figure of a network against the facts published about it, and against small graphs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dlbench import architecture, models
from dlbench.architecture import Architecture, Block, describe
from dlbench.architecture_figure import draw
from dlbench.layers import MaxPoolWithIndices, MaxUnpool, SpatialSize


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


@functools.cache  # a network is built but once
def described(
    name: str, size: tuple[int, int] = (360, 480), bands: int = 3, outputs: int = 11, **options: Any
) -> Architecture:
    return describe(models.build(name, (None, None, bands), outputs, **options), size)


def kinds(found: Architecture) -> list[str]:
    return [node.kind for node in found.nodes]


def test_segnet_is_drawn_as_published() -> None:
    segnet = described("segnet")
    sizes = [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
    assert [segnet.nodes[stage[0]].size for stage in segnet.stages] == sizes + sizes[-2::-1]
    filters: list[list[int]] = [
        [segnet.nodes[n].channels for n in stage if segnet.nodes[n].kind == "convolution"]
        for stage in segnet.stages
    ]
    encoder = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3, []]
    decoder = [[512] * 3, [512, 512, 256], [256, 256, 128], [128, 64], [64, 11]]
    assert filters == encoder + decoder
    *inner, classifier = [node for node in segnet.nodes if node.kind == "convolution"]
    assert {node.look for node in inner} == {"convolution + BN + ReLU"}
    assert classifier.look == "convolution"
    assert {node.kernel for node in [*inner, classifier]} == {(3, 3)}
    assert not any(node.dropout for node in segnet.nodes)


def test_each_unpool_is_linked_to_its_pool() -> None:
    segnet = described("segnet")
    assert len(segnet.indices) == 5
    for pool, unpool in segnet.indices:
        assert segnet.nodes[pool].kind == "max pooling"
        assert segnet.nodes[unpool].kind == "max unpooling"
        # The unpool restores what its pool read.
        assert segnet.nodes[unpool].size == segnet.nodes[pool - 1].size
        assert segnet.nodes[unpool].channels == segnet.nodes[pool].channels
    pools, unpools = zip(*segnet.indices, strict=True)
    assert pools == tuple(sorted(pools, reverse=True)) and unpools == tuple(sorted(unpools))
    assert segnet.skips == [] and segnet.blocks == []


def test_totals_of_segnet() -> None:
    """Against the figures computed from the authors' prototxt files."""
    segnet = described("segnet")
    assert (segnet.parameters, segnet.trainable) == (29_465_227, 29_449_355)
    assert round(segnet.macs / 1e9, 3) == 106.712
    # VGG16's last pool is seen from 212 pixels; the decoder reaches 7 x 7 of its outputs, 32 apart.
    assert segnet.receptive_field == 212 + 6 * 32


def test_totals_of_segnet_basic() -> None:
    found = described("segnet_basic")
    assert (found.parameters, found.trainable) == (1_417_611, 1_416_587)
    assert round(found.macs / 1e9, 3) == 59.189
    assert kinds(found)[:3] == ["input", "local response normalization", "convolution"]
    assert [n.look for n in found.nodes if n.kernel == (7, 7)] == [
        *4 * ["convolution + BN + ReLU"],
        *4 * ["convolution + BN"],
    ]


def test_deepvel_is_drawn_with_one_block() -> None:
    found = described("deepvel", (50, 50), 2, 6)
    assert [(n.look, n.channels) for n in found.nodes] == [
        ("input", 2),
        ("convolution + ReLU", 64),
        ("convolution + BN + ReLU", 64),
        ("convolution + BN", 64),
        ("addition", 64),
        ("convolution + BN", 64),
        ("addition", 64),
        ("convolution", 6),
    ]
    assert found.blocks == [Block(2, 5, repeats=21)]
    assert found.skips == [(1, 4), (1, 6)], "within the block, and from the first convolution"
    assert found.indices == []
    assert len(found.stages) == 1
    assert (found.parameters, found.trainable) == (1_600_518, 1_595_014)
    assert round(found.macs / 1e9, 3) == 3.967
    assert found.receptive_field == 89


@pytest.mark.parametrize(
    ("blocks", "drawn", "nodes"), [(0, [], 5), (1, [], 8), (2, [Block(2, 5, 2)], 8)]
)
def test_blocks_are_counted_from_the_graph(blocks: int, drawn: list[Block], nodes: int) -> None:
    found = described("deepvel", (9, 11), 2, 6, blocks=blocks, filters=4)
    assert found.blocks == drawn
    assert len(found.nodes) == nodes
    assert found.receptive_field == 5 + 4 * blocks


def residual(filters: list[int], tap: int | None = None) -> keras.Model:
    """A residual block for each number of filters; the last sum adds that of block ``tap``."""
    image = x = keras.Input((None, None, 4))
    sums = []
    for n in filters:
        y = keras.layers.Conv2D(4, 1)(keras.layers.Conv2D(n, 1)(x))
        x = keras.layers.Add()([x, y])
        sums.append(x)
    if tap is not None:
        x = keras.layers.Add()([sums[tap], keras.layers.Conv2D(4, 1)(x)])
    return keras.Model(image, x)


def test_only_blocks_that_are_alike_are_drawn_as_one() -> None:
    found = describe(residual([5, 5, 5, 6, 7, 7]), (8, 8))
    assert [block.repeats for block in found.blocks] == [3, 2]
    assert len(found.nodes) == 1 + 3 * 3
    assert [n.channels for n in found.nodes] == [4, 5, 4, 4, 6, 4, 4, 7, 4, 4]
    assert found.skips == [(0, 3), (3, 6), (6, 9)]


def test_a_block_that_is_read_from_outside_is_drawn() -> None:
    assert describe(residual([5, 5, 5]), (8, 8)).blocks == [Block(1, 4, 3)]
    found = describe(residual([5, 5, 5], tap=0), (8, 8))
    assert (3, len(found.nodes) - 1) in found.skips
    assert [(b.start, b.repeats) for b in found.blocks] == [(4, 2)]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("segnet_bayesian", ["pool", "pool", "pool", "conv", "conv", "conv"]),
        ("segnet_basic_bayesian", ["pool", "pool", "conv", "conv"]),
    ],
)
def test_dropout_is_marked(name: str, places: list[str]) -> None:
    found = described(name, width=0.05, dropout=0.3)
    marked = [node for node in found.nodes if node.dropout]
    assert [{"max pooling": "pool", "convolution": "conv"}[n.kind] for n in marked] == places
    assert {node.dropout for node in marked} == {0.3}


def test_receptive_field_by_hand() -> None:
    """conv3, pool, pool, unpool, unpool, conv3: three pixels lie in two cells of four at most."""
    image = x = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    kept = []
    for _ in range(2):
        size = SpatialSize()(x)
        x, indices = MaxPoolWithIndices()(x)
        kept.append((indices, size))
    for indices, size in reversed(kept):
        x = MaxUnpool()([x, indices, size])
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    found = describe(keras.Model(image, x), (37, 21))
    assert found.receptive_field == 2 * 4 + 2
    assert [n.size for n in found.nodes[2:6]] == [(19, 11), (10, 6), (19, 11), (37, 21)]
    assert found.macs == 2 * 9 * 37 * 21


def test_a_reach_that_is_not_known_is_left_out() -> None:
    image = keras.Input((None, None, 1))
    network = keras.Model(image, keras.layers.UpSampling2D()(image))
    found = describe(network, (4, 4))
    assert found.receptive_field is None
    assert (found.nodes[1].kind, found.nodes[1].size) == ("up sampling2d", (8, 8))


# ---- The figure


def drawn(
    found: Architecture, path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Figure, set[int]]:
    """The figure, laid out at the resolution of the file, and the colours in it."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw(found, "a network", path)
    figures[0].dpi = 150
    canvas = FigureCanvasAgg(figures[0])
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(np.uint32)
    return figures[0], set(np.unique(pixels[..., :3] @ np.array([1 << 16, 1 << 8, 1])).tolist())


DRAWN: dict[str, Callable[[], Architecture]] = {
    "segnet": lambda: described("segnet"),
    "segnet_basic": lambda: described("segnet_basic"),
    "segnet_bayesian": lambda: described("segnet_bayesian", width=0.05, dropout=0.3),
    "segnet_basic_bayesian": lambda: described("segnet_basic_bayesian", width=0.05, dropout=0.3),
    "deepvel": lambda: described("deepvel", (50, 50), 2, 6),
    "one block": lambda: described("deepvel", (9, 11), 2, 6, blocks=1, filters=4),
    "wider than the page": lambda: describe(residual([5, 6, 7, 8, 9, 10]), (1234, 5678)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_text_stands_by_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, _ = drawn(DRAWN[name](), tmp_path / "figure.png", monkeypatch)
    texts = [*figure.axes[0].texts, *figure.legends[0].get_texts()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    page = figure.bbox
    assert len(boxes) > 10
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[:number]), texts[number]


@pytest.mark.parametrize("name", ["segnet", "deepvel"])
def test_kinds_of_layers_have_their_colours(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, colors = drawn(DRAWN[name](), tmp_path / "figure.png", monkeypatch)
    blue, green, vermillion, pink = 0x0072B2, 0x009E73, 0xD55E00, 0xCC79A7
    assert blue in colors
    assert (green in colors) == (vermillion in colors) == (name == "segnet")
    assert (pink in colors) == (name == "deepvel")


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "figure.png"
    assert architecture.main(["deepvel", str(path), "blocks=2", "filters=4", "size=9x11"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    with Image.open(path) as picture:
        picture.load()
        assert picture.width == 1350
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: .* known models: segnet, "),
        (["segnett"], "unknown model 'segnett'; known: segnet, segnet_basic"),
        (["deepvel", "width=2"], "width: .*; known options: blocks, filters$"),
        (["deepvel", "blocks=-1"], "blocks: .*greater than or equal to 0"),
        (["deepvel", "size=50"], "size=50: allowed is HEIGHTxWIDTH, for example 360x480"),
        (["deepvel", "size=0x5"], "size=0x5: allowed is HEIGHTxWIDTH"),
        (["deepvel", "bands=two"], "bands=two: allowed is a whole number from 1 to 4096"),
        (["deepvel", "outputs=0"], "outputs=0: allowed is a whole number from 1 to 4096"),
        (["deepvel", "figure.svg"], "figure.svg does not end in .png"),
        (["deepvel", "blocks=[2"], r"blocks=\[2.* is not YAML"),
        (["deepvel", "/dev/null/figure.png", "blocks=0", "filters=1"], "cannot write /dev/null"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert architecture.main(arguments) == 2
    told = [line for line in capfd.readouterr().err.splitlines() if "dlbench.arch" in line]
    assert len(told) == 1
    assert re.search(message, told[0])


def test_a_figure_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = describe(residual([5]), (8, 8))
    path = tmp_path / "figure.png"
    draw(found, "residual", path)
    before = path.read_bytes()
    draw(found, "residual", path)
    assert path.read_bytes() == before, "the same figure is the same file"

    def torn(_: Figure, file: Any, **options: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="No space"):
        draw(found, "another", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
