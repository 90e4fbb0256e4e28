"""The description of an environment, and what its fingerprint depends on."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dlbench import elastic, environment, errors, gpus


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return environment.describe()


def in_new_process(code: str) -> Any:
    """What a fresh Python prints last, read as JSON."""
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def test_nothing_heavy_is_loaded_to_describe() -> None:
    code = """
import json, sys
from dlbench import environment
described = environment.describe()
loaded = [name for name in ("tensorflow", "keras", "horovod", "numpy") if name in sys.modules]
print(json.dumps([loaded, described["tensorflow"], described["keras"], described["op"]]))
"""
    assert in_new_process(code) == [[], None, None, None]


def test_what_is_loaded_is_described_as_loaded() -> None:
    code = """
import json
import keras
import tensorflow as tf
from dlbench import environment
tf.config.threading.set_intra_op_parallelism_threads(1)
keras.mixed_precision.set_global_policy("mixed_bfloat16")
described = environment.describe(load=True)
print(json.dumps([described["tensorflow"], described["keras"], described["op"]]))
"""
    tensorflow, _, op = in_new_process(code)
    assert tensorflow["version"].startswith("2.21.")
    assert (tensorflow["intra_op_threads"], tensorflow["inter_op_threads"]) == (1, 0)
    assert op["tensorflow"] == tensorflow["version"]
    assert op["isa"] in ("avx512", "avx2", "portable")
    assert op["convolution_gradient"] in ("compiled", "tensorflow")


def test_the_machine_is_described(described: dict[str, Any]) -> None:
    assert described["cpu"]["cores_usable"] == len(os.sched_getaffinity(0))
    assert described["memory_bytes"] > 2**28
    assert described["packages"]["horovod"] == "0.28.1"
    assert described["platform"]["libc"].startswith("glibc 2.")
    assert json.loads(json.dumps(described)) == described


def test_what_the_caller_knows_of_horovod_is_merged(described: dict[str, Any]) -> None:
    merged = environment.describe(horovod={"gloo": True})["horovod"]
    assert merged == {**described["horovod"], "gloo": True}


def test_secrets_and_terraforms_variables_are_dropped() -> None:
    kept = {"OMP_NUM_THREADS": "2", "HOROVOD_FUSION_THRESHOLD": "0", "TF_ENABLE_ONEDNN_OPTS": "0"}
    dropped = {
        "HOROVOD_SECRET_KEY": "1",
        "NVIDIA_API_KEY": "1",
        "TF_VAR_password": "1",
        "TF_TOKEN_host": "1",
        "TF_CLI_CONFIG_FILE": "1",
        "PATH": "/bin",
    }
    assert environment.variables({**kept, **dropped}) == kept


def changed(described: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a description in which the entry at `a.b` has another value."""
    copied = copy.deepcopy(described)
    *folders, last = path.split(".")
    entry = copied
    for folder in folders:
        entry = entry[folder]
    assert entry.get(last) != value
    entry[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cpu.model", "another"),
        ("cpu.cores_usable", 3000),
        ("memory_bytes", 2**50),
        ("gpu", {"driver": "999.1", "devices": []}),
        ("packages.numpy", "1.0"),
        ("packages.nvidia-cudnn-cu12", "1.0"),
        ("tensorflow", {"intra_op_threads": 7}),
        ("horovod.nccl_built", True),
        ("horovod.options", {"cycle_time_ms": 1.0}),
        ("op", {"isa": "other"}),
        ("libraries.libcudnn", {"version": "1.2", "path": "/"}),
        ("packages.nvidia-nccl-cu12", "1.0"),
        ("variables.OMP_NUM_THREADS", "77"),
        ("variables.HOROVOD_FUSION_THRESHOLD", "77"),
        ("variables.CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "50"),
        ("variables.CUDA_CACHE_DISABLE", "1"),
        ("variables.LD_PRELOAD", "/opt/libjemalloc.so"),
        ("variables.XLA_FLAGS", "--xla_gpu_autotune_level=0 --xla_dump_to=/tmp/job-1"),
        ("variables.TF_XLA_FLAGS", "--tf_xla_auto_jit=2"),
        ("platform.release", "0.1"),
    ],
)
def test_a_change_of_setup_changes_the_fingerprint(
    described: dict[str, Any], path: str, value: Any
) -> None:
    other = environment.fingerprint(changed(described, path, value))
    assert other != environment.fingerprint(described)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("platform.hostname", "another"),
        ("code.commit", "0" * 40),
        ("code.dirty", "maybe"),
        ("packages.dlbench", "9"),
        ("horovod.ranks", 64),
        ("horovod.backend", "nccl"),
        ("horovod.options", {}),
        ("horovod.variables", {"HOROVOD_CYCLE_TIME": "10.0"}),
        ("libraries.libnccl", {"version": "1.2", "path": "/"}),
        (f"variables.{errors.FINAL}", "/tmp/dlbench-1/final"),
        (f"variables.{errors.JOB}", "0123456789abcdef"),
        (f"variables.{elastic.AGAIN}", "0"),
        ("variables.DLBENCH_FAULT_TABLE", "/tmp/faults.md"),
        ("variables.HOROVOD_RANK", "1"),
        ("variables.HOROVOD_LOCAL_RANK", "1"),
        ("variables.HOROVOD_GLOO_RENDEZVOUS_PORT", "1"),
        ("variables.NCCL_SOCKET_IFNAME", "lo"),
        ("variables.TF_CPP_MIN_LOG_LEVEL", "0"),
        ("variables.CUDA_VISIBLE_DEVICES", "3"),
        ("variables.NVIDIA_VISIBLE_DEVICES", "GPU-8a56a4bc"),
        ("variables.CUDA_HOME", "/opt/cuda"),
        ("variables.CUDA_PATH", "/opt/cuda"),
        ("variables.CUDA_CACHE_PATH", "/tmp/job-1/cache"),
        ("variables.CUDA_MPS_PIPE_DIRECTORY", "/tmp/job-1/pipe"),
        ("variables.CUDA_MPS_LOG_DIRECTORY", "/tmp/job-1/log"),
        ("variables.XLA_FLAGS", "--xla_dump_to=/tmp/job-1 --xla_gpu_cuda_data_dir='/opt/my cuda'"),
        ("variables.TF_XLA_FLAGS", ""),
        ("variables.TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/tmp/job-1"),
        ("variables.LD_PRELOAD", ""),
    ],
)
def test_what_varies_between_equal_setups_leaves_the_fingerprint(
    described: dict[str, Any], path: str, value: Any
) -> None:
    other = environment.fingerprint(changed(described, path, value))
    assert other == environment.fingerprint(described)


def test_of_flags_those_that_count_are_compared() -> None:
    given = {
        "XLA_FLAGS": " --xla_gpu_autotune_level=0  --xla_dump_to=/a --xla_gpu_graph_level=2",
        "TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=/b",
        "CUDA_HOME": "/c",
        "OMP_NUM_THREADS": "2",
    }
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_graph_level=2"
    assert environment.steering(given) == {"XLA_FLAGS": flags, "OMP_NUM_THREADS": "2"}


def test_launches_on_other_gpus_are_no_repeats(
    described: dict[str, Any], nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one machine with two, which a stand-in for NVIDIA's library makes up."""

    def on(shown: str) -> str:
        gpu = gpus.describe({"CUDA_VISIBLE_DEVICES": shown})
        return environment.fingerprint({**described, "gpu": gpu})

    first, second = on("0"), on("1")
    assert len({first, second, on("0,1"), on("")}) == 4
    monkeypatch.setattr(nvml, "LIMIT_MW", [300_000, 350_000])
    assert on("0") != first, "another power limit"
    assert on("1") == second


def test_of_equal_gpus_neither_place_nor_number_matters(described: dict[str, Any]) -> None:
    """Described as a stand-in for NVIDIA's library would."""
    one = {"name": "NVIDIA A100-SXM4-40GB", "power_limit_w": 400.0}

    def on(*devices: dict[str, Any]) -> str:
        gpu = {"driver": "550.54.15", "devices": list(devices)}
        return environment.fingerprint({**described, "gpu": gpu})

    assert on(one) == on(one, dict(one))
    other = {**one, "power_limit_w": 300.0}
    assert on(one, other) != on(other, one), "a single rank takes the first"


def test_the_fingerprint_survives_json_and_order(described: dict[str, Any]) -> None:
    shuffled = dict(reversed(json.loads(json.dumps(described)).items()))
    assert environment.fingerprint(shuffled) == environment.fingerprint(described)


def test_a_loaded_library_is_found_with_its_version() -> None:
    code = """
import ctypes, json
ctypes.CDLL("libstdc++.so.6")
from dlbench import environment
print(json.dumps(environment.loaded_libraries()["libstdc++"]))
"""
    library = in_new_process(code)
    assert library["path"].endswith(f"libstdc++.so.{library['version']}")
    assert library["version"].startswith("6.0.")


def test_code_is_unknown_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "dlbench" / "environment.py"
    copied.parent.mkdir()
    copied.touch()
    monkeypatch.setattr(environment, "__file__", str(copied))
    assert environment.code() == {"commit": None, "dirty": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert environment.code()["commit"] is None  # There, but not this repository's file.
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    commit = environment.code()["commit"]
    assert commit is not None
    assert len(commit) == 40
    assert environment.code()["dirty"] is False
    copied.write_text("changed")
    assert environment.code() == {"commit": commit, "dirty": True}
