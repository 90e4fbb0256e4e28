"""What a run ran on: hardware, libraries as loaded, thread settings, variables, code.

    python -m dlbench.environment

prints it. Whatever cannot be found out is None.
"""

import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlbench import gpus

Description = dict[str, Any]

PACKAGES = ("dlbench", "tensorflow", "tensorflow-cpu", "keras", "numpy", "horovod", "rasterio")
# The instruction sets that decide how fast float32, bfloat16 and half run.
CPU_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "bf16", "sve", "sve2"),
)
# Shared libraries that decide speed or results: CUDA's, OpenMP runtimes, allocators. Not NumPy's
# and SciPy's BLAS: no measured work runs there, and whether it is loaded depends on the data set.
LIBRARIES = re.compile(
    r"/(lib(?:cuda|cudart|cudnn|cublas|cublasLt|cufft|nccl|iomp5|gomp|omp|jemalloc|tcmalloc"
    r"|mimalloc|mkl_rt|dnnl|stdc\+\+))"
    r"(?:-[^/]*)?\.so(?:\.([\d.]+))?$"
)
PREFIXES = (
    *("TF_", "KERAS_", "XLA_", "HOROVOD_", "GLOO_", "NCCL_", "CUDA_", "NVIDIA_", "LD_PRELOAD"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "OPENBLAS_", "MALLOC_", "DLBENCH_"),
)
# Secrets, and the variables of Terraform, which shares TensorFlow's prefix and may hold some.
HIDDEN = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)KEY(?:_|$)|^TF_(?:CLI|VAR|LOG|DATA_DIR|INPUT)"
)
# Set by a launcher for one rank or one launch, or about logs and folders: no part of a setup. The
# GPUs that three of them lead to are described by themselves.
VOLATILE = re.compile(
    r"HOROVOD_(?:(?:LOCAL_|CROSS_)?(?:RANK|SIZE)|HOSTNAME|GLOO_\w+|CONTROLLER|CPU_OPERATIONS"
    r"|ELASTIC|TIMELINE\w*|LOG_\w+)|NCCL_SOCKET_IFNAME|NCCL_DEBUG\w*"
    r"|(?:CUDA|NVIDIA)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"
    r"|CUDA_(?:HOME|ROOT|PATH|CACHE_PATH)|CUDA_MPS_\w+_DIRECTORY|NCCL_\w+_DUMP_FILE"
    r"|TF_CPP_(?:MIN_LOG_LEVEL|VMODULE|MAX_VLOG_LEVEL)|TF_CONFIG|TF_DUMP_GRAPH_PREFIX|KERAS_HOME"
    r"|DLBENCH_(?:DATA|WHEEL_CACHE|PLANTED|FINAL|JOB|AGAIN|GRACE_S|FAULT_TABLE|FORECAST\w*)"
)
# Those of XLA's flags that name where something lies or is written, under Slurm a job's own folder.
PLACES = re.compile(r"""--\w+_(?:to|dir|directory)=(?:"[^"]*"|'[^']*'|\S*)""")


def describe(load: bool = False, horovod: Mapping[str, Any] | None = None) -> Description:
    """Return what is in use in this process, ready for JSON.

    TensorFlow, Keras and the compiled op are described as loaded, and None where this process has
    not imported them; `load` imports them first. `horovod` is what the caller knows of Horovod
    beyond its version and build, such as the number of ranks.
    """
    if load:
        import tensorflow  # noqa: F401
    installed = packages()
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "distribution": distribution(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
            "container": container(),
            "hostname": platform.node() or None,
        },
        "cpu": cpu(),
        "memory_bytes": memory_bytes(),
        "gpu": gpus.describe(os.environ),
        "packages": installed,
        "tensorflow": loaded_tensorflow(),
        "keras": loaded_keras(load),
        "horovod": {"version": installed["horovod"], **horovod_build(), **(horovod or {})},
        "op": loaded_op(load),
        "libraries": loaded_libraries(),
        "variables": variables(os.environ),
        "code": code(),
    }


def fingerprint(environment: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits, the same for equal setups: hardware, driver, libraries,
    versions, thread settings.

    Not part of it: the host's name, paths, what a launcher sets for one rank, the state of the
    code, and what follows from the number of ranks, which belongs to the workload. Memory counts in
    whole GiB, as the kernel's own share varies from start to start. GPUs are those that the process
    is shown, each kind once: how many are used depends on the ranks.
    """
    memory = environment["memory_bytes"]
    setup = {
        name: environment[name] for name in ("python", "cpu", "gpu", "tensorflow", "keras", "op")
    }
    if setup["gpu"]:
        kinds = {json.dumps(one, sort_keys=True): one for one in setup["gpu"]["devices"]}
        setup["gpu"] = {**setup["gpu"], "devices": list(kinds.values())}
    # Follows from the instruction set, the devices and the variables.
    setup["op"] = setup["op"] and {
        k: v for k, v in setup["op"].items() if k != "convolution_gradient"
    }
    # What carries sums is known of one rank too; not what it is told where there are several.
    horovod = environment["horovod"]
    setup["horovod"] = {k: horovod.get(k) for k in ("version", "nccl_built", "mpi_built")}
    setup["horovod"]["options"] = horovod.get("options") or {}
    if setup["tensorflow"]:
        share = max(1, environment["cpu"]["cores_usable"] // horovod.get("local_ranks", 1))
        setup["tensorflow"] = {
            k: "a rank's share of the cores" if k.endswith("_op_threads") and v == share else v
            for k, v in setup["tensorflow"].items()
        }
    setup["platform"] = {k: v for k, v in environment["platform"].items() if k != "hostname"}
    setup["memory"] = None if memory is None else round(memory / 2**30)
    setup["packages"] = {k: v for k, v in environment["packages"].items() if k != "dlbench"}
    # One rank loads no NCCL; its package counts.
    setup["libraries"] = {
        k: v["version"] for k, v in environment["libraries"].items() if k != "libnccl"
    }
    setup["variables"] = steering(environment["variables"])
    return hashlib.sha256(json.dumps(setup, sort_keys=True).encode()).hexdigest()[:16]


def packages() -> dict[str, str | None]:
    """Return the installed versions of PACKAGES and of NVIDIA's libraries."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in importlib.metadata.distributions():
        name = package.name.replace("_", "-").lower()
        if name in PACKAGES or name.startswith("nvidia-"):
            found[name] = package.version
    return found


def read(path: str) -> str:
    """Return the text of a file of the kernel's, empty where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def distribution() -> str | None:
    """Return the name of the Linux distribution, such as `Debian GNU/Linux 12 (bookworm)`."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def container() -> str | None:
    """Return the kind of container this process is in, as far as it shows."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    found = re.search(r"kubepods|docker|containerd|lxc", read("/proc/1/cgroup"))
    return found.group() if found else os.environ.get("container")  # noqa: SIM112


def cpu() -> Description:
    """Return model, instruction sets, and how many cores there are and may be used."""
    text = read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags.group(1).split()) if flags else None
    quota, _, period = read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    return {
        "model": model.group(1).strip() if model else None,
        "flags": None if known is None else [flag for flag in CPU_FLAGS if flag in known],
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "cores_quota": int(quota) / int(period) if quota.isdigit() and period.isdigit() else None,
    }


def memory_bytes() -> int | None:
    """Return the machine's memory in bytes, or the container's limit where that is lower."""
    total = re.search(r"^MemTotal:\s*(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    limit = read("/sys/fs/cgroup/memory.max").strip()
    sizes = [int(total.group(1)) * 1024] if total else []
    sizes += [int(limit)] if limit.isdigit() else []
    return min(sizes, default=None)


def loaded_tensorflow() -> Description | None:
    """Return version, build and thread settings of the TensorFlow in this process."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return None
    return {
        "version": tensorflow.version.VERSION,
        "git_version": tensorflow.version.GIT_VERSION,
        "compiler": tensorflow.version.COMPILER_VERSION,
        "build": dict(tensorflow.sysconfig.get_build_info()),
        # 0: TensorFlow decides.
        "intra_op_threads": tensorflow.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tensorflow.config.threading.get_inter_op_parallelism_threads(),
    }


def loaded_keras(load: bool) -> Description | None:
    """Return version and backend of the Keras in this process."""
    keras = importlib.import_module("keras") if load else sys.modules.get("keras")
    if keras is None:
        return None
    return {
        "version": keras.__version__,
        "backend": keras.backend.backend(),
        "image_data_format": keras.backend.image_data_format(),
    }


def loaded_op(load: bool) -> Description | None:
    """Return how the compiled ops were built and which kernels are used, or why none can be."""
    if not load and "dlbench.ops" not in sys.modules:
        return None
    try:
        build = importlib.import_module("dlbench.ops").build_info()
        gradient = importlib.import_module("dlbench.convolution").chosen()
        return {**build, "convolution_gradient": gradient}
    except (ImportError, OSError, ValueError) as error:
        return {"error": str(error)}


@functools.cache
def horovod_build() -> dict[str, bool]:
    """Return what the installed Horovod was built to sum by, besides Gloo.

    Its library is looked through, not loaded: one rank has no use for it.
    """
    found = importlib.util.find_spec("horovod")
    folders = found.submodule_search_locations if found else None
    for library in Path(folders[0]).glob("tensorflow/mpi_lib*.so") if folders else ():
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            calls = {"nccl_built": b"ncclAllReduce", "mpi_built": b"MPI_Allreduce"}
            return {name: text.find(call) >= 0 for name, call in calls.items()}
    return {}


def loaded_libraries() -> dict[str, Description]:
    """Return path and version of the shared libraries of interest that this process has loaded."""
    paths = sorted({line.split(maxsplit=5)[-1] for line in read("/proc/self/maps").splitlines()})
    libraries = {}
    for path in paths:
        # The mapped path is the file itself, so a full version is often part of its name.
        if found := LIBRARIES.search(path):
            name, suffix = found.groups()
            named = suffix if suffix and "." in suffix else None  # "12" is an interface's number.
            libraries[name] = {"version": asked_version(name, path) or named, "path": path}
    return libraries


def asked_version(name: str, path: str) -> str | None:
    """Return the version that a loaded CUDA library reports of itself, as its own integer."""
    functions = {
        "libcuda": "cuDriverGetVersion",
        "libcudart": "cudaRuntimeGetVersion",
        "libnccl": "ncclGetVersion",
    }
    if name == "libcudnn":
        library = ctypes.CDLL(path)
        library.cudnnGetVersion.restype = ctypes.c_size_t
        return str(library.cudnnGetVersion())
    if name in functions:
        number = ctypes.c_int()
        failed = getattr(ctypes.CDLL(path), functions[name])(ctypes.byref(number))
        return None if failed else str(number.value)
    return None


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that steer the libraries, no secrets among them."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(PREFIXES) and not HIDDEN.search(name)
    }


def steering(variables: Mapping[str, str]) -> dict[str, str]:
    """Return of a description's variables those that are part of a setup, XLA's flags without
    folders. An empty one says what an absent one does."""
    kept = {
        name: " ".join(PLACES.sub("", value).split()) if name.endswith("XLA_FLAGS") else value
        for name, value in variables.items()
        if not VOLATILE.fullmatch(name)
    }
    return {name: value for name, value in kept.items() if value}


RUNNING = ("--", ":/dlbench", ":/ops", ":/benchmarks", ":/setup.py")
"""What runs: a report or figure that is not committed yet does not make the code dirty."""


def code() -> Description:
    """Return the commit of this code and whether it was changed; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    unknown: Description = {"commit": None, "dirty": None}
    if shutil.which("git") is None:
        return unknown

    def git(*arguments: str) -> str | None:
        reply = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
        return reply.stdout.strip() if reply.returncode == 0 else None

    # An installed copy may lie in the ignored .venv of some other project's checkout.
    if git("ls-files", "--error-unmatch", __file__) is None:
        return unknown
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", *RUNNING)
    return {"commit": commit, "dirty": None if changes is None else changes != ""}


def main() -> None:
    """Print this process's environment, with TensorFlow loaded, as JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment = describe(load=True)
    print(json.dumps({"fingerprint": fingerprint(environment), **environment}, indent=2))


if __name__ == "__main__":
    main()
