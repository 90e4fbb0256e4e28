"""benchmarks/bench_pooling_cuda.py without a GPU: its checks, on kernels that run on the CPU.

That the timing works, only a machine with a GPU can show.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench_pooling_cuda as benchmark

ROOT = Path(__file__).parents[1]


def test_a_machine_without_gpu_is_told_what_is_missing() -> None:
    if benchmark.missing() is None:
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "benchmarks/bench_pooling_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.startswith("bench_pooling_cuda: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_checks_accept_right_kernels_and_refuse_wrong_ones(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra `peers`)")
    cuda, cpu = benchmark.build(tmp_path, emulate=True)
    gpu = benchmark.Kernels(cuda, "cuda", lambda: 0)
    assert benchmark.check(gpu, benchmark.Kernels(cpu, "cpu", None), "cpu") > 50

    def without_indices(name: str, *arguments: object) -> None:
        if name != "pool":
            gpu(name, *arguments)  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match="values differ"):
        benchmark.check(without_indices, benchmark.Kernels(cpu, "cpu", None), "cpu")  # type: ignore[arg-type]
