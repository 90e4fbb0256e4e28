"""A setup to launch on: a YAML file that says what is different there.

    name: no oneDNN                             # what records, tables and pages call it
    variables: {TF_ENABLE_ONEDNN_OPTS: "0"}     # of the environment
    python: ../tf220/.venv/bin/python           # another virtual environment's interpreter
    checkout: ../tf220                          # another checkout, its op built for that TensorFlow
    compute_threads: 1                          # threads within an op
    devices: [0, 1]                             # GPUs as nvidia-smi numbers them; []: none
    experiment: [configs/segnet_camvid.yaml, training.epochs=2]   # in place of benchmarks/
    ranks: 2                                    # of the experiment

Only the name is needed: it tells setups apart, even those that differ in nothing. What is not
given is as in the shell that launches. Paths start at the current folder, those of the experiment
at the checkout. The ``launches.yaml`` of a folder of launches is such a file, too.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dlbench import config, gpus
from dlbench.config import ConfigError, Positive
from dlbench.report.relaunch import NOTE, folder_name

LONGEST_NAME = 60


class Setup(config.Section):
    """What a launch runs, and on what."""

    name: str
    variables: dict[str, str] = Field(default={})
    python: Path = Path(sys.executable)
    checkout: Path = Field(default_factory=Path.cwd)
    compute_threads: Positive | None = None
    devices: list[Annotated[int, Field(ge=0)]] | None = None
    experiment: list[str] | None = None
    """Arguments of `dlbench.train`; empty: the default run. None: ``pytest benchmarks/``."""
    ranks: Positive = 1

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not value.isprintable() or len(value) > LONGEST_NAME or not folder_name(value):
            raise ValueError(
                f"name is one line of at most {LONGEST_NAME} characters, letters or digits in it"
            )
        return value

    @field_validator("variables", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        for name, text in value.items() if isinstance(value, dict) else ():
            if not re.fullmatch(r"[A-Za-z_]\w*", str(name), re.ASCII):
                raise ValueError(f"{name!r} is not the name of a variable")
            # YAML reads 010 as 8 and off as false.
            if not isinstance(text, str) or "\0" in text:
                raise ValueError(f'write the value of {name} as text in quotes: {name}: "..."')
        return value

    @field_validator("python", "checkout")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Links stay: a virtual environment is found from the link, not from what it points to.
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _fits_together(self) -> Setup:
        if self.ranks > 1 and self.experiment is None:
            raise ValueError(
                "ranks goes with experiment: the benchmarks start ranks where they measure them"
            )
        if self.devices is not None and "CUDA_VISIBLE_DEVICES" in self.variables:
            raise ValueError("give devices or variables.CUDA_VISIBLE_DEVICES, not both")
        return self

    @property
    def folder_name(self) -> str:
        """The name of its folder of launches."""
        return folder_name(self.name)

    @property
    def launcher(self) -> Path:
        """The ``horovodrun`` of the same virtual environment."""
        return self.python.with_name("horovodrun")

    def environment(self) -> dict[str, str]:
        """This process's environment variables with those of the setup."""
        shown = {} if self.devices is None else gpus.showing(self.devices)
        return os.environ | self.variables | shown

    def command(self, folder: Path, options: list[str]) -> list[str]:
        """The command of one launch, which leaves `result` in ``folder``; ``options`` are
        pytest's."""
        if self.experiment is None:
            command = [str(self.python), "-m", "pytest", "benchmarks/"]
            command += [f"--benchmark-json={self.result(folder)}", f"--setup-name={self.name}"]
            if self.compute_threads is not None:
                command.append(f"--compute-threads={self.compute_threads}")
            return [*command, *options]
        command = [str(self.launcher), "-np", str(self.ranks)] if self.ranks > 1 else []
        command += [str(self.python), "-m", "dlbench.train", *self.experiment]
        # Values are YAML, of which JSON's strings are a part.
        command += [f"output={json.dumps(str(folder))}", "name=launch", "resume=false"]
        if self.compute_threads is not None:
            command.append(f"training.threads={self.compute_threads}")
        return command

    def result(self, folder: Path) -> Path:
        """Where the launch leaves its measurements."""
        return folder / ("benchmarks.json" if self.experiment is None else "launch/record.json")


def load(path: Path) -> Setup:
    """Read and check a setup file; `ConfigError` says what is wrong and what is allowed."""
    content, what = config.read_yaml(path), f"the setup {path}"
    if path.name == NOTE:
        content.pop("options", None)
    return _can_run(config.checked(Setup, content, what), what)


def this_machine() -> Setup:
    """The setup of the shell that launches."""
    return _can_run(Setup(name="this machine"), "a setup without a file")


def _can_run(setup: Setup, what: str) -> Setup:
    if not os.access(setup.python, os.X_OK) or setup.python.is_dir():
        raise ConfigError(
            f"{what} runs {setup.python}, which is no interpreter on this machine; "
            "python is the path of one, such as .venv/bin/python"
        )
    if setup.ranks > 1 and not setup.launcher.exists():
        raise ConfigError(
            f"{what} has {setup.ranks} ranks, but {setup.launcher} is missing; install "
            "Horovod in that environment (python -m install.horovod), or take ranks: 1"
        )
    if not (setup.checkout / "benchmarks").is_dir():
        raise ConfigError(
            f"{what} launches in {setup.checkout}, which has no benchmarks/; change to the folder "
            "of dlbench's checkout, or name it as checkout"
        )
    if setup.experiment is not None and setup.checkout == Path.cwd():
        config.load(setup.experiment)  # what is mistyped is told now, not in a log
    return setup


def load_distinct(paths: list[Path]) -> list[Setup]:
    """The setups of several files; no two may share a folder of launches."""
    found: dict[str, Path] = {}
    loaded = []
    for path in paths:
        setup = load(path)
        if (other := found.setdefault(setup.folder_name, path)) is not path:
            raise ConfigError(
                f"{other} and {path} are both named '{setup.name}' or nearly so; launches are told "
                "apart by the setup's name: give one another name"
            )
        loaded.append(setup)
    return loaded
