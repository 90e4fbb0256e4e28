"""Builds dlbench/_pooling.so against the installed TensorFlow; metadata is in pyproject.toml."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

OPS = Path("ops")
# One translation unit per instruction set, the right one is chosen at run time; -march=native
# would tie the library to the machine that built it (and fails in Eigen with g++ 12).
ISAS: dict[str, list[str]] = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    ISAS["avx2"] = ["-mavx2", "-mfma"]
    ISAS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
CORE: dict[str, list[str]] = {
    "processor.cc": [],
    "pooling_cpu.cc": [],
    "convolution_cpu.cc": [],
    "normalization_cpu.cc": [],
}
for isa, own in ISAS.items():
    CORE[f"pooling_cpu_{isa}.cc"] = own
    CORE[f"convolution_cpu_{isa}.cc"] = own
    # Every processor is to round alike.
    CORE[f"normalization_cpu_{isa}.cc"] = [*own, "-ffp-contract=off"]
CUDA = "pooling_cuda.cu"
# The files that include TensorFlow's headers.
GLUE = ("pooling_tf.cc", "convolution_tf.cc", "normalization_tf.cc")


def tensorflow_build() -> tuple[Any, list[str]]:
    """Imports the TensorFlow to build for and gives its compile flags, headers as system ones."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ImportError as error:
        sys.exit(
            f"dlbench builds its pooling op against the TensorFlow in use, and {sys.executable} "
            f"cannot import it ({error}). Install tensorflow or tensorflow-cpu 2.21 first, then "
            "run: pip install --no-build-isolation --no-deps ."
        )
    flags = []
    for flag in tensorflow.sysconfig.get_compile_flags():
        flags += ["-isystem", flag[2:]] if flag.startswith("-I") else [flag]
    return tensorflow, flags


def find_nvcc(tensorflow: Any) -> Path | None:
    """The CUDA compiler, where the op is to have GPU kernels: with a TensorFlow that was built for
    CUDA. DLBENCH_CUDA=0 leaves them out, DLBENCH_CUDA=1 builds them for any TensorFlow."""
    wanted = os.environ.get("DLBENCH_CUDA", "")
    if wanted not in ("", "0", "1"):
        sys.exit(f"DLBENCH_CUDA is '{wanted}'; allowed are 0, 1 and nothing")
    if wanted == "0" or not (wanted or tensorflow.sysconfig.get_build_info()["is_cuda_build"]):
        return None
    roots = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [Path(root, "bin", "nvcc") for root in (*roots, "/usr/local/cuda")]
    if found := shutil.which("nvcc"):
        candidates.insert(len(roots), Path(found))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if wanted:
        sys.exit("DLBENCH_CUDA=1 needs nvcc; put it on the PATH or set CUDA_HOME")
    print("no nvcc found: the op is built without GPU kernels", flush=True)
    return None


class BuildPooling(build_ext):
    """Compiles each file of ops/ with its own flags, two at once, and links them."""

    def get_ext_filename(self, fullname: str) -> str:
        # Not a Python module: no interpreter tag in its name.
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, extension: Extension) -> None:
        target = Path(self.get_ext_fullpath(extension.name))
        inputs = [Path(source) for source in (*extension.sources, *extension.depends)]
        tensorflow, flags = tensorflow_build()
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        nvcc = find_nvcc(tensorflow)
        build = {
            "tensorflow": tensorflow.version.VERSION,
            "cxx11_abi": int(tensorflow.sysconfig.CXX11_ABI_FLAG),
            "compiler": self.version_of(compiler),
            # nvcc's release, or null where the op has no GPU kernels.
            "cuda": nvcc and self.version_of([str(nvcc)], "release"),
        }
        stamp = Path(self.build_temp) / "pooling.json"
        if target.exists() and stamp.exists() and not self.force:
            fresh = all(target.stat().st_mtime >= path.stat().st_mtime for path in inputs)
            if fresh and stamp.read_text() == json.dumps(build):
                return

        objects = Path(self.build_temp)
        objects.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        standard = [flag for flag in flags if flag.startswith(("-std", "--std"))]
        common = [*compiler, "-O3", "-fPIC", "-Wall", "-Wextra", "-DNDEBUG"]
        define = f"-DDLBENCH_BUILD={json.dumps(json.dumps(build))}"
        jobs = [[*common, *flags, define, "-c", str(OPS / name)] for name in GLUE]
        cuda_link: list[str] = []
        if nvcc is not None:
            jobs[0].insert(-2, "-DDLBENCH_CUDA")
            # Machine code for every architecture that this nvcc knows, and PTX for later ones.
            every = ["-arch=all", "--threads=2", "-O3", "-std=c++17", "-Xcompiler=-fPIC,-Wall"]
            jobs.append([str(nvcc), *every, "-DNDEBUG", "-c", str(OPS / CUDA)])
            cuda_link = self.cuda_runtime(nvcc)
        jobs += [[*common, *standard, *own, "-c", str(OPS / name)] for name, own in CORE.items()]
        outputs = [str(objects / Path(job[-1]).with_suffix(".o").name) for job in jobs]
        commands = [[*job, "-o", output] for job, output in zip(jobs, outputs, strict=True)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.call, commands))
        # The framework library alone: the wheel's Python module is no library to link against.
        link = tensorflow.sysconfig.get_link_flags()
        self.call([*compiler, "-shared", *outputs, *link, *cuda_link, "-o", str(target)])
        stamp.write_text(json.dumps(build))

    @staticmethod
    def cuda_runtime(nvcc: Path) -> list[str]:
        """Links the runtime statically, its symbols hidden: TensorFlow and Horovod bring others."""
        # Only nvcc itself knows its toolkit: it may be a link or a script.
        dry = [str(nvcc), "--dryrun", "-c", str(OPS / CUDA)]
        plan = subprocess.run(dry, capture_output=True, text=True).stderr
        tops = [line.partition("=")[2] for line in plan.splitlines() if line.startswith("#$ TOP=")]
        for folder in (Path(top, lib) for top in tops for lib in ("lib64", "lib")):
            if (folder / "libcudart_static.a").exists():
                hidden = "-Wl,--exclude-libs,libcudart_static.a"
                return [f"-L{folder}", hidden, "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        sys.exit(f"{nvcc} is there but libcudart_static.a is not; install CUDA's runtime library")

    @staticmethod
    def version_of(compiler: list[str], word: str = "") -> str:
        try:
            reply = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(
                f"dlbench needs a C++17 compiler and found no {compiler[0]}. On Debian or Ubuntu: "
                "apt-get install g++ (or name another compiler in the CXX variable)."
            )
        return next(line for line in reply.stdout.splitlines() if word in line)

    @staticmethod
    def call(command: list[str]) -> None:
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)


setup(
    ext_modules=[
        Extension(
            "dlbench._pooling",
            sources=[str(OPS / name) for name in (*GLUE, CUDA, *CORE)],
            depends=[str(path) for path in sorted(OPS.glob("*.h"))] + ["setup.py"],
        )
    ],
    cmdclass={"build_ext": BuildPooling},
)
