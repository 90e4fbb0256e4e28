"""What a process does when the ranks of an elastic job change; whole jobs are in `tests/faults`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import psutil
import pytest
from horovod.runner.elastic.registration import WorkerStateRegistry
from launcher_stand_in import serving

from dlbench import callbacks, checkpoint, elastic, fencing
from dlbench.config import ConfigError, Experiment, Optimizer
from dlbench.distributed import SingleProcess
from dlbench.errors import UserError
from dlbench.metrics import Score
from dlbench.runs import RunFolder
from dlbench.schedule import build_optimizer, schedule_of
from dlbench.state import STATISTICS, TrainingState

SAMPLES, BATCH, EPOCHS = 26, 2, 5


@pytest.fixture
def in_elastic_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_ELASTIC", "1")


def state_of(folder: Path, precision: str = "float32") -> TrainingState:
    """Of one rank, which makes 13 steps an epoch; three ranks make 5."""
    keras.utils.clear_session()
    network = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    settings = {"training": {"batch": BATCH, "epochs": EPOCHS}}
    optimizer = build_optimizer(
        Optimizer(schedule="cosine", warmup_epochs=0),
        steps_per_epoch=13,
        epochs=EPOCHS,
        ranks=1,
        precision=precision,
    )
    optimizer.build(network.trainable_variables)
    trainer: Any = SimpleNamespace(
        optimizer=optimizer, network=network, metrics=[keras.metrics.Mean()]
    )
    session: Any = SimpleNamespace(
        experiment=Experiment.model_validate(settings),
        ranks=SingleProcess(),
        network=network,
        task=SimpleNamespace(score=Score("val_miou", "mean IoU", higher=True)),
        dataset=SimpleNamespace(count=lambda split: SAMPLES),
    )
    return TrainingState(session, trainer, RunFolder(folder))


def saved_by_three_ranks(folder: Path, precision: str = "float32") -> None:
    """In the third epoch, after two of its steps; each rank has its own batch-norm statistics."""
    state = state_of(folder, precision)
    state.start(False)
    state.history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    optimizer: Any = state._trainer.optimizer
    getattr(optimizer, "inner_optimizer", optimizer).iterations.assign(12)
    state.save_step(2)
    state.wait()
    path = RunFolder(folder).checkpoint("last")
    arrays, meta = checkpoint.load(path)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    changes = [{"epoch": 1, "samples": 0, "ranks": 3}]
    meta |= {"ranks": 3, "done": 2 * 3 * BATCH, "changes": changes}
    checkpoint.save(path, {**arrays, STATISTICS: rows}, meta)


@pytest.mark.usefixtures("in_elastic_job")
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_one_rank_goes_on_where_three_were(tmp_path: Path, precision: str) -> None:
    saved_by_three_ranks(tmp_path, precision)
    state = state_of(tmp_path, precision)
    state.start(True)
    assert (state.step, state.done, state.ranks_before()) == (2, 12, 3)
    assert state.steps_left() == 7
    assert state.changes[1:] == [{"epoch": 3, "samples": 12, "ranks": 1}]
    assert state.ranks_of_epoch() == "3>1"
    # Their mean, where each took the mean and the variance of what it saw.
    values = [value for w in state._statistics for value in np.ravel(w)]
    np.testing.assert_array_equal(values, [4, 5, 6, 7])
    # Seven steps of one rank from the end of the third epoch.
    optimizer = state._trainer.optimizer
    expected = 1e-3 * 0.5 * (1 + np.cos(np.pi * (3 - 7 / 13) / EPOCHS))
    assert float(optimizer.learning_rate) == pytest.approx(expected, rel=1e-5)
    state.save_step(4)
    assert state.done == 12 + 2 * BATCH
    state.wait()
    again = state_of(tmp_path, precision)
    again.start(True)
    assert (again.step, again.done, again.ranks_before()) == (4, 16, 1)
    assert schedule_of(again._trainer.optimizer).ahead == schedule_of(optimizer).ahead


def test_other_ranks_are_refused_where_none_may_change(tmp_path: Path) -> None:
    saved_by_three_ranks(tmp_path)
    with pytest.raises(ConfigError, match="trained on 3 ranks, now there are 1; .*-np 3"):
        state_of(tmp_path).start(True)


@pytest.mark.usefixtures("in_elastic_job")
def test_ranks_that_change_twice_at_one_place_are_told_once(tmp_path: Path) -> None:
    saved_by_three_ranks(tmp_path)
    path = RunFolder(tmp_path).checkpoint("last")
    arrays, meta = checkpoint.load(path)
    meta["changes"].append({"epoch": 3, "samples": 12, "ranks": 2})
    checkpoint.save(path, arrays, meta | {"ranks": 2})
    state = state_of(tmp_path)
    state.start(True)
    assert [change["ranks"] for change in state.changes] == [3, 1]


def test_checkpoints_from_before_ranks_could_change_are_read(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    state.start(False)
    state.save_step(4)
    state.wait()
    path = RunFolder(tmp_path).checkpoint("last")
    arrays, meta = checkpoint.load(path)
    for name in ("done", "changes", "ahead"):
        del meta[name]
    checkpoint.save(path, arrays, meta)
    state = state_of(tmp_path)
    state.start(True)
    assert (state.step, state.done, state.steps_left()) == (4, 8, 9)
    assert state.changes == [{"epoch": 1, "samples": 0, "ranks": 1}]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with serving() as server:
        yield server


@pytest.fixture
def launcher(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The answers of a launcher, to which this process is rank 2 of 3, on host b."""
    for name, value in {
        "ELASTIC": "1", "GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOSTNAME": "b",
        "GLOO_RENDEZVOUS_PORT": str(server.server_port), "RANK": "2", "SIZE": "3",
        "LOCAL_RANK": "0", "LOCAL_SIZE": "1", "CROSS_RANK": "2", "CROSS_SIZE": "3",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"HOROVOD_{name}", value)
    monkeypatch.setenv(elastic.AGAIN, "0")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("dlbench.distributed.listen_for_hosts", lambda listener: None)
    handler: Any = server.RequestHandlerClass
    return handler.answers


@pytest.fixture
def fenced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """The notes by which this process would be ended."""
    notes: list[tuple[str, bytes]] = []
    monkeypatch.setattr("dlbench.fencing.fence", lambda *note: notes.append(note))
    return notes


@pytest.fixture
def started_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands in for the process that would take this one's place: the ends of jobs."""
    ends: list[str] = []
    monkeypatch.setattr(elastic, "_start_again", lambda: ends.append("again"))
    monkeypatch.setattr("dlbench.errors.LAUNCHER_REACTS", 0.0)
    return ends


def lost() -> None:
    raise RuntimeError("Horovod has been shut down.")


def test_a_process_takes_the_rank_that_it_is_given(
    launcher: dict[str, bytes], started_again: list[str]
) -> None:
    launcher["/rank_and_size/b:0"] = b"1,2,0,1,1,2"
    assert elastic.run("x", lambda: None) == 0
    assert (os.environ["HOROVOD_RANK"], os.environ["HOROVOD_SIZE"]) == ("1", "2")
    assert not started_again


def test_a_host_that_is_given_none_leaves(
    launcher: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    launcher["/rank_and_size/b:0"] = b"-1,-1,-1,-1,-1,-1"
    jobs: list[int] = []
    assert elastic.run("x", lambda: jobs.append(1)) == 0
    assert not jobs
    assert capsys.readouterr().out == "x: b has left the job\n"


@pytest.mark.usefixtures("launcher")
def test_a_launcher_that_is_gone_ends_the_process(
    server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.shutdown()
    server.server_close()
    assert elastic.run("x", lambda: None) == 2
    assert "x (rank 2): Horovod's launcher does not answer" in capsys.readouterr().err


def test_a_process_that_lost_another_starts_again(
    launcher: dict[str, bytes],
    started_again: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launcher["/rank_and_size/b:0"] = b"1,2,0,1,1,2"
    elastic.run("x", lost)
    assert started_again == ["again"]
    told = "x (rank 1): another rank is lost (Horovod has been shut down); those that are left"
    assert capsys.readouterr().err.startswith(told)
    # Not for ever, where the ranks do not meet ...
    monkeypatch.setenv(elastic.AGAIN, str(elastic.MOST_AGAIN))
    assert elastic.run("x", lost) == 1
    assert started_again == ["again"]
    # ... and not where another rank has ended for what only the user can mend.
    monkeypatch.setenv(elastic.AGAIN, "0")
    launcher["/dlbench/final"] = b"1"
    assert elastic.run("x", lost) == 1
    assert started_again == ["again"]


def test_ranks_meet_when_all_are_there(
    launcher: dict[str, bytes], fenced: list[tuple[str, bytes]]
) -> None:
    launcher["/dlbench/here-0"] = b"1"
    late = threading.Timer(0.3, lambda: launcher.update({"/dlbench/here-1": b"1"}))
    late.start()
    begun = time.monotonic()
    elastic.meet()
    assert time.monotonic() - begun >= 0.2
    mine = f"b:{os.getpid()}".encode()
    assert launcher["/dlbench/here-2"] == mine
    assert fenced == [("here-2", mine)]


@pytest.mark.parametrize("noted", [True, False])
def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_it_is_told(
    noted: bool,
    launcher: dict[str, bytes],
    fenced: list[tuple[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher["/dlbench/here-0"] = b"1"
    if noted:
        launcher["/dlbench/lost"] = b"1"
    else:
        monkeypatch.setattr(elastic, "MEETING_S", 0.2)
    with pytest.raises(elastic.RankAbsentError, match="rank [01] has not come"):
        elastic.meet()
    assert launcher["/dlbench/lost"] == b"1", "nobody is to count on this one"
    # Nor is one that comes later to think that all are there.
    launcher["/dlbench/here-1"] = b"1"
    with pytest.raises(elastic.RankAbsentError):
        elastic.meet()
    assert not fenced


def test_a_process_that_was_given_up_does_not_take_the_place_of_another(
    launcher: dict[str, bytes], fenced: list[tuple[str, bytes]]
) -> None:
    launcher |= {f"/dlbench/here-{rank}": b"other" for rank in range(3)}
    before = dict(launcher)
    with pytest.raises(elastic.RankAbsentError, match="another process has come as rank 2"):
        elastic.meet()
    assert launcher == before
    assert not fenced


def test_a_process_that_starts_again_is_rid_of_what_would_end_it(
    launcher: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher["/dlbench/here-2"] = b"1"
    others = set(psutil.Process().children())
    fencing.fence("here-2", b"1")
    (fence,) = set(psutil.Process().children()) - others
    begun: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: begun.append(words))
    monkeypatch.setattr(os, "set_inheritable", lambda *_: None)  # those of the tests
    elastic._start_again()
    assert len(begun) == 1
    assert not fence.is_running()


def test_an_error_of_one_rank_is_told_to_those_that_wait_for_it(
    launcher: dict[str, bytes],
) -> None:
    def broken() -> None:
        raise OSError("a bug")

    launcher["/rank_and_size/b:0"] = b"1,2,0,1,1,2"
    with pytest.raises(OSError, match="a bug"):
        elastic.run("x", broken)
    assert launcher["/dlbench/lost"] == b"1"
    assert "/dlbench/final" not in launcher


def test_what_only_the_user_can_mend_is_told_to_the_other_ranks(
    launcher: dict[str, bytes], started_again: list[str]
) -> None:
    def mistaken() -> None:
        raise UserError("a wrong key")

    launcher["/rank_and_size/b:0"] = b"1,2,0,1,1,2"
    assert elastic.run("x", mistaken) == 2
    assert launcher["/dlbench/final"] == b"1"
    assert not started_again


@pytest.mark.usefixtures("in_elastic_job")
@pytest.mark.parametrize(("epochs", "leaves"), [(1, True), (EPOCHS, False)])
def test_a_run_that_is_complete_waits_for_no_host(
    tmp_path: Path, epochs: int, leaves: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(tmp_path)
    state.history = [{"epoch": epoch + 1} for epoch in range(epochs)]
    session: Any = SimpleNamespace(
        experiment=Experiment.model_validate({"training": {"epochs": EPOCHS}}),
        ranks=SingleProcess(),
        task=SimpleNamespace(score=None),
    )
    stop: Any = SimpleNamespace(received=None)
    clock: Any = None
    position = callbacks.Position(session, state, stop, clock)
    position.set_model(SimpleNamespace(all_stop=True))
    if leaves:
        with pytest.raises(elastic.RanksChangedError):
            position.on_epoch_end(epochs - 1)
        assert "hosts come or go: saved after epoch 1" in capsys.readouterr().out
    else:
        position.on_epoch_end(epochs - 1)


class LauncherOfHorovod:
    """The installed Horovod's, as far as it knows how its ranks are; hosts and processes are
    stand-ins."""

    def __init__(self, ranks: dict[str, int], timeout_s: float) -> None:
        self._ranks = ranks
        self.out: list[str] = []
        self.done: list[str] = []
        self.results: dict[str, int] = {}
        slots = {h: [SimpleNamespace(local_rank=i) for i in range(n)] for h, n in ranks.items()}
        driver = SimpleNamespace(
            _timeout=timeout_s,
            _results=SimpleNamespace(
                add_result=lambda name, end: self.results.update({name: end[0]})
            ),
            finished=lambda: "stopped" in self.done,
            stop=lambda: self.done.append("stopped"),
            resume=self._resume,
            host_assignments=slots,
        )
        manager = SimpleNamespace(is_blacklisted=self.out.__contains__, blacklist=self.out.append)
        self.registry = WorkerStateRegistry(driver, manager)
        self.registry.reset(sum(ranks.values()))

    def _resume(self) -> None:
        self.done.append("resumed")
        self.registry.reset(sum(n for host, n in self._ranks.items() if host not in self.out))

    def recorded(self, *records: tuple[float, str, str, int]) -> None:
        """Each after so many seconds, a state of a host's rank; returns when Horovod has answered
        all."""
        threads = []
        for after_s, what, host, slot in records:
            record = getattr(self.registry, f"record_{what}")
            threads.append(threading.Timer(after_s, record, [host, slot]))
            threads[-1].start()
        for thread in threads:
            thread.join(10.0)
            assert not thread.is_alive()


def test_the_launcher_gives_up_ranks_that_do_not_ask(caplog: pytest.LogCaptureFixture) -> None:
    """By an edit of `install.horovod`; with its host each, as one that dies."""
    launcher = LauncherOfHorovod({"a": 1, "b": 2, "c": 1}, timeout_s=1.0)
    launcher.recorded((0.0, "ready", "a", 0), (0.1, "ready", "b", 1))
    assert (sorted(launcher.out), launcher.done) == (["b", "c"], ["resumed"])
    assert caplog.messages == [
        f"{rank} is given up with its host: no word of it for 1.0 s, since others left or died "
        "(--elastic-timeout)"
        for rank in ("b[0]", "c[0]")
    ]
    time.sleep(1.2)
    assert launcher.done == ["resumed"], "what was given up is not held against the next ranks"


@pytest.mark.parametrize("state", ["ready", "success"])
def test_the_launcher_gives_up_nobody_of_a_rank_that_answers_in_time(state: str) -> None:
    launcher = LauncherOfHorovod({"a": 1, "b": 1}, timeout_s=2.0)
    launcher.recorded((0.0, state, "a", 0), (0.1, state, "b", 0))
    time.sleep(2.2)
    assert (launcher.out, launcher.done) == ([], ["resumed" if state == "ready" else "stopped"])


def test_the_launcher_gives_those_more_time_that_have_to_learn_of_a_death() -> None:
    launcher = LauncherOfHorovod({"a": 1, "b": 1, "c": 1}, timeout_s=1.5)
    launcher.recorded((0.0, "failure", "a", 0), (2.0, "ready", "b", 0), (2.1, "ready", "c", 0))
    assert (launcher.out, launcher.done) == (["a"], ["resumed"])


def test_the_launcher_gives_up_those_that_never_learn_of_a_death() -> None:
    launcher = LauncherOfHorovod({"a": 1, "b": 1}, timeout_s=0.1)
    launcher.recorded((0.0, "failure", "a", 0))
    assert launcher.done == ["stopped"]


def test_a_job_whose_only_host_is_given_up_has_failed() -> None:
    """Those that are left of it end with status 0, as on a host that has gone."""
    launcher = LauncherOfHorovod({"a": 2}, timeout_s=0.2)
    launcher.recorded((0.0, "ready", "a", 0))
    end = time.monotonic() + 20.0
    while not launcher.results and time.monotonic() < end:
        time.sleep(0.01)
    assert (launcher.done, launcher.results) == (["stopped"], {"a[1]": 1})
