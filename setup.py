"""Builds dlbench/_pooling.so against the installed TensorFlow; metadata is in pyproject.toml."""

import json
import os
import platform
import shlex
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
CORE: dict[str, list[str]] = {"pooling_cpu.cc": [], "pooling_cpu_portable.cc": []}
if platform.machine() in ("x86_64", "AMD64"):
    CORE["pooling_cpu_avx2.cc"] = ["-mavx2"]
    CORE["pooling_cpu_avx512.cc"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
GLUE = "pooling_tf.cc"


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
        build = {
            "tensorflow": tensorflow.version.VERSION,
            "cxx11_abi": int(tensorflow.sysconfig.CXX11_ABI_FLAG),
            "compiler": self.version_of(compiler),
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
        jobs = [[*common, *flags, define, "-c", str(OPS / GLUE)]]
        jobs += [[*common, *standard, *own, "-c", str(OPS / name)] for name, own in CORE.items()]
        outputs = [str(objects / Path(job[-1]).with_suffix(".o").name) for job in jobs]
        commands = [[*job, "-o", output] for job, output in zip(jobs, outputs, strict=True)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.call, commands))
        # The framework library alone: the wheel's Python module is no library to link against.
        link = tensorflow.sysconfig.get_link_flags()
        self.call([*compiler, "-shared", *outputs, *link, "-o", str(target)])
        stamp.write_text(json.dumps(build))

    @staticmethod
    def version_of(compiler: list[str]) -> str:
        try:
            reply = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(
                f"dlbench needs a C++17 compiler and found no {compiler[0]}. On Debian or Ubuntu: "
                "apt-get install g++ (or name another compiler in the CXX variable)."
            )
        return reply.stdout.splitlines()[0]

    @staticmethod
    def call(command: list[str]) -> None:
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)


setup(
    ext_modules=[
        Extension(
            "dlbench._pooling",
            sources=[str(OPS / name) for name in (GLUE, *CORE)],
            depends=[str(path) for path in sorted(OPS.glob("*.h"))] + ["setup.py"],
        )
    ],
    cmdclass={"build_ext": BuildPooling},
)
