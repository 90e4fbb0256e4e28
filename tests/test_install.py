"""The set-up: what is checked, detected, edited and cached before anything is trained."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from install import horovod, ranks, wheel_cache
from install.accelerator import detect
from install.hashes import CONSTRAINTS, pins
from install.requirements import PROJECT, requirements

ROOT = PROJECT.parent
WITH_AVX = "processor\t: 0\nflags\t\t: fpu avx sse4_2 f16c\nbogomips\t: 1\n"


def check_prerequisites(
    *arguments: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "install" / "prerequisites.sh")
    return subprocess.run(
        ["sh", script, *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_prerequisites_are_met_here() -> None:
    result = check_prerequisites(sys.executable)
    assert (result.returncode, result.stderr) == (0, "")


def test_missing_python_is_named_with_its_command() -> None:
    result = check_prerequisites("python3.11-of-nowhere")
    assert result.returncode == 1
    assert "There is no python3.11-of-nowhere" in result.stderr
    assert "apt-get install -y python3.11 python3.11-venv" in result.stderr


def test_another_python_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho 3.12\n")
    other.chmod(0o755)
    result = check_prerequisites(str(other))
    assert result.returncode == 1
    assert f"{other} is Python 3.12" in result.stderr


def test_missing_ensurepip_names_the_venv_package(tmp_path: Path) -> None:
    # As Debian's python3.11 without python3.11-venv.
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    result = check_prerequisites(sys.executable, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "apt-get install -y python3.11-venv\n" in result.stderr


def test_a_compiler_that_does_not_compile_is_named(tmp_path: Path) -> None:
    result = check_prerequisites(sys.executable, CXX=str(tmp_path / "g++"))
    assert result.returncode == 1
    assert "apt-get install -y g++\n" in result.stderr


def test_cuda_without_nvcc_is_named(tmp_path: Path) -> None:
    result = check_prerequisites(sys.executable, "cuda", HOROVOD_CUDA_HOME=str(tmp_path))
    assert result.returncode == 1
    assert f"no CUDA compiler {tmp_path}/bin/nvcc" in result.stderr
    assert "ACCELERATOR=cpu" in result.stderr


def test_the_driver_decides(tmp_path: Path) -> None:
    nowhere = tmp_path / "version"
    assert detect(driver=nowhere, search_path=str(tmp_path)) == "cpu"
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    assert detect(driver=nowhere, search_path=str(tmp_path)) == "cuda"
    tool.unlink()
    nowhere.touch()
    assert detect(driver=nowhere, search_path=str(tmp_path)) == "cuda"


def test_make_refuses_an_unknown_accelerator() -> None:
    command = ["make", "--dry-run", "setup", "ACCELERATOR=tpu"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "ACCELERATOR is 'tpu'; allowed are cpu and cuda" in result.stderr


@pytest.mark.parametrize(
    ("accelerator", "shown", "wanted"),
    [("cpu", "0", "2"), ("cuda", "0", "1"), ("cuda", "0,1", "2")],
)
def test_make_trains_on_no_more_ranks_than_gpus(
    nvml: ModuleType, accelerator: str, shown: str, wanted: str
) -> None:
    """Two made-up GPUs, of which CUDA_VISIBLE_DEVICES shows some."""
    command = ["make", "--dry-run", "train", f"ACCELERATOR={accelerator}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (asked,) = re.findall(r"horovodrun -np (.+) python -m dlbench.train", told)
    stand_in = Path(str(nvml.__file__)).parent
    variables = {"CUDA_VISIBLE_DEVICES": shown, "PYTHONPATH": f"{stand_in}:{ROOT}"}
    shell = ["sh", "-c", f"echo {asked}"]
    found = subprocess.check_output(shell, cwd=ROOT, env=os.environ | variables, text=True)
    assert found.strip() == wanted


def test_ranks_without_a_gpu_are_two() -> None:
    assert [ranks.number(gpus) for gpus in (0, 1, 2, 8)] == [2, 1, 2, 2]


def test_requirements_are_those_of_the_extras() -> None:
    base, cpu = requirements([]), requirements(["cpu"])
    assert set(cpu) - set(base) == {"tensorflow-cpu==2.21.*"}
    assert "tensorflow[and-cuda]==2.21.*" in requirements(["gpu"])
    with pytest.raises(ValueError, match=r"no extra 'tpu'; it has cpu, gpu, peers"):
        requirements(["tpu"])


def test_every_requirement_is_pinned() -> None:
    pinned = {name.lower() for name in pins(CONSTRAINTS.read_text())}
    extras = ["cpu", "gpu", "peers", "horovod", "test", "cluster-test", "lint"]
    names = {line.split("[")[0].split("=")[0].split(">")[0] for line in requirements(extras)}
    assert names - pinned == set()


def horovod_source(folder: Path) -> Path:
    """A source tree that holds each text to be edited once, amid other lines."""
    for edit in horovod.EDITS:
        file = folder / edit.path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as text:
            text.write(f"before\n{edit.old}after\n")
    return folder


def test_the_edits_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    horovod.apply_edits(horovod_source(tmp_path))
    expected: dict[str, str] = defaultdict(str)
    for edit in horovod.EDITS:
        expected[edit.path] += f"before\n{edit.new}after\n"
    assert {path: (tmp_path / path).read_text() for path in expected} == expected


@pytest.mark.parametrize("change", ["missing", "twice", "no file"])
def test_an_edit_that_does_not_fit_is_an_error(tmp_path: Path, change: str) -> None:
    edit = horovod.EDITS[1]
    file = horovod_source(tmp_path) / edit.path
    if change == "missing":
        file.write_text(edit.old.replace("Forward", "forward"))
    elif change == "twice":
        file.write_text(edit.old * 2)
    else:
        file.unlink()
    count = 2 if change == "twice" else 0
    with pytest.raises(
        horovod.InstallError, match=rf"mpi_ops\.cc .* edited {count} times, not once"
    ):
        horovod.apply_edits(tmp_path)


def test_cpu_flags_build_tensorflow_and_gloo_alone() -> None:
    flags = horovod.build_flags("cpu", WITH_AVX, {"HOROVOD_GPU_OPERATIONS": "NCCL"})
    assert flags["HOROVOD_BUILD_ARCH_FLAGS"] == "-mf16c -mavx"
    assert flags["HOROVOD_WITH_GLOO"] == flags["HOROVOD_WITHOUT_MPI"] == "1"
    assert not any("GPU" in name or "CUDA" in name for name in flags)


def test_cuda_flags_name_the_toolkit_and_nccl(tmp_path: Path) -> None:
    compiler = tmp_path / "bin" / "nvcc"
    compiler.parent.mkdir()
    compiler.touch()
    environ = {
        "CUDA_HOME": str(tmp_path),
        "HOROVOD_NCCL_HOME": "/opt/nccl",
        "HOROVOD_BUILD_CUDA_CC_LIST": "90",
    }
    flags = horovod.build_flags("cuda", WITH_AVX, environ)
    wanted = {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(tmp_path),
        "HOROVOD_NCCL_HOME": "/opt/nccl",
        "HOROVOD_BUILD_CUDA_CC_LIST": "90",
    }
    assert wanted.items() <= flags.items()
    compiler.unlink()
    with pytest.raises(horovod.InstallError, match="nvcc does not exist"):
        horovod.build_flags("cuda", WITH_AVX, environ)


def test_packaged_nccl_is_made_linkable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(horovod.InstallError, match="nvidia-nccl-cu12"):
        horovod.packaged_nccl()
    libraries = tmp_path / "lib" / "python3.11" / "site-packages" / "nvidia" / "nccl" / "lib"
    libraries.mkdir(parents=True)
    (libraries / "libnccl.so.2").write_bytes(b"library")
    assert horovod.packaged_nccl() == libraries.parent
    assert (libraries / "libnccl.so").read_bytes() == b"library"


def test_the_callers_horovod_variables_do_not_reach_the_build() -> None:
    environ = {"HOROVOD_WITH_MPI": "1", "CCL_ROOT": "/ccl", "MAKEFLAGS": "w", "HOME": "/home"}
    result = horovod.build_environment({"HOROVOD_WITH_GLOO": "1"}, environ)
    assert "HOROVOD_WITH_MPI" not in result
    assert "CCL_ROOT" not in result
    assert result["HOROVOD_WITH_GLOO"] == "1"
    assert result["HOME"] == "/home"
    assert result["MAKEFLAGS"].startswith("-j")


@pytest.mark.parametrize(
    ("cores", "megabytes", "jobs"), [(2, 16_000, 2), (64, 16_000, 16), (8, 500, 1)]
)
def test_compilers_have_memory(cores: int, megabytes: int, jobs: int) -> None:
    meminfo = f"MemTotal: 99000000 kB\nMemAvailable:   {megabytes}000 kB\n"
    assert horovod.compile_jobs(cores, meminfo) == jobs


INPUTS = {"horovod": "0.28.1", "tensorflow": "tensorflow-cpu 2.21.0"}


def test_a_kept_wheel_is_found_and_a_changed_one_is_not(tmp_path: Path) -> None:
    wheel = tmp_path / "horovod.whl"
    wheel.write_bytes(b"compiled")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = wheel_cache.folder_of("horovod", INPUTS, environ)
    assert folder is not None
    assert wheel_cache.find(folder) is None
    wheel_cache.keep(wheel, INPUTS, folder)
    kept = wheel_cache.find(folder)
    assert kept is not None
    assert kept.read_bytes() == b"compiled"
    assert json.loads((folder / "wheel.json").read_text())["inputs"] == INPUTS
    kept.write_bytes(b"tampered")
    assert wheel_cache.find(folder) is None
    wheel_cache.keep(wheel, INPUTS, folder)
    assert wheel_cache.find(folder) == kept
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_every_input_changes_the_key(tmp_path: Path) -> None:
    environ = {"DLBENCH_WHEEL_CACHE": str(tmp_path)}
    folders = {
        wheel_cache.folder_of("horovod", inputs, environ)
        for inputs in (INPUTS, {**INPUTS, "tensorflow": "tensorflow 2.21.0"}, {**INPUTS, "x": ""})
    }
    assert len(folders) == 3
    assert wheel_cache.folder_of("horovod", INPUTS, {"DLBENCH_WHEEL_CACHE": "off"}) is None


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "horovod.whl"
    wheel.write_bytes(b"compiled")
    (tmp_path / "file").touch()
    wheel_cache.keep(wheel, INPUTS, tmp_path / "file" / "wheels" / "horovod-key")
    assert "the wheel is not kept for the next time" in capsys.readouterr().out


def test_a_failing_build_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    command = [sys.executable, "-c", "print('no such header'); raise SystemExit(3)"]
    with pytest.raises(horovod.InstallError, match=r"no such header\n[^$]*code 3.*build\.log"):
        horovod.run_logged(command, os.environ, log, tmp_path)


def test_the_build_inputs_name_compiler_and_tensorflow() -> None:
    inputs = horovod.build_inputs({"HOROVOD_WITH_GLOO": "1"}, os.environ)
    assert inputs["tensorflow"].startswith("tensorflow")
    assert inputs["tensorflow"].endswith("2.21.0")
    assert "HOROVOD_WITH_GLOO" in inputs["flags"]
    assert horovod.build_inputs({}, os.environ) != inputs


@pytest.mark.slow
def test_two_ranks_add_their_numbers() -> None:
    horovod.check("cpu")


def test_what_is_told_to_install_is_a_pinned_package() -> None:
    """And not this project with an extra, which pip would build without TensorFlow."""
    pinned = set(pins(CONSTRAINTS.read_text()))
    command = re.compile(r"pip install -c install/constraints\.txt ([^\"`)\n]+)")
    sources = [ROOT / "README.md", *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/**/*.py")]
    told = [found for path in sources for found in command.findall(path.read_text())]
    assert {"torch", "pyflct", "asyncssh"} <= set(told)
    assert {name for names in told for name in names.split()} <= pinned


def test_ci_runs_the_readmes_test_command(tmp_path: Path) -> None:
    checkout, tools = tmp_path / "checkout", tmp_path / "tools"
    (checkout / ".ci").mkdir(parents=True)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci")
    make = tools / "make"
    make.write_text('#!/bin/sh\necho "$PWD make $* with ${DLBENCH_DATA-nothing}"\n')
    make.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if name != "DLBENCH_DATA"}
    environ["PATH"] = f"{tools}:{environ['PATH']}"

    def run(**more: str) -> str:
        command = [str(checkout / ".ci" / "run")]
        return subprocess.run(
            command, env={**environ, **more}, check=True, capture_output=True, text=True
        ).stdout

    assert run() == f"{checkout} make test with {tmp_path}/shared/data\n"
    assert run(DLBENCH_DATA="/mine") == f"{checkout} make test with /mine\n"
