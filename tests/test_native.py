"""The TensorFlow-free core under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "tests" / "native"
SANITIZE = [
    "-DDLBENCH_STREAM_BYTES=4096",
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]
FLAGS: dict[str, list[str]] = {"portable": []}  # as in setup.py
STAND_IN: list[str] = []
if platform.machine() == "x86_64":
    FLAGS["avx2"] = ["-mavx2", "-mfma"]
    FLAGS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
    if "avx512bw" not in Path("/proc/cpuinfo").read_text():
        STAND_IN = ["-DDLBENCH_AVX512_STAND_IN", "-Wno-psabi"]
        FLAGS["avx512"] = []


def compile_fuzz(folder: Path, op: str, ops: Path = ROOT / "ops") -> Path:
    """The fuzz target of an op with its kernels. Where the processor lacks AVX-512, they have its
    vectors without its instructions."""
    sources: dict[Path, list[str]] = {
        NATIVE / f"{op}_fuzz.cc": [],
        ops / "processor.cc": [],
        ops / f"{op}_cpu.cc": [],
    }
    for isa, own in FLAGS.items():
        wide = NATIVE / f"{op}_cpu_wide.cc"
        instead = isa == "avx512" and STAND_IN and wide.exists()
        sources[wide if instead else ops / f"{op}_cpu_{isa}.cc"] = own
    if op == "pooling":
        sources[ops / "pooling_cuda.cu"] = []  # as C++, with tests/native/cuda_runtime.h
    flags = [*SANITIZE, *STAND_IN, *(["-ffp-contract=off"] if op == "normalization" else [])]
    objects = [folder / source.with_suffix(".o").name for source in sources]

    def run(source: Path, own: list[str], target: Path) -> None:
        include = [f"-I{ops}", f"-I{NATIVE}"]
        command = ["g++", "-std=c++17", *include, *flags, *own, "-x", "c++", "-c", str(source)]
        command += ["-o", str(target)]
        subprocess.run(command, check=True, timeout=300)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, sources, sources.values(), objects))
    program = folder / f"{op}_fuzz"
    subprocess.run(["g++", *flags, *objects, "-o", program], check=True, timeout=100)
    return program


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fuzz(tmp_path_factory.mktemp("sanitized"), "pooling")


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_corpus(sanitized: Path) -> None:
    files = sorted((NATIVE / "corpus").iterdir())
    done = run(sanitized, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(files)} files\n"


def test_random_cases(sanitized: Path) -> None:
    done = run(sanitized, "--random", 1500, 1)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_many_random_cases(sanitized: Path) -> None:
    done = run(sanitized, "--random", 100_000, 2)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("op", "cases"), [("convolution", 300), ("normalization", 200)])
def test_random_cases_of_other_ops(tmp_path: Path, op: str, cases: int) -> None:
    done = run(compile_fuzz(tmp_path, op), cases, 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{cases} random cases\n"


needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on the PATH")


def compile_cuda(target: Path, *flags: str) -> None:
    warnings = ["-Xcompiler=-Wall,-Wextra", "--Werror=all-warnings"]
    source = ROOT / "ops" / "pooling_cuda.cu"
    command = ["nvcc", "-std=c++17", *warnings, *flags, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@needs_nvcc
def test_cuda_kernels_compile(tmp_path: Path) -> None:
    """For one architecture; no GPU runs them here."""
    compile_cuda(tmp_path / "cuda.o", "-arch=sm_90")


@pytest.mark.slow
@needs_nvcc
def test_library_with_gpu_kernels_builds_and_loads(tmp_path: Path) -> None:
    """For every architecture; the kernels for TensorFlow's GPU devices are registered, not run."""
    compile_cuda(tmp_path / "cuda.o", "-arch=all", "--threads=2")
    command = [sys.executable, "setup.py", "build_ext", "--force"]
    command += ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "objects")]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "DLBENCH_CUDA": "1"}, check=True)
    code = """
import sys
from pathlib import Path
import tensorflow as tf
from tensorflow.python.framework import kernels
from dlbench import ops
ops.LIBRARY = Path(sys.argv[1])
print("release" in ops.build_info()["cuda"])
for op in ("DlbenchMaxPool", "DlbenchMaxUnpool", "DlbenchMaxGather"):
    found = kernels.get_registered_kernels_for_op(op).kernel
    print(op, sum(kernel.device_type == "GPU" for kernel in found))
"""
    library = tmp_path / "dlbench" / "_pooling.so"
    done = subprocess.run(
        [sys.executable, "-c", code, library], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    expected = ["True", "DlbenchMaxPool 4", "DlbenchMaxUnpool 4", "DlbenchMaxGather 4"]
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("(!(candidate <= best))", "(!(candidate < best))", "pool"),
        ("? static_cast<int>(length - start) : k", "? k : k", "AddressSanitizer"),
    ],
)
def test_a_broken_kernel_is_found(tmp_path: Path, right: str, wrong: str, found: str) -> None:
    """What the tests above rest on: they fail when a kernel is wrong or steps out of bounds."""
    ops = tmp_path / "ops"
    ops.mkdir()
    for source in (ROOT / "ops").iterdir():
        text, changes = re.subn(re.escape(right), wrong, source.read_text())
        assert changes == (source.name == "pooling.h")
        (ops / source.name).write_text(text)
    done = run(compile_fuzz(tmp_path, "pooling", ops), "--random", 1500, 1)
    assert done.returncode != 0
    assert found in done.stderr
