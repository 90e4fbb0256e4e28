from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dlbench.data.dataset import IGNORE, ClassInfo
from dlbench.display import NEUTRAL, colored, displayed, telling
from dlbench.metrics import ConfusionMatrix
from dlbench.pictures import confusion_figure, curve_figure, prediction_grid
from dlbench.tasks.segmentation import Segmentation

CLASSES = (
    ClassInfo("road", (255, 255, 255), 1),
    ClassInfo("building", (0, 0, 255), 2),
    ClassInfo("tree", (0, 255, 0), 5),
)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture.convert("RGB"))


def share(picture: np.ndarray, color: Sequence[float]) -> float:
    return float((picture == color).all(axis=-1).mean())


def test_labels_get_their_class_colours() -> None:
    labels = np.array([[0, 1], [2, IGNORE]], np.uint8)
    expected = [[(255, 255, 255), (0, 0, 255)], [(0, 255, 0), NEUTRAL]]
    np.testing.assert_array_equal(colored(labels, CLASSES), expected)
    with pytest.raises(ValueError, match=r"labels hold \[3, 9\]; allowed are 0 to 2 and 255"):
        colored(np.array([[9, 3]]), CLASSES)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float16"])
def test_any_type_is_stretched_by_percentiles(dtype: str) -> None:
    ramp = np.arange(100).reshape(10, 10, 1).astype(dtype)
    ramp[0, 0] = -100 if dtype != "uint8" and dtype != "uint16" else 0
    shown = displayed(ramp)
    assert shown.dtype == np.uint8
    assert shown.shape == (10, 10, 3)
    assert (shown == shown[..., :1]).all()  # one band is grey
    level = shown[..., 0].ravel()
    assert level[:2].max() == 0  # one outlier does not darken the rest
    assert level[-2:].min() == 255
    assert 124 <= level[50] <= 132
    assert (np.diff(level.astype(int)) >= 0).all()


def test_bands_are_chosen_and_stretched_on_their_own() -> None:
    random = np.random.default_rng(0)
    image = random.random((20, 20, 5)) * [1, 1000, 0.001, 1, 1]
    first_three, chosen = displayed(image), displayed(image, bands=(2, 1, 0))
    np.testing.assert_array_equal(first_three, chosen[..., ::-1])
    assert (first_three.reshape(-1, 3).max(axis=0) == 255).all()
    assert displayed(image[..., :2]).shape == (20, 20, 3)
    for bands in ((0, 1), (0, 1, 5), (-1,)):
        with pytest.raises(ValueError, match="one or three of 0 to 4"):
            displayed(image, bands)
    with pytest.raises(ValueError, match="needed is"):
        displayed(image[..., 0])


@pytest.mark.parametrize("labelled", [0.9, 0.01])
def test_clouds_do_not_take_up_the_contrast(labelled: float) -> None:
    """Ground of 500 to 1500, a third under clouds of 9000, a corner without data."""
    ground = np.linspace(500, 1500, 100 * 100).reshape(100, 100, 1).repeat(3, axis=-1)
    clear = np.ones((100, 100), bool)
    clear[20:53] = clear[:5, :5] = False
    image = np.where(clear[..., None], ground, 9000).astype(np.uint16)
    image[:5, :5] = 0
    drawn = np.random.default_rng(0).random((100, 100)) < labelled
    truth = np.where(clear & drawn, 0, IGNORE).astype(np.uint8)
    counted = telling(image, truth, None, (0.0, 5000.0))
    assert counted is not None and counted[clear].mean() > 0.85 and not counted[~clear].any()
    spread = displayed(image, None, counted)[clear]
    assert spread.min() == 0 and spread.max() == 255
    assert np.ptp(displayed(image)[clear]) < 60, "as it was"
    nothing = np.full_like(truth, IGNORE)
    assert telling(image, nothing, None, None) is None
    assert telling(np.zeros_like(image), nothing, None, (0.0, 5000.0)) is None
    np.testing.assert_array_equal(displayed(image, None, nothing == 0), displayed(image))


def test_missing_and_constant_values() -> None:
    image = np.full((4, 4, 3), 7.0)
    image[0, 0, 1] = np.nan
    shown = displayed(image)
    assert tuple(shown[0, 0]) == NEUTRAL
    assert set(shown[1:].ravel()) == {128}
    assert (displayed(np.full((2, 2, 1), np.nan)) == NEUTRAL).all()


def test_the_grid_shows_truth_prediction_and_void(tmp_path: Path) -> None:
    images = [np.zeros((30, 40, 4), np.uint16), np.ones((30, 40, 4), np.uint16)]
    truths = [np.full((30, 40), 1, np.uint8), np.full((30, 40), IGNORE, np.uint8)]
    predictions = [np.full((30, 40), 2, np.uint8)] * 2
    plain = tmp_path / "plain.png"
    prediction_grid(images, truths, predictions, CLASSES, plain)
    picture = pixels(plain)
    panel = share(picture, (0, 0, 255))  # one panel of six is the building
    assert 0.1 < panel < 1 / 6
    assert share(picture, (0, 255, 0)) == pytest.approx(2 * panel, rel=0.05)
    assert share(picture, NEUTRAL) == pytest.approx(panel, rel=0.05)
    assert [p.name for p in tmp_path.iterdir()] == ["plain.png"]

    wide = tmp_path / "wide.png"
    names = ["first", "LC08_L2SP_007056_20150310_20200909_02_T1-part-row0-column0/row0-column0"]
    uncertain = [np.random.default_rng(0).random((30, 40))] * 2
    prediction_grid(
        images, truths, predictions, CLASSES, wide, uncertainties=uncertain, names=names
    )
    assert pixels(wide).shape[1] > 1.3 * picture.shape[1]

    again = tmp_path / "again.png"
    prediction_grid(images, truths, predictions, CLASSES, again)
    assert again.read_bytes() == plain.read_bytes()


def test_lists_of_unequal_length_are_refused(tmp_path: Path) -> None:
    image, labels = np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="2 predictions for 1 images"):
        prediction_grid([image], [labels], [labels, labels], CLASSES, tmp_path / "a.png")
    with pytest.raises(ValueError, match="0 uncertainties for 1 images"):
        prediction_grid([image], [labels], [labels], CLASSES, tmp_path / "a.png", uncertainties=[])
    with pytest.raises(ValueError, match="no images"):
        prediction_grid([], [], [], CLASSES, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        prediction_grid([image], [labels], [labels], CLASSES, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_the_confusion_figure_darkens_with_the_share(tmp_path: Path) -> None:
    matrix = ConfusionMatrix(3)
    matrix.update([0] * 10 + [1] * 10, [0] * 10 + [1] * 5 + [0] * 5)  # class 2 is absent
    path = tmp_path / "confusion.png"
    confusion_figure(matrix, ["road", "building", "tree"], path)
    picture = pixels(path)
    full, half = (share(picture, colormaps["Blues"](x, bytes=True)[:3]) for x in (1.0, 0.5))
    assert full > 0.03
    assert half == pytest.approx(2 * full, rel=0.1)
    with pytest.raises(ValueError, match="1 class names for 3 classes"):
        confusion_figure(matrix, ["road"], path)
    confusion_figure(ConfusionMatrix(3), ["road", "building", "tree"], path)  # no pixel at all


def test_the_curve_is_read_from_the_metrics_file(tmp_path: Path) -> None:
    metrics, path = tmp_path / "metrics.csv", tmp_path / "curve.png"
    metrics.write_text("epoch,loss,val_loss,val_miou\n1,2.0,,\n2,1.0,1.5,0.3\n3,0.5,1.2,0.4\n")
    curve_figure(metrics, path, Segmentation.score)
    with_scores = pixels(path)
    assert share(with_scores, (0, 114, 178)) > 0.0005  # the training loss
    assert share(with_scores, (213, 94, 0)) > 0.0005  # validation
    metrics.write_text("epoch,loss,val_miou\n1,2.0,\n2,1.0,\n")  # not evaluated yet
    curve_figure(metrics, path, Segmentation.score)
    assert share(pixels(path), (213, 94, 0)) == 0.0
    metrics.write_text("epoch,loss\n1,2.0\n")
    with pytest.raises(ValueError, match=r"metrics\.csv lacks the columns val_miou"):
        curve_figure(metrics, path, Segmentation.score)
    metrics.write_text("")
    with pytest.raises(ValueError, match="or is empty"):
        curve_figure(metrics, path, Segmentation.score)
