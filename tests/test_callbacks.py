"""What ends an epoch: when a run is complete, and the order in which its files are written."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from dlbench import callbacks, checkpoint
from dlbench.config import Experiment, Training
from dlbench.distributed import SingleProcess
from dlbench.metrics import Score
from dlbench.runs import RunFolder
from dlbench.state import DivergenceError, TrainingState
from dlbench.stopping import StoppedError

SCORE = Score("val_miou", "mean IoU", higher=True)


def history(*scores: float | None) -> list[dict[str, Any]]:
    return [{"epoch": i} | ({} if s is None else {"val_miou": s}) for i, s in enumerate(scores)]


def test_a_run_is_complete_after_its_epochs() -> None:
    training = Training(epochs=3)
    assert not callbacks.is_complete([], training, SCORE)
    assert not callbacks.is_complete(history(0.5, 0.4), training, SCORE)
    assert callbacks.is_complete(history(0.5, 0.4, 0.3), training, SCORE)


def test_a_run_stopped_early_is_complete() -> None:
    training = Training(epochs=9, early_stop=2)
    assert not callbacks.is_complete(history(0.5, 0.4), training, SCORE)
    assert callbacks.is_complete(history(0.5, 0.4, 0.5), training, SCORE), "as good is not better"
    assert not callbacks.is_complete(history(0.5, 0.4, 0.6), training, SCORE)
    assert callbacks.is_complete(history(None, 0.5, None, 0.4, None, 0.3), training, SCORE)


class Epochs:
    """An `EpochEnd` whose network scores as told; notes what is saved."""

    weights: keras.Variable

    def __init__(self, folder: Path, scores: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.saved: list[str] = []
        self._save = checkpoint.save
        monkeypatch.setattr(checkpoint, "save", self.save)
        layers = [keras.Input((2,)), keras.layers.Dense(1, name="layer")]
        self.network = keras.Sequential(layers, name="network")
        model: Any = SimpleNamespace(
            optimizer=keras.optimizers.SGD(0.5, name="sgd"), average_statistics=lambda: None
        )
        session: Any = SimpleNamespace(
            experiment=Experiment.model_validate({"training": {"epochs": 9, "early_stop": 2}}),
            ranks=SingleProcess(),
            network=self.network,
            task=SimpleNamespace(score=SCORE),
            dataset=SimpleNamespace(count=lambda split: 8),
        )
        told = iter(scores)
        evaluator: Any = lambda: SimpleNamespace(scores=lambda: {"val_miou": next(told)})  # noqa: E731
        self.state = TrainingState(session, model, RunFolder(folder))
        self.callback = callbacks.EpochEnd(session, evaluator, self.state)
        self.callback.set_model(model)
        self.callback.on_epoch_begin(0)
        self.model = model

    def save(self, path: Path, *rest: Any) -> None:
        self.saved.append(path.stem)
        self._save(path, *rest)

    def begin(self, epoch: int, seconds_ago: float) -> None:
        self.callback.on_epoch_begin(epoch)
        self.callback._begun -= seconds_ago

    def end(self, epoch: int, loss: float = 1.0) -> None:
        self.callback.on_epoch_end(epoch, {"loss": loss})
        self.state.wait()


def test_the_last_checkpoint_is_written_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between two files repeats the epoch: none can lag behind the other."""
    epochs = Epochs(tmp_path, [0.5, 0.4, 0.6, 0.6, 0.1], monkeypatch)
    expected = []
    for epoch, better in enumerate([True, False, True, False, False]):
        epochs.end(epoch)
        expected += ["best", "last"] if better else ["last"]
        assert epochs.saved == expected
        assert (epochs.model.__dict__.get("stop_training") is True) == (epoch == 4)
    _, meta = checkpoint.load(tmp_path / "checkpoints" / "best.npz")
    assert meta["epoch"] == 3
    assert len(meta["history"]) == 3
    _, meta = checkpoint.load(tmp_path / "checkpoints" / "last.npz")
    assert meta["epoch"] == 5
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "1,1.0,0.5,0.5"


def test_a_long_epoch_is_saved_before_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dies in it goes on with the evaluation, to the same files."""
    epochs = Epochs(tmp_path, [0.5], monkeypatch)
    last = tmp_path / "checkpoints" / "last.npz"
    epochs.begin(0, seconds_ago=1)
    epochs.end(0)
    assert epochs.saved == ["best", "last"]
    epochs.begin(1, seconds_ago=callbacks.WORTH_SAVING_S + 1)
    with pytest.raises(StopIteration):  # it has no score for it
        epochs.end(1)
    epochs.state.wait()
    assert epochs.saved == ["best", "last", "last"]
    _, meta = checkpoint.load(last)
    assert (meta["epoch"], meta["unevaluated"]) == (2, True)
    assert "val_miou" not in meta["history"][1]

    again = Epochs(tmp_path, [0.7, 0.8], monkeypatch)
    again.state.start(resume=True)
    assert again.state.unevaluated
    again.callback.evaluate()
    again.state.wait()
    assert again.saved == ["best", "last"]
    _, meta = checkpoint.load(last)
    assert (meta["epoch"], meta["unevaluated"]) == (2, False)
    assert [row["val_miou"] for row in meta["history"]] == [0.5, 0.7]
    assert checkpoint.load(tmp_path / "checkpoints" / "best.npz")[1] == meta
    again.begin(2, seconds_ago=callbacks.WORTH_SAVING_S + 1)
    again.end(2)
    assert again.saved == ["best", "last", "last", "best", "last"]
    assert not again.state.unevaluated


def test_the_second_save_of_an_epoch_is_no_further_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = Epochs(tmp_path, [0.5, 0.6, 0.7], monkeypatch)
    epochs.callback._training = epochs.state._training = Training(epochs=9, keep_checkpoints=2)
    for epoch in range(3):
        epochs.begin(epoch, seconds_ago=callbacks.WORTH_SAVING_S + 1)
        epochs.end(epoch)
    kept = [checkpoint.load(path)[1] for path in sorted((tmp_path / "checkpoints").glob("last*"))]
    assert [(meta["epoch"], meta["unevaluated"]) for meta in kept] == [(2, False), (3, False)]


def test_a_step_whose_loss_is_no_number_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = Epochs(tmp_path, [], monkeypatch)
    epochs.state.require_finite(1.0, 1)
    with pytest.raises(DivergenceError, match="the loss of epoch 1 up to step 2 is nan"):
        epochs.state.require_finite(float("nan"), 2)


def test_what_could_not_be_written_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = Epochs(tmp_path, [0.5], monkeypatch)
    epochs.state.require_written()
    (tmp_path / "checkpoints").write_text("in the way")
    epochs.callback.on_epoch_end(0, {"loss": 1.0})
    with pytest.raises(checkpoint.WriteError):
        while True:
            epochs.state.require_written()
            time.sleep(0.01)


def test_a_loss_that_is_no_number_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = Epochs(tmp_path, [0.5, 0.4], monkeypatch)
    epochs.end(0)
    with pytest.raises(DivergenceError, match=r"the loss of epoch 2 is nan; .*resume=false"):
        epochs.end(1, float("nan"))
    for kind in ("best", "last"):
        arrays, meta = checkpoint.load(tmp_path / "checkpoints" / f"{kind}.npz")
        assert meta["epoch"] == 1
        assert all(np.isfinite(value).all() for value in arrays.values())


@pytest.fixture
def scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Epochs:
    """Under loss scaling, after one step that was applied."""
    epochs = Epochs(tmp_path, [0.5], monkeypatch)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))
    weights = keras.Variable(np.ones(3, np.float32))
    optimizer.build([weights])
    epochs.model.optimizer = optimizer
    epochs.state.begin_epoch()
    optimizer.apply([optimizer.scale_loss(keras.ops.ones(3))], [weights])
    epochs.weights = weights
    return epochs


def test_a_loss_that_overflowed_under_loss_scaling_does_not(scaled: Epochs, tmp_path: Path) -> None:
    scaled.end(0, float("inf"))
    assert checkpoint.load(tmp_path / "checkpoints" / "last.npz")[1]["epoch"] == 1


def test_an_epoch_that_loss_scaling_skipped_as_a_whole_does(scaled: Epochs, tmp_path: Path) -> None:
    """From the last steps of one that was resumed nothing follows."""
    scaled.state.begin_epoch()
    scaled.model.optimizer.apply([keras.ops.array([float("inf")] * 3)], [scaled.weights])
    scaled.state.require_convergence(2.0)
    scaled.state.require_convergence(float("inf"), 1)
    scaled.state.first = 5
    scaled.state.require_convergence(float("inf"))
    scaled.state.first = 0
    with pytest.raises(DivergenceError, match="epoch 1 is nan, and each of its steps .* skipped;"):
        scaled.end(0, float("nan"))
    assert not list(tmp_path.iterdir())


def test_a_loss_scale_that_falls_and_falls_does(scaled: Epochs, tmp_path: Path) -> None:
    """At 0 the next finite step would divide by it."""
    for _ in range(30):
        scaled.model.optimizer.apply([keras.ops.array([float("inf")] * 3)], [scaled.weights])
    reason = "overflow float16 even at a loss scale of 3e-05; .* resume=false"
    with pytest.raises(DivergenceError, match=f"epoch 1 has gradients that {reason}"):
        scaled.end(0)
    scaled.model.metrics = [keras.metrics.Mean()]
    with pytest.raises(DivergenceError, match=f"epoch 1 up to step 4 has gradients that {reason}"):
        scaled.state.save_step(4)
    assert not list(tmp_path.iterdir())


def test_within_an_epoch_too_a_loss_that_is_no_number_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = Epochs(tmp_path, [0.5], monkeypatch)
    epochs.model.metrics = [keras.metrics.Mean()]
    epochs.model.metrics[0].update_state(1.0)
    epochs.state.save_step(1)
    epochs.model.metrics[0].update_state(float("nan"))
    with pytest.raises(DivergenceError, match=r"epoch 1 up to step 2 is nan; .*last.npz holds"):
        epochs.state.save_step(2)
    epochs.state.wait()
    assert checkpoint.load(tmp_path / "checkpoints" / "last.npz")[1]["step"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved_though_the_loss_is_one(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the step before the one that made them."""
    epochs = Epochs(tmp_path, [0.5, 0.6], monkeypatch)
    epochs.model.metrics = [keras.metrics.Mean()]
    epochs.model.metrics[0].update_state(1.0)
    kernel = epochs.network.trainable_variables[0]
    sound = np.array(kernel)
    broken = np.where(np.arange(sound.size).reshape(sound.shape) == 1, value, sound)
    told = "weights are no longer numbers after its last step"
    kernel.assign(broken)
    with pytest.raises(DivergenceError, match=f"1 up to step 1 .*{told}; nothing has been saved"):
        epochs.state.save_step(1)
    kernel.assign(sound)
    epochs.end(0)
    kernel.assign(broken)
    with pytest.raises(DivergenceError, match=f"epoch 2 is 1, but {told}; .*/last.npz holds what"):
        epochs.end(1)
    epochs.state.wait()
    for kind in ("best", "last"):
        arrays, meta = checkpoint.load(tmp_path / "checkpoints" / f"{kind}.npz")
        assert meta["epoch"] == 1
        assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_is_stopped_says_what_goes_on(
    resume: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    session: Any = SimpleNamespace(
        experiment=Experiment(resume=resume),
        ranks=SingleProcess(),
        task=SimpleNamespace(score=None),
    )
    state: Any = SimpleNamespace(wait=lambda: None)
    stop: Any = SimpleNamespace(received=None)
    clock: Any = None
    position = callbacks.Position(session, state, stop, clock)
    position.set_model(SimpleNamespace(all_stop=True))
    with pytest.raises(StoppedError):
        position.on_epoch_end(0)
    again = "the same command" if resume else "the same command without resume=false"
    assert f"after epoch 1; {again} goes on there" in capsys.readouterr().out


def test_the_clock_leaves_out_the_first_step_and_what_is_between_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([0.0, 10.0, 11.0, 50.0, 52.0, 55.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(now))
    clock = callbacks.StepClock(lambda step: [4, 3][step])
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        for step in range(2):
            clock.on_train_batch_end(step, {"loss": 1.0})
    assert clock.step_s == [1.0, 2.0, 3.0]
    assert clock.samples == 3 + 4 + 3


def test_energy_is_taken_of_the_steps_that_are_timed() -> None:
    heard: list[str] = []
    meter: Any = SimpleNamespace(
        start=lambda: heard.append("start"), stop=lambda: heard.append("stop")
    )
    clock = callbacks.StepClock(lambda step: 1, skip=2, energy=meter)
    session: Any = SimpleNamespace(
        experiment=Experiment.model_validate({"training": {"checkpoint_every": 2}}),
        ranks=SingleProcess(),
        task=SimpleNamespace(score=None),
    )
    state: Any = SimpleNamespace(
        first=0,
        steps_left=lambda: 3,
        save_step=lambda done: heard.append("checkpoint"),
        require_finite=lambda loss, done: None,
        require_written=lambda: None,
    )
    stop: Any = SimpleNamespace(received=None)
    position = callbacks.Position(session, state, stop, clock)
    position.set_model(SimpleNamespace(all_stop=False))
    assert clock.first_step_s is None
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        for step in range(3):
            clock.on_train_batch_end(step, {"loss": 1.0})
            heard.append(f"step {step}")
            position.on_train_batch_end(step, {"loss": 1.0})
        clock.on_epoch_end(epoch)
        heard.append("evaluation")
    save, end = ["stop", "checkpoint", "start"], ["start", "step 2", "stop", "evaluation"]
    assert heard == [
        *["step 0", "start", "step 1", *save, *end],
        *["start", "start", "step 0", "start", "step 1", *save, *end],
    ]
    assert clock.first_step_s is not None
    assert clock.samples == 4
