"""benchmarks/tracking.py: FLCT on textures that moved by a known amount, the scan over settings."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from benchmarks import tracking
from benchmarks.tracking import TrackingError, Variant
from dlbench import data

PIXEL_KM, CADENCE_S = 39.6, 30.0


def texture(shape: tuple[int, int], seed: int = 0, scale: float = 1.5) -> np.ndarray:
    """A periodic random field of standard deviation 0.1 about 1, smooth over ``scale`` pixels."""
    y, x = (np.fft.fftfreq(n) for n in shape)
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal(shape))
    smooth = np.fft.ifft2(
        noise * np.exp(-2.0 * (np.pi * scale) ** 2 * (y[:, None] ** 2 + x**2))
    ).real
    return 1.0 + 0.1 * smooth / smooth.std()


def shifted(image: np.ndarray, columns: float, rows: float) -> np.ndarray:
    """What ``image`` shows has moved towards larger indices (Fourier's shift theorem)."""
    y, x = (np.fft.fftfreq(n) for n in image.shape)
    phase = np.exp(-2j * np.pi * (columns * x + rows * y[:, None]))
    return np.fft.ifft2(np.fft.fft2(image) * phase).real


def pair(shape: tuple[int, int], columns: float, rows: float, seed: int = 0) -> tracking.Pair:
    """Frames in the data set's layout with the velocity of a uniform shift in pixels."""
    first = texture(shape, seed)
    image = np.stack([first, shifted(first, columns, rows)], axis=-1).astype(np.float32)
    velocity = np.array([columns, rows] * 3, np.float32) * PIXEL_KM / CADENCE_S
    return image, np.broadcast_to(velocity, (*shape, 6))


@pytest.fixture
def flct() -> None:
    reason = "pyflct is not installed: pip install -c install/constraints.txt pyflct"
    pytest.importorskip("pyflct", reason=reason)


@pytest.mark.parametrize("shape", [(40, 40), (36, 48), (48, 36)])
@pytest.mark.parametrize("move", [(0.7, 0.0), (0.0, 0.7), (-1.3, 0.4)])
def test_a_shift_is_tracked(flct: None, shape: tuple[int, int], move: tuple[float, float]) -> None:
    image, truth = pair(shape, *move)
    for variant, tolerance in (
        (Variant(), 0.15),
        (Variant(True), 0.07),
        (Variant(True, 0.6), 0.07),
    ):
        found = tracking.track(image[..., 0], image[..., 1], 8.0, PIXEL_KM, CADENCE_S, variant)
        assert found.shape == (*shape, 2)
        # Inside; the bias that FLCT has towards small shifts is a part of the shift.
        inside = (slice(8, -8), slice(8, -8))
        error = np.abs(found - truth[..., :2])[inside].mean(axis=(0, 1))
        assert np.all(error < tolerance * np.abs(truth[0, 0, :2]).max())


def test_the_velocity_is_where_the_motion_is(flct: None) -> None:
    first = texture((36, 60))
    second = first.copy()
    second[:, 30:] = shifted(first, 1.0, 0.0)[:, 30:]
    found = tracking.track(first, second, 4.0, 1.0, 1.0)[..., 0]
    assert np.abs(found[:, :22]).max() < 0.01
    assert found[:, 38:52].mean() > 0.6


def test_noise_leaves_no_gap(flct: None) -> None:
    first, second = texture((40, 40), 3, 1.0), texture((40, 40), 4, 1.0)
    run = sys.modules["pyflct"].flct
    vx, vy, _ = run(first, second, 1.0, 1.0, 4.0, quiet=True, biascor=True)
    gaps = np.isnan(vx)
    assert gaps.any()  # or the case tests nothing
    plain = tracking.track(first, second, 4.0, 1.0, 1.0)
    found = tracking.track(first, second, 4.0, 1.0, 1.0, Variant(True))
    assert np.array_equal(found[gaps], plain[gaps])
    assert np.array_equal(found[~gaps], np.stack([vx, vy], axis=-1)[~gaps])


def test_a_uniform_flow_wants_the_wide_window(flct: None) -> None:
    pairs = [pair((36, 48), 0.8, -0.5, seed) for seed in range(2)]
    found = tracking.scan(pairs, [2.0, 8.0], PIXEL_KM, CADENCE_S)
    assert tracking.best_setting({(s, Variant()): found[s] for s in found}) == (8.0, Variant())
    assert found[8.0].rmse[0] < 0.4 < found[2.0].rmse[0]
    assert found[2.0].sums[0].tolist() == [2 * 36 * 48] * 6


class Made:
    """In place of the data set: a known velocity, its components and depths all different."""

    ground_sampling_distance = 39_600.0
    cadence_s = 30.0
    outputs = tracking.OUTPUTS

    def __init__(self, held: int = 4) -> None:
        self.held = held
        self.asked: list[int] = []

    def require_split(self, split: str) -> None:
        assert split == "val"

    def count(self, split: str) -> int:
        return self.held

    def read(self, split: str, index: int) -> tracking.Pair:
        self.asked.append(index)
        velocity = np.random.default_rng(index).standard_normal((8, 10, 2)) * [1.0, 2.0]
        depths = np.concatenate([velocity, velocity + 0.25, 0.5 * velocity], axis=-1)
        return velocity, depths


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(data, "build", lambda name, root: made)
    return made


@pytest.fixture
def made(dataset: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`Made`, and an FLCT that finds its velocity but for an error of |sigma - 4| / 10 km/s, twice
    that without its correction, three times that with a filter."""

    def find(first: np.ndarray, second: np.ndarray, *settings: float, **options: object) -> object:
        cadence_s, pixel_km, sigma = settings
        assert (cadence_s, pixel_km, options["quiet"]) == (30.0, 39.6, True)
        error = abs(sigma - 4.0) / 10.0 * (1 if options["biascor"] else 2)
        error *= 3 if options["kr"] == 0.4 else 1
        return first + error, second - error, np.ones_like(first)

    module = SimpleNamespace(flct=find, __version__="0.0")
    monkeypatch.setitem(sys.modules, "pyflct", module)
    return dataset


def test_the_scan_finds_the_better_sigma(made: Made) -> None:
    found = tracking.scan([made.read("val", 0)], [2.0, 5.0], 39.6, 30.0)
    assert found[5.0].rmse[:2] == pytest.approx([0.2, 0.2])
    assert found[2.0].rmse[:2] == pytest.approx([0.4, 0.4])
    # The truth at the second depth is larger by 0.25 everywhere.
    assert found[5.0].rmse[2:4] == pytest.approx([0.05, 0.45])
    assert found[5.0].correlation == pytest.approx(np.ones(6))
    best = tracking.best_setting({(s, Variant()): found[s] for s in found})
    assert best == (5.0, Variant())


def test_the_command_prints_and_writes_the_best(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ["pairs=2", "sigmas=2,5", "lowpass=0,0.4", "processes=1", f"json={out}"]
    tracking.main(["folder", *options])
    assert made.asked == [0, 2]  # spread over the split
    truth = np.concatenate([made.read("val", i)[1] for i in (0, 2)]).reshape(-1, 6)
    text = capsys.readouterr().out
    bold = [line for line in text.splitlines() if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| **5** | **yes** | **no** | **0.100** | **0.100 (1.00)** |")
    assert f"| predict the mean |  |  | {np.sqrt(truth[:, :2].var(axis=0).mean()):.3f} |" in text
    found = json.loads(out.read_text())
    assert (found["best"]["sigma"], found["best"]["bias_correction"]) == (5.0, True)
    assert found["best"]["outputs"]["vy tau=1"]["rmse"] == pytest.approx(0.1)
    assert list(found["predict_the_mean"].values()) == pytest.approx(truth.std(axis=0).tolist())
    assert len(found["results"]) == 8
    filtered = {one["bias_correction"]: one for one in found["results"] if one["low_pass"]}
    assert filtered[True]["rmse_tau_1"] == pytest.approx(0.3)  # the last, of sigma 5
    assert (found["pairs"], found["shape"], found["pixel_km"]) == (2, [8, 10], 39.6)


def test_processes_change_nothing(flct: None, dataset: Made, tmp_path: Path) -> None:
    for processes in (1, 2):
        out = f"json={tmp_path / str(processes)}"
        tracking.main(["folder", "sigmas=2", "lowpass=0", f"processes={processes}", out])
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["a", "b"], "usage: "),
        (["a", "sigma=3"], "usage: "),
        (["a", "sigmas=2,x"], "sigmas=2,x: numbers with commas"),
        (["a", "sigmas=0.5"], "sigma is 0.5; FLCT needs 1 pixel or more"),
        (["a", "sigmas=nan"], "sigma is nan"),
        (["a", "lowpass=-1"], "lowpass is -1"),
        (["a", "pairs=0"], "pairs=0: a whole number from 1"),
    ],
)
def test_what_the_command_refuses(made: Made, arguments: list[str], message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        tracking.main(arguments)


def test_an_empty_split_is_refused(made: Made) -> None:
    made.held = 0
    with pytest.raises(TrackingError, match="the split 'val' of folder holds no pair"):
        tracking.main(["folder", "processes=1"])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((5, 50)), np.ones((5, 50)), "5 × 50 pixels; FLCT needs 6"),
        (np.ones((8, 8)), np.ones((8, 9)), r"\(8, 8\) and \(8, 9\)"),
        (np.ones((8, 8, 1)), np.ones((8, 8, 1)), r"needed are two of \(height, width\)"),
        (np.ones((8, 8)), np.full((8, 8), np.nan), "NaN"),
    ],
)
def test_frames_that_cannot_be_tracked(
    made: Made, first: np.ndarray, second: np.ndarray, message: str
) -> None:
    with pytest.raises(TrackingError, match=message):
        tracking.track(first, second, 4.0, PIXEL_KM, CADENCE_S)


def test_without_pyflct(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: ModuleType | None = None
    monkeypatch.setitem(sys.modules, "pyflct", absent)
    with pytest.raises(TrackingError, match="pip install -c install/constraints.txt pyflct"):
        tracking.main(["folder"])
