"""The CUDA pooling kernels by themselves, on a machine with a GPU, nvcc and PyTorch.

    python benchmarks/bench_pooling_cuda.py [--output pooling_cuda.md]

TensorFlow is not needed: nvcc builds ops/pooling_cuda.cu, g++ the CPU kernels. What the GPU gives
is compared with the CPU kernels byte for byte, and then timed in turn with PyTorch's pooling and
with a copy on the device, all of them channels last. Bytes are those that an operation must read
and write; a fraction is their rate divided by that of the copy. Where an operation takes less than
some ten microseconds, what is timed is how fast it can be launched.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import itertools
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / "ops"
TYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
"""As in ops/pooling.h."""
ITEM = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
TIMED_PRECISIONS = ("float32", "bfloat16", "float16")
# What SegNet's five pools see of four images of 360 x 480.
TIMED_SHAPES = (
    (4, 360, 480, 64),
    (4, 180, 240, 128),
    (4, 90, 120, 256),
    (4, 45, 60, 512),
    (4, 23, 30, 512),
)
# Odd sizes, channels that fill no vector, windows of other sizes: (shape, window size).
CHECKED = (
    ((2, 9, 7, 64), 2),
    ((1, 5, 6, 70), 2),
    ((2, 4, 4, 3), 2),
    ((1, 7, 8, 16), 3),
    ((1, 20, 33, 5), 16),
    ((3, 46, 61, 512), 2),
)
ROUNDS, ROUND_BYTES = 15, 4 << 30


class Geometry(ctypes.Structure):
    """As in ops/pooling.h."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("k", ctypes.c_int),
        ("packed", ctypes.c_bool),
    )

    @classmethod
    def of(cls, shape: tuple[int, ...], k: int, packed: bool) -> Geometry:
        return cls(*shape, k, packed)

    @property
    def pooled(self) -> tuple[int, ...]:
        return (self.batch, -(-self.height // self.k), -(-self.width // self.k), self.channels)

    @property
    def indices(self) -> tuple[int, ...]:
        count = -(-self.channels // 4) if self.packed else self.channels
        return (*self.pooled[:3], count)


CPU_FACE = """
#include "pooling_cpu.h"
using namespace dlbench;
static const Kernels& Use() { const char* error; return *CurrentKernels(&error); }
extern "C" void dlbench_cpu_pool(Type t, const Geometry* g, const void* dense, void* values,
                                 uint8_t* indices) {
  Use().pool(t, *g, dense, values, indices, 0, g->batch * g->rows());
}
extern "C" void dlbench_cpu_unpool(Type t, const Geometry* g, const void* values,
                                   const uint8_t* indices, void* dense) {
  Use().unpool(t, *g, values, indices, dense, 0, g->batch * g->rows());
}
extern "C" void dlbench_cpu_gather(Type t, const Geometry* g, const void* dense,
                                   const uint8_t* indices, void* values) {
  Use().gather(t, *g, dense, indices, values, 0, g->batch * g->rows());
}
"""


def build(folder: Path, emulate: bool = False) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The CUDA kernels for the GPU at hand, and the CPU's. With ``emulate``, g++ compiles the CUDA
    source too and its threads run on the CPU: a rehearsal of this file where there is no GPU."""
    shared = ["-std=c++17", "-O3", "-shared", f"-I{OPS}"]
    cuda = folder / "cuda.so"
    if emulate:
        header = f"-I{ROOT / 'tests' / 'native'}"
        command = ["g++", *shared, "-fPIC", header, "-x", "c++", str(OPS / "pooling_cuda.cu")]
    else:
        command = [
            "nvcc",
            *shared,
            "-arch=native",
            "-Xcompiler=-fPIC",
            str(OPS / "pooling_cuda.cu"),
        ]
    subprocess.run([*command, "-o", str(cuda)], check=True)
    face = folder / "face.cc"
    face.write_text(CPU_FACE)
    objects: list[tuple[Path, list[str]]] = [
        (face, []),
        (OPS / "pooling_cpu.cc", []),
        (OPS / "pooling_cpu_portable.cc", []),
    ]
    if platform.machine() in ("x86_64", "AMD64"):
        wide = [f"-mavx512{part}" for part in ("f", "bw", "vl", "dq")]
        objects += [
            (OPS / "pooling_cpu_avx2.cc", ["-mavx2"]),
            (OPS / "pooling_cpu_avx512.cc", wide),
        ]
    outputs = [str(folder / source.with_suffix(".o").name) for source, _ in objects]
    for (source, flags), output in zip(objects, outputs, strict=True):
        base = ["g++", "-std=c++17", "-O3", "-fPIC", f"-I{OPS}", *flags]
        subprocess.run([*base, "-c", str(source), "-o", output], check=True)
    cpu = folder / "cpu.so"
    subprocess.run(["g++", "-shared", *outputs, "-o", str(cpu)], check=True)
    libraries = ctypes.CDLL(str(cuda)), ctypes.CDLL(str(cpu))
    for name in ("pool", "unpool", "gather"):
        getattr(libraries[0], f"dlbench_cuda_{name}").restype = ctypes.c_char_p
    return libraries


class Kernels:
    """The launchers on tensors; ``stream`` is None for the CPU's."""

    def __init__(self, library: ctypes.CDLL, side: str, stream: Callable[[], Any] | None) -> None:
        self._library, self._side, self._stream = library, side, stream

    def __call__(self, name: str, geometry: Geometry, precision: str, *tensors: Any) -> None:
        """``pool(dense, values, indices)``, ``unpool(values, indices, dense)`` or
        ``gather(dense, indices, values)``; the output comes last."""
        self.bind(name, geometry, precision, *tensors)()

    def bind(
        self, name: str, geometry: Geometry, precision: str, *tensors: Any
    ) -> Callable[[], None]:
        """That call, all but made: what is left takes as little of the host's time as it can."""
        run = getattr(self._library, f"dlbench_{self._side}_{name}")
        arguments = [TYPES[precision], ctypes.byref(geometry)]
        arguments += [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        arguments += [ctypes.c_void_p(self._stream())] if self._stream else []
        checked = self._stream is not None

        def call() -> None:
            error = run(*arguments)
            if checked and error is not None:
                raise RuntimeError(f"{name} did not start: {error.decode()}")

        return call


def check(gpu: Kernels, cpu: Kernels, device: str) -> int:
    """Compares all outputs byte for byte, NaN, infinities, ties and foreign indices among the
    inputs; the number of cases, all of them equal, or AssertionError at the first that is not."""
    import torch

    cases = 0
    for shape, k in CHECKED:
        for precision in TYPES:
            for packed in (False, True) if k == 2 else (False,):
                for aligned in (True, False):
                    _check_case(gpu, cpu, device, shape, k, precision, packed, aligned, cases)
                    cases += 1
    if device == "cuda":
        torch.cuda.synchronize()
    return cases


def _check_case(
    gpu: Kernels,
    cpu: Kernels,
    device: str,
    shape: tuple[int, ...],
    k: int,
    precision: str,
    packed: bool,
    aligned: bool,
    seed: int,
) -> None:
    import torch

    g = Geometry.of(shape, k, packed)
    dtype = getattr(torch, precision)
    generator = torch.Generator().manual_seed(seed)
    # Few distinct numbers, so that ties are common, and what is special.
    pool = torch.tensor([-2, -1, -0.0, 0.0, 1, 2, 1e-40, float("inf"), -float("inf"), float("nan")])
    choice = torch.randint(len(pool), shape, generator=generator)
    foreign = torch.randint(256, g.indices, generator=generator, dtype=torch.uint8)
    dense = pool[choice].to(dtype)
    if not packed:  # mostly those of the window, but also any other byte
        own = (foreign.int() % (k * k)).to(torch.uint8)
        foreign = torch.where(foreign >= 192, foreign, own)
    assert foreign.any()

    def placed(tensor: Any, on: str) -> Any:
        # One element further on: no vector access is aligned there.
        room = torch.zeros(tensor.numel() + 16, dtype=tensor.dtype, device=on)
        start = 0 if aligned else 1
        view = room[start : start + tensor.numel()].view(tensor.shape)
        view.copy_(tensor)
        return view

    found = []
    for kernels, on in ((gpu, device), (cpu, "cpu")):
        source, own = placed(dense, on), placed(foreign, on)
        values = placed(torch.full(g.pooled, 7.0, dtype=dtype), on)
        indices = placed(torch.full(g.indices, 99, dtype=torch.uint8), on)
        unpooled = placed(torch.full(shape, 7.0, dtype=dtype), on)
        gathered = placed(torch.full(g.pooled, 7.0, dtype=dtype), on)
        kernels("pool", g, precision, source, values, indices)
        kernels("unpool", g, precision, values, own, unpooled)
        kernels("gather", g, precision, source, own, gathered)
        outputs = {"values": values, "indices": indices, "unpooled": unpooled, "gathered": gathered}
        found.append({name: tensor.cpu().contiguous() for name, tensor in outputs.items()})
    for name, tensor in found[0].items():
        same = torch.equal(tensor.view(torch.uint8), found[1][name].view(torch.uint8))
        assert same, f"{name} differ: {precision}, shape {shape}, k {k}, packed {packed}"


class Timed(NamedTuple):
    """Medians of one operation on one input."""

    operation: str
    shape: tuple[int, ...]
    precision: str
    microseconds: float
    gigabytes_per_s: float
    of_copy: float
    """Its bytes a second divided by the copy's."""
    torch_ratio: float | None
    """PyTorch's time divided by ours; None for the packed form, which PyTorch lacks."""


def measure(gpu: Kernels) -> Iterator[Timed]:
    """Ours, PyTorch's and a copy in turn, each round timed by the device's own events."""
    import torch

    for shape in TIMED_SHAPES:
        for precision in TIMED_PRECISIONS:
            yield from _measure(gpu, shape, precision)
            torch.cuda.empty_cache()


def _measure(gpu: Kernels, shape: tuple[int, ...], precision: str) -> Iterator[Timed]:
    import torch
    import torch.nn.functional as functional

    dtype, item = getattr(torch, precision), ITEM[precision]
    dense = torch.randn(shape, device="cuda").to(dtype)
    copy = torch.empty_like(dense)
    g, packed = Geometry.of(shape, 2, False), Geometry.of(shape, 2, True)
    values = torch.empty(g.pooled, dtype=dtype, device="cuda")
    indices = torch.empty(g.indices, dtype=torch.uint8, device="cuda")
    packed_indices = torch.empty(packed.indices, dtype=torch.uint8, device="cuda")
    unpooled = torch.empty_like(dense)
    # PyTorch's shape over the same memory: channels last.
    nchw = dense.permute(0, 3, 1, 2)
    theirs, flat = functional.max_pool2d(nchw, 2, ceil_mode=True, return_indices=True)
    gpu("pool", g, precision, dense, values, indices)
    gpu("pool", packed, precision, dense, values, packed_indices)
    torch.testing.assert_close(values.permute(0, 3, 1, 2), theirs, rtol=0, atol=0)
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    size = nchw.shape[2:]
    per_channel = flat.flatten(2)

    peers: dict[str, Callable[[], Any]] = {
        "pool": lambda: functional.max_pool2d(nchw, 2, ceil_mode=True, return_indices=True),
        "unpool": lambda: functional.max_unpool2d(theirs, flat, [2, 2], output_size=size),
        "pool's gradient": lambda: backward(
            theirs, nchw, [2, 2], [2, 2], [0, 0], [1, 1], True, flat
        ),
        "unpool's gradient": lambda: nchw.flatten(2).gather(2, per_channel),
    }
    dense_bytes = dense.numel() * item
    operations: list[tuple[str, Callable[[], Any], Callable[[], Any] | None, int]] = []
    for form, geometry, own in (("", g, indices), (", packed", packed, packed_indices)):
        moved = dense_bytes + values.numel() * item + own.numel()
        ours = {
            "pool": gpu.bind("pool", geometry, precision, dense, values, own),
            "unpool": gpu.bind("unpool", geometry, precision, values, own, unpooled),
            "unpool's gradient": gpu.bind("gather", geometry, precision, dense, own, values),
        }
        ours["pool's gradient"] = ours["unpool"]
        for name, theirs_run in peers.items():
            # PyTorch has no packed form; the pool's gradient is the unpool.
            if not geometry.packed:
                operations.append((name, ours[name], theirs_run, moved))
            elif name != "pool's gradient":
                operations.append((name + form, ours[name], None, moved))

    def copy_all() -> None:
        copy.copy_(dense)

    repeats = max(1, ROUND_BYTES // (2 * dense_bytes))
    for operation, run_ours, peer, moved in operations:
        times: dict[str, list[float]] = {"ours": [], "copy": [], "torch": []}
        for number in range(ROUNDS + 2):
            for name, run in (("ours", run_ours), ("copy", copy_all), ("torch", peer)):
                if run is None:
                    continue
                seconds = _seconds(run, repeats)
                if number >= 2:
                    times[name].append(seconds)
        ours_s = statistics.median(times["ours"])
        of_copy = [
            (moved / mine) / (2 * dense_bytes / its)
            for mine, its in zip(times["ours"], times["copy"], strict=True)
        ]
        ratios = [its / mine for its, mine in zip(times["torch"], times["ours"], strict=False)]
        yield Timed(
            operation,
            shape,
            precision,
            ours_s * 1e6,
            moved / ours_s / 1e9,
            statistics.median(of_copy),
            statistics.median(ratios) if ratios else None,
        )


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def table(rows: Iterable[Timed]) -> Iterator[str]:
    yield "| operation | input | µs | GB/s | of the copy's rate | PyTorch / ours |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in rows:
        size = " × ".join(map(str, row.shape))
        ratio = "–" if row.torch_ratio is None else f"{row.torch_ratio:.2f}"
        yield (
            f"| {row.operation} | {size} {row.precision} | {row.microseconds:.1f} | "
            f"{row.gigabytes_per_s:.0f} | {row.of_copy:.2f} | {ratio} |"
        )


def machine() -> str:
    import torch

    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu: list[str] = []
    if shutil.which(query[0]):
        gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = next(
        (line.strip() for line in nvcc.splitlines() if "release" in line), "nvcc unknown"
    )
    return (
        f"{gpu[0] if gpu else torch.cuda.get_device_name()}, {release}, PyTorch "
        f"{torch.__version__} with CUDA {torch.version.cuda}, {datetime.date.today()}"
    )


def missing() -> str | None:
    """What this machine lacks, in a sentence, or None."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed; install a CUDA build of it"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no GPU; run this on a machine that has one"
    if not shutil.which("nvcc") or not shutil.which("g++"):
        return "nvcc and g++ must be on the PATH; install the CUDA toolkit and g++"
    return None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the Markdown table there too")
    output = parser.parse_args(arguments).output
    if lack := missing():
        print(f"bench_pooling_cuda: {lack}", file=sys.stderr)
        return 2
    import torch

    with tempfile.TemporaryDirectory() as folder:
        cuda_library, cpu_library = build(Path(folder))
        gpu = Kernels(cuda_library, "cuda", lambda: torch.cuda.current_stream().cuda_stream)
        cases = check(gpu, Kernels(cpu_library, "cpu", None), "cuda")
        head = ["# The CUDA pooling kernels", "", machine(), ""]
        head += [f"{cases} cases equal the CPU kernels byte for byte.", ""]
        lines: list[str] = []
        for line in itertools.chain(head, table(measure(gpu))):
            print(line, flush=True)
            lines.append(line)
    if output is not None:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
