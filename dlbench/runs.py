"""The run folder: what lies where, and how a run is opened again."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from dlbench import checkpoint, config, locks
from dlbench.checkpoint import write_atomically
from dlbench.data.facts import Facts
from dlbench.errors import JOB

# What may differ between a run and its resumption without changing what is computed.
FREE_KEYS = (
    "resume",
    "output",
    "profile",
    "data.root",
    "data.workers",
    "data.cache",
    "data.on_unreadable",
    "training.tensorboard",
    "training.progress",
    "distributed.stall_shutdown_s",
    "training.checkpoint_every",
    "training.keep_checkpoints",
)

UNFINISHED = re.compile(
    r"\.[\w-]+\.(png|json|csv|md|yaml|npz|keras)\.\w+|\.model\.keras|\.job\.\w+"
)
"""Files of a process that was killed while it wrote them."""


class RunFolder:
    """``runs/<name>/`` and the files in it; rank 0 alone writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.dataset = path / "dataset.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.record = path / "record.json"
        self.summary = path / "summary.md"
        self.profile = path / "profile.md"
        self.model = path / "model.keras"
        self.tensorboard = path / "tensorboard"
        self.job = path / ".job"

    def checkpoint(self, kind: str) -> Path:
        """The checkpoint ``last`` or ``best``."""
        return self.path / "checkpoints" / f"{kind}.npz"

    def picture(self, name: str) -> Path:
        return self.path / f"{name}.png"

    def experiment(self) -> config.Experiment:
        """The resolved configuration that the run was started with."""
        if not self.config.is_file():
            raise config.ConfigError(
                f"{self.path} is not a run folder: it has no config.yaml; give the folder that "
                "python -m dlbench.train wrote, for example runs/segnet-vaihingen"
            )
        return config.validate(config.read_yaml(self.config), str(self.config))

    def facts(self) -> Facts | None:
        """What the data set of the training told of itself; None in the folder of an older run."""
        if not self.dataset.is_file():
            return None
        try:
            return Facts.model_validate_json(self.dataset.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise config.ConfigError(
                f"{self.dataset} is damaged ({where}: {first['msg']}); restore it from a copy, or "
                "remove it: then classes are known by their numbers alone"
            ) from None

    def alone(self, patience_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the folder against another run; `ConfigError` where one has it, still after
        ``patience_s``, `UserError` where there cannot be one."""
        lock = self.path.with_name(f".{self.path.name}.lock")  # outlives a folder that is set aside
        refusal = config.ConfigError(
            f"another process trains into {self.path}; wait for its end, or choose another folder "
            "with name=..."
        )
        return locks.alone(lock, refusal, patience_s)

    def prepare(self, experiment: config.Experiment) -> bool:
        """Make the folder ready for ``experiment``; True when there is a checkpoint to resume.

        A finished or interrupted run of the same configuration is resumed; one of another
        configuration is an error, and so is one whose checkpoints are all lost; with
        ``resume=false`` it is set aside under a dated name, unless an earlier start of the same
        supervised job has begun it. Nothing of a run is deleted.
        """
        started = self._has_checkpoint()
        held = started or self.record.is_file()
        job = os.environ.get(JOB)
        if held and not experiment.resume and not (job and self._begun_by(job)):
            aside = self.path.with_name(f"{self.path.name}.{time.strftime('%Y%m%dT%H%M%S')}")
            self.path.rename(aside)
            print(f"set the earlier run aside as {aside}", flush=True)
            held = started = False
        if held:
            self._require_resumable(experiment, started)
        for left in (*self.path.glob(".*"), *self.checkpoint("last").parent.glob(".*")):
            if UNFINISHED.fullmatch(left.name):
                left.unlink()
        self.write_text(self.config, experiment.to_yaml())
        if job and not experiment.resume:
            self.write_text(self.job, job)
        return started

    def _has_checkpoint(self) -> bool:
        last = self.checkpoint("last")
        there = (last, *checkpoint.earlier(last), self.checkpoint("best"))
        return any(path.is_file() for path in there)

    def _require_resumable(self, experiment: config.Experiment, started: bool) -> None:
        wrong = None
        if different := _differences(self.experiment(), experiment):
            wrong = f"a run with another configuration ({'; '.join(different)})"
        elif not started:
            wrong = (
                "the record of a run whose checkpoints are gone, from which it would go on; "
                f"restore {self.checkpoint('last').parent}"
            )
        if wrong is not None:
            raise config.ConfigError(
                f"{self.path} holds {wrong}; choose another folder with name=..., or set that run "
                "aside with resume=false"
            )

    def _begun_by(self, job: str) -> bool:
        return self.job.is_file() and self.job.read_text(errors="replace") == job

    def write_text(self, path: Path, text: str) -> None:
        write_atomically(path, lambda file: file.write(text.encode()))

    def write_json(self, path: Path, content: Any) -> None:
        self.write_text(path, json.dumps(content, indent=2) + "\n")

    def write_confusion(self, counts: np.ndarray, names: list[str]) -> None:
        """Write ``confusion.csv``: a row a true class, a column a predicted one, pixels."""
        rows = [
            {"truth \\ prediction": name, **dict(zip(names, map(int, row), strict=True))}
            for name, row in zip(names, counts, strict=True)
        ]
        self.write_rows(self.path / "confusion.csv", rows)

    def write_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Write ``rows`` as CSV; the columns are those of all rows, in order of appearance."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(path, text.getvalue())


def _differences(old: config.Experiment, new: config.Experiment) -> list[str]:
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in FREE_KEYS
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
