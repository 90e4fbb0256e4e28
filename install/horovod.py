"""Build Horovod 0.28.1 for the TensorFlow of this virtual environment, and install it.

    .venv/bin/python -m install.horovod [--accelerator cpu|cuda]

The sdist comes from the package index, is checked against a pinned hash, and is changed by the
edits of `install/horovod_edits.py`. The finished wheel is kept outside the checkout under a key
made of everything that shapes it, so that a second clone installs in seconds;
`DLBENCH_WHEEL_CACHE=off` builds anew, and a cache that cannot be written is no error.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from install import wheel_cache
from install.accelerator import ACCELERATORS, detect
from install.horovod_edits import EDITS, Edit

VERSION = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
# Instructions that Horovod uses for half-precision sums on the CPU, by their /proc/cpuinfo names.
CPU_INSTRUCTIONS = ("f16c", "avx", "fma")
COMPILER_VARIABLES = ("CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")


# What the installed Horovod has to do: one sum over two ranks.
PROGRAM = """
import horovod.tensorflow as hvd
import tensorflow as tf
hvd.init()
total = hvd.allreduce(tf.constant(1.0), op=hvd.Sum).numpy()
print(f"dlbench: sum {total:.0f} gloo {hvd.gloo_built()} nccl {bool(hvd.nccl_built())}")
"""


class InstallError(RuntimeError):
    """Horovod could not be built or does not work; the message says why and what to do."""


def apply_edits(source: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Change the unpacked Horovod in place; raise InstallError unless each text is there once."""
    for edit in edits:
        file = source / edit.path
        text = file.read_text() if file.exists() else ""
        if (count := text.count(edit.old)) != 1:
            raise InstallError(
                f"{edit.path} of Horovod {VERSION} holds the text to be edited {count} times, not "
                f"once ({edit.reason}). The edits in install/horovod_edits.py are written for "
                f"Horovod {VERSION}: adapt the edit to this source. Sought:\n{edit.old}"
            )
        file.write_text(text.replace(edit.old, edit.new))


def tensorflow_package() -> tuple[str, str]:
    """Return name and version of the installed TensorFlow package; the GPU one is `tensorflow`."""
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise InstallError(
        f"no TensorFlow in {sys.prefix}, and Horovod is built against it. Run `make setup`."
    )


def instruction_flags(cpuinfo: str) -> str:
    """Return compiler flags for those of CPU_INSTRUCTIONS that the text of /proc/cpuinfo lists."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    known = set(found.group(1).split()) if found else set()
    return " ".join(f"-m{name}" for name in CPU_INSTRUCTIONS if name in known)


def build_flags(accelerator: str, cpuinfo: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that steer Horovod's build.

    CUDA: the toolkit is HOROVOD_CUDA_HOME, else CUDA_HOME, else /usr/local/cuda; NCCL is
    HOROVOD_NCCL_HOME, else the nvidia-nccl package of this virtual environment.
    HOROVOD_BUILD_CUDA_CC_LIST, if given, restricts the GPU generations that are compiled for.
    """
    flags = {
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITHOUT_NVTX": "1",
    }
    # Given here rather than probed by Horovod, so that the flags become part of the cache's key.
    if instructions := instruction_flags(cpuinfo):
        flags["HOROVOD_BUILD_ARCH_FLAGS"] = instructions
    if accelerator == "cuda":
        toolkit = environ.get("HOROVOD_CUDA_HOME") or environ.get("CUDA_HOME") or "/usr/local/cuda"
        if not (Path(toolkit) / "bin" / "nvcc").exists():
            raise InstallError(
                f"Horovod's CUDA kernels need nvcc, and {toolkit}/bin/nvcc does not exist. Install "
                "the CUDA toolkit, or name it with HOROVOD_CUDA_HOME=/path/to/cuda, or set up for "
                "the CPU alone with ACCELERATOR=cpu."
            )
        flags["HOROVOD_GPU"] = "CUDA"
        flags["HOROVOD_GPU_OPERATIONS"] = "NCCL"
        # The package holds the shared library only.
        flags["HOROVOD_NCCL_LINK"] = "SHARED"
        flags["HOROVOD_CUDA_HOME"] = toolkit
        flags["HOROVOD_NCCL_HOME"] = environ.get("HOROVOD_NCCL_HOME") or str(packaged_nccl())
        if generations := environ.get("HOROVOD_BUILD_CUDA_CC_LIST"):
            flags["HOROVOD_BUILD_CUDA_CC_LIST"] = generations
    return flags


def packaged_nccl() -> Path:
    """Return the folder of the nvidia-nccl package, made linkable: its library lacks the plain
    name that the linker looks for."""
    root = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    nccl = root / "nvidia" / "nccl"
    library = nccl / "lib" / "libnccl.so.2"
    if not library.exists():
        raise InstallError(
            f"{library} does not exist. It comes with the package nvidia-nccl-cu12: run `make "
            "setup ACCELERATOR=cuda`, or name another NCCL with HOROVOD_NCCL_HOME=/path/to/nccl."
        )
    plain = library.with_name("libnccl.so")
    if not plain.exists():
        plain.symlink_to(library.name)
    return nccl


def compile_jobs(cores: int, meminfo: str) -> int:
    """Return how many compilers run at once: one a core, as far as each has 1 GB of memory."""
    available = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo, re.MULTILINE)
    return max(1, min(cores, int(available.group(1)) // 1_000_000)) if available else 1


def build_environment(flags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the build: the caller's, with no other say in Horovod's.

    CCL_ROOT would switch oneCCL on. make hands its own MAKEFLAGS down, with a job server that the
    nested make cannot reach; Horovod's default of eight jobs exhausts small machines.
    """
    inherited = {
        name: value
        for name, value in environ.items()
        if not name.startswith("HOROVOD_") and name not in ("CCL_ROOT", "MAKELEVEL", "MFLAGS")
    }
    scripts = str(Path(sys.prefix) / "bin")
    jobs = compile_jobs(len(os.sched_getaffinity(0)), Path("/proc/meminfo").read_text())
    return inherited | {
        "CXX": environ.get("CXX", "g++"),
        "MAKEFLAGS": f"-j{jobs}",
        "PATH": scripts + os.pathsep + environ.get("PATH", os.defpath),
        "HOROVOD_CMAKE": str(Path(scripts) / "cmake"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **flags,
    }


def output_of(command: list[str]) -> str:
    """Return what a command prints, or raise InstallError when it cannot be run."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"`{shlex.join(command)}` does not work: {error}") from error


def build_inputs(flags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return everything that shapes the wheel, each by name: the cache's key is made of it."""
    package, version = tensorflow_package()
    # The toolkit's path says nothing; what lies there is named by its version.
    plain = {name: value for name, value in flags.items() if not name.endswith("_HOME")}
    inputs = {
        "horovod": VERSION,
        "sdist": SDIST_SHA256,
        "edits": hashlib.sha256(repr(EDITS).encode()).hexdigest(),
        "tensorflow": f"{package} {version}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}",
        "compiler": output_of([*shlex.split(environ.get("CXX", "g++")), "--version"]),
        "cmake": importlib.metadata.version("cmake"),
        "setuptools": importlib.metadata.version("setuptools"),
        "flags": json.dumps(plain, sort_keys=True),
        **{name: environ.get(name, "") for name in COMPILER_VARIABLES},
    }
    if "HOROVOD_CUDA_HOME" in flags:
        inputs["nvcc"] = output_of([f"{flags['HOROVOD_CUDA_HOME']}/bin/nvcc", "--version"])
        # NCCL with its place: the linker writes it into the library, as where to find NCCL.
        inputs["nccl_home"] = flags["HOROVOD_NCCL_HOME"]
        header = Path(flags["HOROVOD_NCCL_HOME"]) / "include" / "nccl.h"
        found = re.search(r"NCCL_VERSION_CODE\s+(\d+)", header.read_text())
        inputs["nccl"] = found.group(1) if found else header.read_text()
    return inputs


def run_logged(command: list[str], environ: Mapping[str, str], log: Path, cwd: Path) -> None:
    """Run a command with its output in `log`; on failure raise InstallError with the log's end."""
    with log.open("a") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        result = subprocess.run(
            command, env=dict(environ), stdout=output, stderr=subprocess.STDOUT, cwd=cwd
        )
    if result.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise InstallError(
            f"{tail}\n\n`{shlex.join(command)}` ended with code {result.returncode}; "
            f"the lines above are the end of {log}"
        )


def build_wheel(environ: Mapping[str, str], work: Path, log: Path) -> Path:
    """Fetch, check, edit and compile Horovod in `work`, and return the wheel."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pinned = work / "pinned.txt"
    pinned.write_text(f"horovod=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
    plain = ["--no-deps", "--no-build-isolation"]
    from_source = ["--no-binary", ":all:", "--require-hashes", "--requirement", str(pinned)]
    run_logged([*pip, "download", *plain, *from_source, "--dest", str(work)], environ, log, work)
    # Freshly unpacked each time: Horovod's CMake edits its own sources, once. Without a filter, as
    # the archive's hash is known and the Python 3.11.2 of Debian 12 has none.
    with tarfile.open(work / f"horovod-{VERSION}.tar.gz") as archive:
        archive.extractall(work)
    source = work / f"horovod-{VERSION}"
    apply_edits(source)
    wheels = work / "wheels"
    compile_here = [*pip, "wheel", "--verbose", "--no-cache-dir", *plain, "--wheel-dir"]
    run_logged([*compile_here, str(wheels), str(source)], environ, log, work)
    return next(wheels.glob("horovod-*.whl"))


def check(accelerator: str) -> None:
    """Raise InstallError unless two ranks of the installed Horovod can add their numbers.

    More than `horovodrun --check-build` does, and quicker: the launcher, the library and the
    network between the ranks. The GPU is hidden, as it may be busy, and NCCL asked about only.
    """
    launcher = str(Path(sys.prefix) / "bin" / "horovodrun")
    command = [launcher, "-np", "2", sys.executable, "-c", PROGRAM]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    try:
        result = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=180)
        output, reason = result.stdout + result.stderr, f"it ended with code {result.returncode}"
    except subprocess.TimeoutExpired as error:
        output, reason = str(error.stdout), "it did not end within 180 s"
    if len(re.findall("dlbench: sum 2 gloo True", output)) != 2:
        raise InstallError(
            f"{output}\nHorovod is installed, but two ranks cannot add their numbers: {reason}, "
            "and said the above. Look at it with `.venv/bin/horovodrun --check-build`; to compile "
            "Horovod anew, delete .venv and run `DLBENCH_WHEEL_CACHE=off make setup`."
        )
    if accelerator == "cuda" and "nccl True" not in output:
        raise InstallError(f"{output}\nHorovod is installed, but has been built without NCCL.")


def install(accelerator: str) -> None:
    """Install Horovod for `accelerator`, from the cache or built anew, and check it."""
    flags = build_flags(accelerator, Path("/proc/cpuinfo").read_text(), os.environ)
    inputs = build_inputs(flags, os.environ)
    installed = Path(sys.prefix) / "horovod.json"
    if installed.exists() and json.loads(installed.read_text()) == inputs and is_installed():
        print(f"   Horovod {VERSION} is installed for this TensorFlow", flush=True)
        return
    installed.unlink(missing_ok=True)
    name = f"horovod-{VERSION}-{inputs['tensorflow'].replace(' ', '-')}"
    folder = wheel_cache.folder_of(name, inputs, os.environ)
    log = Path(sys.prefix) / "horovod-build.log"
    with tempfile.TemporaryDirectory(prefix="dlbench-horovod-") as work:
        wheel = wheel_cache.find(folder) if folder else None
        if wheel:
            print(f"   using {wheel}", flush=True)
        else:
            print(f"   compiling Horovod {VERSION}: two to five minutes, log in {log}", flush=True)
            log.unlink(missing_ok=True)
            wheel = build_wheel(build_environment(flags, os.environ), Path(work), log)
            if folder:
                wheel_cache.keep(wheel, inputs, folder)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
        run_logged([*pip, "--force-reinstall", str(wheel)], os.environ, log, Path(work))
    check(accelerator)
    installed.write_text(json.dumps(inputs, indent=1, sort_keys=True))


def is_installed() -> bool:
    """Say whether this virtual environment holds Horovod in the version that is built here."""
    try:
        return importlib.metadata.version("horovod") == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def main() -> None:
    """Install Horovod, or leave with one message and the status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accelerator", choices=ACCELERATORS, default=None)
    arguments = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        sys.exit("install/horovod.py runs in a virtual environment: use `make setup`.")
    try:
        install(arguments.accelerator or detect())
    except InstallError as error:
        sys.exit(f"install/horovod.py: {error}")


if __name__ == "__main__":
    main()
