"""Ranks started by `horovodrun`: collectives, and training that does not depend on their number."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlbench import distributed, environment, launched, session
from dlbench.config import ConfigError
from dlbench.errors import exit_status

Jobs = Callable[[int], dict[str, Any]]
MANY = (2, 4)

# Sums are taken in another order on other numbers of ranks: after four steps the losses differ by
# at most 3e-7 (float32 steps by 1.2e-7) and weights by 3e-6 of their tensor's largest. Local
# batch-norm, which computes something else, is four orders of magnitude above that.
LOSS = 2e-6
WEIGHT = 2e-5
# A bias before batch-norm has no gradient, so its few digits are noise.
WEIGHT_NOISE = 1e-6


def losses(job: dict[str, Any], case: str, rank: int = 0) -> np.ndarray:
    return np.array([step["loss"] for step in job["ranks"][rank]["consistency"][case]["steps"]])


def weights(job: dict[str, Any], case: str) -> dict[str, np.ndarray]:
    found = {k: v for k, v in job["arrays"].items() if k.startswith(f"{case}/")}
    assert len(found) > 20
    return {name.removeprefix(f"{case}/"): value for name, value in found.items()}


@pytest.mark.parametrize("case", ["sync", "none"])
@pytest.mark.parametrize("ranks", MANY)
def test_training_does_not_depend_on_the_number_of_ranks(jobs: Jobs, ranks: int, case: str) -> None:
    one, many = jobs(1), jobs(ranks)
    assert len(losses(one, case)) == 4
    np.testing.assert_allclose(losses(many, case), losses(one, case), rtol=LOSS)
    assert np.ptp(losses(one, case)) > 0.01, "nothing was learnt that could differ"
    for name, expected in weights(one, case).items():
        atol = WEIGHT_NOISE + WEIGHT * np.abs(expected).max()
        np.testing.assert_allclose(
            weights(many, case)[name], expected, rtol=0, atol=atol, err_msg=name
        )


@pytest.mark.parametrize("ranks", [1, *MANY])
def test_accumulated_micro_batches_follow_the_whole_batch(jobs: Jobs, ranks: int) -> None:
    """Without batch-norm; of four ranks each has but one sample for two micro-batches."""
    one, many = jobs(1), jobs(ranks)
    np.testing.assert_allclose(losses(many, "accumulated"), losses(one, "none"), rtol=LOSS)
    for name, expected in weights(one, "none").items():
        atol = WEIGHT_NOISE + WEIGHT * np.abs(expected).max()
        np.testing.assert_allclose(
            weights(many, "accumulated")[name], expected, rtol=0, atol=atol, err_msg=name
        )


def test_synchronised_batch_norm_sees_a_micro_batch_of_all_ranks(jobs: Jobs) -> None:
    """Four ranks with one sample each: the first micro-batches are void, so that the second, which
    has all samples, are what a step without them has."""
    found, expected = losses(jobs(4), "accumulated sync"), losses(jobs(4), "sync")
    np.testing.assert_allclose(found, expected, rtol=LOSS)


@pytest.mark.parametrize("ranks", MANY)
def test_local_batch_norm_is_another_computation(jobs: Jobs, ranks: int) -> None:
    difference = np.abs(losses(jobs(ranks), "local") / losses(jobs(1), "local") - 1)
    assert difference.min() > 1000 * LOSS, "the comparison above could not have failed"


@pytest.mark.parametrize("ranks", MANY)
def test_half_precision_gradients_follow_roughly(jobs: Jobs, ranks: int) -> None:
    whole, half = weights(jobs(ranks), "none"), weights(jobs(ranks), "fp16")
    np.testing.assert_allclose(losses(jobs(ranks), "fp16"), losses(jobs(1), "none"), rtol=1e-3)
    assert any((whole[name] != half[name]).any() for name in whole)


@pytest.mark.parametrize(
    "case", ["sync", "none", "local", "fp16", "accumulated", "accumulated sync"]
)
@pytest.mark.parametrize("ranks", MANY)
def test_all_ranks_hold_identical_weights(jobs: Jobs, ranks: int, case: str) -> None:
    found = [rank["consistency"][case] for rank in jobs(ranks)["ranks"]]
    assert len(found) == ranks
    for what in ("weights", "statistics"):
        assert len({rank[what] for rank in found}) == 1, what
    assert found[0]["weights"] != found[0]["weights_before"]
    for rank in range(1, ranks):
        np.testing.assert_array_equal(
            losses(jobs(ranks), case, rank), losses(jobs(ranks), case), "all report one loss"
        )
    local = {rank["statistics_before_average"] for rank in found}
    assert len(local) == (ranks if case == "local" else 1)


@pytest.mark.parametrize("ranks", [1, *MANY])
def test_synchronised_batch_norm_has_the_gradients_of_the_whole_batch(
    jobs: Jobs, ranks: int
) -> None:
    expected = whole_batch()
    found = [rank["sync_gradients"] for rank in jobs(ranks)["ranks"]]
    for name in ("y", "dx"):
        joined = np.concatenate([rank[name] for rank in found])
        np.testing.assert_allclose(joined, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for name in ("dgamma", "dbeta", "moving_mean", "moving_variance"):
        # Sums of 120 terms of either sign: what cancels leaves its rounding.
        for rank in found:
            np.testing.assert_allclose(
                rank[name], expected[name], rtol=1e-5, atol=1e-3, err_msg=name
            )


def whole_batch() -> dict[str, np.ndarray]:
    """Batch-norm of the batch that `job.py` splits, by the formula, in float64."""
    x, upstream = np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 5, 6, 3)).astype(np.float32)
    x, upstream = x.astype(np.float64), upstream.astype(np.float64)
    gamma, beta = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 1.0])
    over = (0, 1, 2)
    mean, variance = x.mean(over), x.var(over)
    scale = 1 / np.sqrt(variance + 1e-5)
    normal = (x - mean) * scale
    d = upstream * gamma
    dx = scale * (d - d.mean(over) - normal * (d * normal).mean(over))
    return {
        "y": normal * gamma + beta,
        "dx": dx,
        "dgamma": (upstream * normal).sum(over),
        "dbeta": upstream.sum(over),
        "moving_mean": 0.02 * mean,
        "moving_variance": 0.98 + 0.02 * variance,
    }


@pytest.mark.parametrize("ranks", [1, *MANY])
def test_collectives(jobs: Jobs, ranks: int) -> None:
    for number, rank in enumerate(jobs(ranks)["ranks"]):
        found = rank["collectives"]
        assert (found["rank"], found["size"]) == (number, ranks)
        assert found["gathered"] == [{"rank": r, "text": "é" * r} for r in range(ranks)]
        assert found["broadcast"] == [[1.0], [-1.0]], "rank 0's values everywhere"
        assert found["sum"] == [[ranks * 2**40 + sum(range(ranks))]]
        assert found["sum_dtype"] == "int64"
        assert found["describe"]["ranks"] == ranks
        assert (found["describe"]["backend"] is None) == (ranks == 1)


def test_cores_are_shared(jobs: Jobs) -> None:
    cores = jobs(1)["ranks"][0]["collectives"]["threads"]
    for ranks in MANY:
        found = [rank["collectives"]["threads"] for rank in jobs(ranks)["ranks"]]
        assert found == [max(1, cores // ranks)] * ranks


def test_one_rank_and_several_are_on_one_setup(jobs: Jobs) -> None:
    """Unless more than their number differs: they share a chart of scaling."""
    found = {n: [rank["collectives"] for rank in jobs(n)["ranks"]] for n in (1, *MANY)}
    described = [rank["environment"] for ranks in found.values() for rank in ranks]
    assert len({environment.fingerprint(one) for one in described}) == 1
    several = found[2][0]["describe"]
    build = environment.horovod_build()
    assert build == {name: several[name] for name in build}, "told without loading it"
    assert set(build) == {"nccl_built", "mpi_built"}
    assert several["variables"]["HOROVOD_CYCLE_TIME"] == str(distributed.CALM_CYCLE_MS)
    one = described[0]
    chosen = {**one, "variables": {**one["variables"], "HOROVOD_CYCLE_TIME": "10.0"}}
    assert environment.fingerprint(chosen) != environment.fingerprint(one), "the user's own choice"
    threads = {**one, "tensorflow": {**one["tensorflow"], "intra_op_threads": 7}}
    assert environment.fingerprint(threads) != environment.fingerprint(one)


def test_sums_by_host_need_nccl(launch: Callable[..., Any], tmp_path: Path) -> None:
    """Gloo would say nothing and sum in one ring of all ranks."""
    ended = launch(["-m", "dlbench.train", "distributed.hierarchical=true"], tmp_path, ranks=2)
    assert ended.status != 0
    assert "distributed.hierarchical=true needs a Horovod that sums by NCCL" in ended.output
    assert "rank 0): distributed.hierarchical" in ended.output, "a message, no traceback"


def test_a_rank_without_a_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One made-up GPU and two ranks."""
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one"])
    for kind in ("intra", "inter"):
        monkeypatch.setattr(tf.config.threading, f"set_{kind}_op_parallelism_threads", int)
    monkeypatch.setenv("HOROVOD_LOCAL_RANK", "1")
    assert exit_status("test", lambda: distributed.configure_devices(1)) == 2
    told = capsys.readouterr().err
    assert (
        "local rank 1 has no GPU: this host shows 1, and each rank takes one; start at most 1"
        in told
    )
    assert "make train RANKS=1)" in told


def test_launched_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE", *launched.OTHER_LAUNCHERS):
        monkeypatch.delenv(name, raising=False)
    assert (launched.size(), launched.local_size()) == (1, 1)
    # In the script of a Slurm job, whatever it will start.
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert (launched.size(), launched.local_size()) == (1, 1)
    monkeypatch.setenv("HOROVOD_SIZE", "6")
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", "3")
    # horovodrun within a step that has a task on each node.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert (launched.size(), launched.local_size()) == (6, 3)


@pytest.mark.parametrize(
    ("variable", "launcher"),
    [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpirun"), ("SLURM_STEP_NUM_TASKS", "srun")],
)
def test_the_processes_of_another_launcher_do_not_train_each_for_itself(
    variable: str,
    launcher: str,
    launch: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before TensorFlow is loaded. The launchers themselves are not to be had here."""
    monkeypatch.setenv(variable, "4")
    ended = launch(["-X", "importtime", "-m", "dlbench.train"], tmp_path)
    assert ended.status == 2, ended.output
    told = f"dlbench.train (rank 0): {launcher} tells of 4 processes ({variable})"
    assert told in ended.output
    assert "horovodrun -np 4" in ended.output
    imported = re.findall(r"\| +([\w.]+)$", ended.output, re.M)
    assert "dlbench.session" in imported
    assert "tensorflow" not in imported
    assert not (tmp_path / "runs").exists()


def test_a_horovod_that_knows_of_other_ranks_is_told(
    launch: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one built with MPI alone does, which is not to be had here: what Python was told of ranks
    is taken from the environment that Horovod itself sees."""
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    script = tmp_path / "job.py"
    script.write_text(
        "import ctypes, sys\n"
        "from dlbench import train\n"
        "ctypes.CDLL(None).unsetenv(b'HOROVOD_SIZE')\n"
        "sys.exit(train.main([]))\n"
    )
    ended = launch([str(script)], tmp_path)
    assert ended.status == 2, ended.output
    assert "2 ranks were announced (HOROVOD_SIZE), but Horovod knows of 1" in ended.output
    assert not (tmp_path / "runs").exists()


def test_a_rank_takes_part_again_after_its_step() -> None:
    ranks = distributed.SingleProcess()
    with pytest.raises(RuntimeError), ranks.taking_part(0.0):
        assert ranks.part == 0.0
        raise RuntimeError
    assert ranks.part == 1.0


def test_ranks_that_run_different_things_are_told_apart() -> None:
    own = {"TensorFlow": "2.21.0", "the configuration": "a" * session.TOLD}
    session._require_alike([own, own])
    with pytest.raises(ConfigError, match=r"TensorFlow of rank 1 is not .*\(2.21.0 and 2.20.0\)"):
        session._require_alike([own, own | {"TensorFlow": "2.20.0"}])
    with pytest.raises(ConfigError, match="the configuration of rank 2 is not that of rank 0;"):
        session._require_alike([own, own, own | {"the configuration": "b" * session.TOLD}])
    # Code of another day may tell of other things.
    for ranks in ([own, own | {"numpy": "2.4.6"}], [own | {"numpy": "2.4.6"}, own]):
        with pytest.raises(ConfigError, match="numpy of rank 1 is not that of rank 0"):
            session._require_alike(ranks)


def test_ranks_that_would_draw_samples_in_another_order_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another generator stands in for a NumPy whose streams are others."""
    dataset = SimpleNamespace(count=lambda split: 7, sample_name=lambda split, i: f"{i}.png")
    told: list[Any] = []

    def gather(own: Any) -> list[Any]:
        told.append(own)
        return [told[0], told[-1]]

    ranks = SimpleNamespace(size=2, gather=gather)
    made: Any = SimpleNamespace(ranks=ranks, dataset=dataset, experiment=SimpleNamespace(seed=0))
    session.require_same_samples(made, "train")
    monkeypatch.setattr(np.random, "PCG64", np.random.Philox)
    with pytest.raises(ConfigError, match="the order of samples of 'train' of rank 1 is not"):
        session.require_same_samples(made, "train")


def test_a_sum_over_a_link_has_a_thread_that_the_backward_pass_leaves() -> None:
    """Two ranks of one host and of two: it is ranks of several hosts whose sums come beside it."""
    program = (
        "import os\n"
        "from dlbench import distributed\n"
        "import tensorflow as tf\n"
        "for on_a_host in ('2', '1'):\n"
        "    os.environ |= {'HOROVOD_SIZE': '2', 'HOROVOD_LOCAL_SIZE': on_a_host}\n"
        "    distributed.configure_devices(3)\n"
        "    threading = tf.config.threading\n"
        "    print(threading.get_intra_op_parallelism_threads(), end=' ')\n"
        "    print(threading.get_inter_op_parallelism_threads())\n"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert told.splitlines() == ["3 3", "3 4"]
