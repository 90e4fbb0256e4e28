"""Scores: the same for any number of ranks, and those of a plain computation."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlbench import data, distributed, environment, evaluate
from dlbench.config import Experiment
from dlbench.data import IGNORE
from dlbench.distributed import SingleProcess

Jobs = Callable[..., dict[str, Any]]
CASES = (
    "segnet float32",
    "segnet_basic mixed_bfloat16",
    "segnet_basic_bayesian float32",
    "segnet_basic_bayesian mixed_bfloat16",
)


@pytest.mark.parametrize("case", CASES)
def test_scores_are_bit_equal_for_any_number_of_ranks(jobs: Jobs, case: str) -> None:
    """13 samples, a prime, in chunks of 2; one rank has two threads, several have one each.

    Without AVX-512 one rank gets one thread too: there TensorFlow's own float32 convolutions round
    differently for another number of threads, and the loss differs in the ninth digit.
    """
    threads = None if "avx512f" in environment.cpu()["flags"] else 1
    expected = jobs(1, threads)["ranks"][0]["evaluation"][case]
    assert expected["samples"] == 13
    for size, pixels in (("confusion", 32 * 32), ("native", 40 * 36)):
        assert 0.85 < np.sum(expected[size]) / (13 * pixels) < 0.95, "a tenth is void"
    assert np.count_nonzero(expected["confusion"]) > 6
    for ranks in (2, 4):
        for found in jobs(ranks)["ranks"]:
            assert found["evaluation"][case] == expected


def test_monte_carlo_samples_matter(jobs: Jobs) -> None:
    found = jobs(1)["ranks"][0]["evaluation"]
    assert found["segnet_basic_bayesian float32"] != found["segnet_basic_bayesian mixed_bfloat16"]


def test_scores_equal_a_plain_computation(street: Path) -> None:
    import keras

    from dlbench import models, tasks
    from dlbench.session import Session
    from dlbench.tasks.segmentation import SegmentationEvaluation

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    network = models.build("segnet_basic", (None, None, 3), 11, width=0.05)
    dataset = data.build("camvid", street)
    experiment = Experiment.model_validate(
        {"data": {"name": "camvid", "size": None}, "training": {"evaluation_batch": 2}}
    )
    session = Session(experiment, SingleProcess(), dataset, network, tasks.of(dataset))
    evaluator = evaluate.Evaluator(session, "val")
    network.get_layer("classifier").bias.assign(np.linspace(-0.5, 0.5, 11))  # an epoch later
    found = evaluator()
    assert isinstance(found, SegmentationEvaluation)

    loss, counts = [], np.zeros((11, 11), np.int64)
    for index in range(5):
        image, target = dataset.read("val", index)
        logits = network(image[None]).numpy()[0].astype(np.float64)
        log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for y, x in np.argwhere(target != IGNORE):
            counts[target[y, x], logits[y, x].argmax()] += 1
            loss.append(-log_probability[y, x, target[y, x]])
    np.testing.assert_array_equal(found.confusion.counts, counts)
    assert found.loss == pytest.approx(np.mean(loss), rel=1e-5)
    assert found.samples == 5
    assert found.scores()["val_global_accuracy"] == counts.trace() / counts.sum()
    assert not found.resized
    assert found.quality()["native_size"] is None


def test_the_command_keeps_no_sample(
    street: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads each but once. Told by the images that are alive as the next one is read."""
    import keras

    from dlbench import checkpoint, models
    from dlbench.data.camvid import CamVid
    from dlbench.runs import RunFolder

    folder = RunFolder(street / "run")
    options = {"name": "segnet_basic", "options": {"width": 0.05}}
    experiment = Experiment.model_validate(
        {"data": {"name": "camvid", "root": str(street), "workers": 1}, "model": options}
    )
    folder.write_text(folder.config, experiment.to_yaml())
    keras.config.set_dtype_policy("float32")
    network = models.build("segnet_basic", (None, None, 3), 11, width=0.05)
    arrays = checkpoint.collect(checkpoint.variables_of(network))
    checkpoint.save(folder.checkpoint("best"), arrays, {})
    # Threads are set before TensorFlow's first operation, which other tests did long ago.
    monkeypatch.setattr(distributed, "configure_devices", lambda threads: None)
    images: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    plain = CamVid.read

    def watched(self: CamVid, *place: Any) -> Any:
        alive.append(sum(image() is not None for image in images))
        sample = plain(self, *place)
        images.append(weakref.ref(sample[0]))
        return sample

    monkeypatch.setattr(CamVid, "read", watched)
    assert evaluate.main([str(folder.path)]) == 0, capsys.readouterr().err
    assert "on 5 samples of 'val'" in capsys.readouterr().out
    assert len(alive) == 5
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m dlbench.evaluate RUN"),
        (["a", "b"], "usage: python -m dlbench.evaluate RUN"),
        (["a", "colour=red"], "usage: python -m dlbench.evaluate RUN"),
        (["a", "checkpoint=worst"], "checkpoint=worst: allowed are best and last"),
        (["a"], "a is not a run folder: it has no config.yaml"),
    ],
)
def test_wrong_commands_are_told(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("dlbench.evaluate (rank 0): ")
    assert message in error


def test_wrong_commands_are_told_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from dlbench import evaluate; evaluate.main(['a']); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": root})
    assert done.returncode == 0


THREADS = """
import sys
import keras, numpy as np, tensorflow as tf
from dlbench import distributed, models
from dlbench.prediction import Predictor
distributed.configure_devices(int(sys.argv[1]))
keras.config.set_dtype_policy(sys.argv[2])
keras.utils.set_random_seed(0)
network = models.build("segnet", (None, None, 3), 11)
image = np.random.default_rng(0).integers(0, 255, (3, 90, 120, 3), np.uint8)
np.save(sys.argv[3], Predictor(network, tf.nn.softmax)(image)[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param(
            "mixed_bfloat16",
            marks=pytest.mark.xfail(
                "avx512f" not in environment.cpu()["flags"],
                reason="without AVX-512 TensorFlow's bfloat16 convolutions round by their threads",
                strict=True,
            ),
        ),
    ],
)
def test_threads_do_not_change_a_prediction(
    precision: str, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Two ranks have half the threads of one: at full width, where threads share the work."""
    for threads in (1, 2, 3):
        file = str(tmp_path / f"{threads}.npy")
        ended = launch(["-c", THREADS, str(threads), precision, file], tmp_path)
        assert ended.status == 0, ended.output
    expected = np.load(tmp_path / "1.npy")
    assert np.ptp(expected) > 0.01
    for threads in (2, 3):
        np.testing.assert_array_equal(np.load(tmp_path / f"{threads}.npy"), expected)
