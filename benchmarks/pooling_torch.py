"""PyTorch's pooling in a process of its own, timed in turn with ours.

Apart, so that the OpenMP threads and libraries that PyTorch brings belong neither to the process
that is measured nor to the setup that its records describe.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IDLE_S = 0.02
"""After so long its OpenMP threads, which wait for more work at first, have gone to sleep."""
PATIENCE_S = 60.0
OPERATIONS = ("pool", "unpool", "pool-gradient", "unpool-gradient")
ALLOCATORS = {
    # As it comes: the C library gives every large output new pages, and the kernel clears them.
    "torch": {},
    # Told to keep what is freed, as TensorFlow does by itself where it uses oneDNN. One arena:
    # the others cannot grow beyond 64 MB.
    "torch_tuned": {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 33),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    },
}
"""What PyTorch's process is started with, by the name of the peer."""


ABSENT = (
    # Not the extra `peers` of this project: that would build dlbench itself, without TensorFlow.
    "PyTorch is not installed: .venv/bin/pip install -c install/constraints.txt torch"
)


def installed() -> bool:
    return importlib.util.find_spec("torch") is not None


class TorchPeer:
    """One operation on one case with one of ``ALLOCATORS``; made, it has been checked against the
    case's arrays."""

    def __init__(
        self, name: str, operation: str, shape: tuple[int, ...], precision: str, threads: int
    ) -> None:
        self.name = name
        command = [sys.executable, __file__, operation, json.dumps(shape), precision, str(threads)]
        own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=own | ALLOCATORS[name] | {"OMP_NUM_THREADS": str(threads)},
        )
        try:
            self.description = self._receive().strip()
        except BaseException:
            self.close()
            raise

    def __call__(self, repeats: int) -> float:
        """Seconds that ``repeats`` runs take."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: there is nothing to receive
            self._process.stdin.write(f"{repeats}\n")
            self._process.stdin.flush()
        return float(self._receive())

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the PyTorch process ended with status {self._process.wait()}; its own message "
                "stands above"
            )
        return line


def _operation(name: str, arrays: Any, precision: str) -> tuple[Callable[[], Any], Any]:
    """The operation, as one would use it on a CPU (channels last), and what it must give."""
    import torch
    import torch.nn.functional as functional

    from benchmarks.pooling_cases import flat_indices

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]

    def channels_last(array: Any, dtype: Any = dtype) -> Any:
        return torch.from_numpy(array).permute(0, 3, 1, 2).to(dtype)  # keeps the memory's order

    dense, values = channels_last(arrays.dense), channels_last(arrays.values)
    indices = channels_last(flat_indices(arrays), torch.int64)
    size = dense.shape[2:]
    if name == "pool":
        return (
            lambda: functional.max_pool2d(dense, 2, ceil_mode=True, return_indices=True),
            (values, indices),
        )
    unpooled = channels_last(arrays.unpooled)
    if name == "unpool":
        return lambda: (functional.max_unpool2d(values, indices, [2, 2], output_size=size),), (
            unpooled,
        )
    if name == "pool-gradient":
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return (
            lambda: (backward(values, dense, [2, 2], [2, 2], [0, 0], [1, 1], True, indices),),
            (unpooled,),
        )
    # What PyTorch's own derivative of max_unpool2d does.
    flat = indices.flatten(2)
    return (
        lambda: (dense.flatten(2).gather(2, flat).view(values.shape),),
        (values,),
    )


def main(name: str, shape: str, precision: str, threads: str) -> None:
    import torch

    from benchmarks.pooling_cases import arrays

    torch.set_num_threads(int(threads))
    with torch.inference_mode():
        run, expected = _operation(name, arrays(tuple(json.loads(shape)), precision), precision)
        for found, wanted in zip(run(), expected, strict=True):
            assert torch.equal(found, wanted), f"PyTorch's {name} differs"
        print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} thread(s)", flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            for _ in range(int(line)):
                run()
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(*sys.argv[1:])
