"""The result record: what one launch of one workload measured, written by every entry alike.

What is unknown is None (null in the file) and stated so: no field has a default but ``schema``, and
``configuration``, which is missing in older files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from dlbench import __version__, environment
from dlbench.checkpoint import write_atomically
from dlbench.errors import UserError
from dlbench.report import option_defaults

SCHEMA: Final = "dlbench.result/2"
FAILED: Final = "failed"
"""The key of a benchmark JSON that names what failed in the launch, and so has no record in it."""
JUDGED: Final = "judged"
"""The key beside a benchmark's record that is false of peers, bare kernels and controls: what they
measure is for comparison within the launch, and no comparison of setups has a verdict on it."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]


class RecordError(UserError):
    """A file that is not a result record; the message names the file and what is wrong."""


class Part(BaseModel):
    """A part of the record: unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class Workload(Part):
    """What was done, in short. Records of equal workloads may be compared."""

    id: str
    """A stable name, such as ``train/segnet/vaihingen``."""
    model: str | None
    data: str | None
    precision: str
    ranks: Annotated[int, Field(ge=1)]
    batch_per_rank: Count | None
    shape: tuple[Count, ...] | None
    """(height, width, channels) of a sample, or the shape of an op's input."""
    mode: str
    """What is timed: ``train``, ``inference``, ``forward``, ``backward``, ``input``, ..."""


class Setup(Part):
    """What it was done on. Records with equal fingerprints are repeats of each other."""

    name: str | None
    fingerprint: str
    environment: dict[str, JsonValue]


class Rank(Part):
    """One process's measurements; warm-up is in none of them."""

    rank: Count
    host: str
    samples: Count
    """Samples that this rank processed within ``wall_s``."""
    wall_s: Seconds
    step_s: tuple[Seconds, ...]
    input_wait_s: Seconds | None
    """Of ``wall_s``: the step waited for its batch."""
    comm_wait_s: Seconds | None
    """Of ``wall_s``: the step waited for other ranks or their data, nothing else being left to do.
    ``wall_s`` less both waits is the rank's own work: who has most of it is the straggler.
    """
    first_step_s: Seconds | None
    """From the start of the process to the end of its first step: imports, tracing, compilation."""
    peak_bytes: dict[str, Count | None]
    conditions: dict[str, JsonValue]
    """What the rank's device was like meanwhile: clocks, throttling, foreign processes
    (`dlbench.bench.conditions`)."""


class Code(Part):
    """Which code ran; ``commit`` and ``dirty`` are None outside a git checkout."""

    version: str
    commit: str | None
    dirty: bool | None


class Record(Part):
    """One launch of one workload on one setup, all ranks."""

    # Another name in Python: pydantic's models have a method `schema`.
    schema_id: Literal["dlbench.result/2"] = Field(default=SCHEMA, alias="schema")
    created: AwareDatetime
    workload: Workload
    setup: Setup
    ranks: tuple[Rank, ...]
    energy_j: Annotated[float, Field(ge=0.0)] | None
    """Joules of all nodes together over the measured steps."""
    quality: dict[str, JsonValue]
    """Scores of the same launch (`dlbench.metrics`); empty where the workload has none."""
    code: Code
    configuration: dict[str, JsonValue] | None = None
    """The `dlbench.config.Experiment` with every default, those of options included; None where
    none was made use of. It may differ where workloads are equal: `dlbench.report.particulars`."""

    @field_validator("created")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)

    @model_validator(mode="after")
    def _every_rank_once(self) -> Record:
        found = [rank.rank for rank in self.ranks]
        if found != list(range(self.workload.ranks)):
            raise ValueError(
                f"the workload ran on {self.workload.ranks} ranks, but there are measurements of "
                f"ranks {found}; needed is each of 0 to {self.workload.ranks - 1} once, in order"
            )
        return self

    @property
    def slowest(self) -> Rank:
        """The rank with most wall time: its steps are those of the launch, as it is waited for."""
        return max(self.ranks, key=lambda rank: rank.wall_s)

    @property
    def throughput(self) -> float | None:
        """All ranks' samples ÷ the slowest rank's wall time, samples/s; None if nothing was timed.

        Derived, never stored: a record cannot contradict itself.
        """
        wall_s = self.slowest.wall_s
        return sum(rank.samples for rank in self.ranks) / wall_s if wall_s else None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return self.model_dump(mode="json")


def setup(name: str | None = None, described: Mapping[str, Any] | None = None) -> Setup:
    """The setup that ``described`` (from `dlbench.environment.describe`) tells of, by default this
    process's: call it after the workload, so that it names the libraries as loaded."""
    found = dict(environment.describe() if described is None else described)
    fingerprint = environment.fingerprint(found)
    del found["code"]  # it has its own place in the record
    return Setup(name=name, fingerprint=fingerprint, environment=found)


def now(
    workload: Workload,
    ranks: Sequence[Rank],
    *,
    setup: Setup,
    energy_j: float | None = None,
    quality: Mapping[str, JsonValue] | None = None,
    configuration: Mapping[str, JsonValue] | None = None,
) -> Record:
    """The record of a launch that has just ended, stamped with the time and the code's state."""
    return Record(
        created=datetime.now(UTC),
        workload=workload,
        setup=setup,
        ranks=tuple(ranks),
        energy_j=energy_j,
        quality=dict(quality or {}),
        code=Code(version=__version__, **environment.code()),
        configuration=None if configuration is None else option_defaults.filled_in(configuration),
    )


def write(record: Record, path: Path) -> None:
    """Write ``record`` as JSON; the file is whole or absent, even if the machine stops."""
    text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read(path: Path) -> Record:
    """Read and check one record; `RecordError` names the file and everything wrong with it."""
    return checked(content_of(path), str(path))


def read_many(paths: Iterable[Path]) -> list[Record]:
    """The records of all files, in their order: single ones, and those within the JSON files of
    ``pytest benchmarks/ --benchmark-json=FILE``."""
    records: list[Record] = []
    for path in paths:
        content = content_of(path)
        if is_of_benchmarks(content):
            records += [record for _, record in of_benchmarks(content, path) if record is not None]
        else:
            records.append(checked(content, str(path)))
    return records


def is_of_benchmarks(content: Any) -> bool:
    """Whether it is that of a JSON file of pytest-benchmark."""
    return isinstance(content, dict) and "benchmarks" in content


def of_benchmarks(
    content: dict[str, Any], path: Path
) -> Iterator[tuple[dict[str, Any], Record | None]]:
    """Each benchmark of such a file, with its record, None where it has none. `RecordError` names
    ``path`` where something else is in their place."""
    if not isinstance(content["benchmarks"], list):
        raise RecordError(f"{path}: 'benchmarks' is no list: it is no pytest-benchmark JSON")
    for benchmark in content["benchmarks"]:
        if not isinstance(benchmark, dict):
            raise RecordError(f"{path}: a benchmark is {benchmark!r}, expected a mapping")
        extra = benchmark.get("extra_info")
        found = extra.get("record") if isinstance(extra, dict) else None
        where = f"{path}, benchmark {benchmark.get('fullname')}"
        yield benchmark, None if found is None else checked(found, where)


def content_of(path: Path) -> Any:
    """What a JSON file holds; `RecordError` where it cannot be read whole."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"there is no result record {path}") from None
    except OSError as error:  # a folder, or not to be read by this user
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not even text
        raise RecordError(
            f"{path} is not whole JSON ({error}); it was cut off or is another kind of file"
        ) from error


def checked(content: Any, where: str) -> Record:
    """The record in ``content``; ``where`` names it in the `RecordError` of one that is none."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{where} has schema {schema!r}; this version reads {SCHEMA!r}")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise RecordError(f"{where} is not a {SCHEMA} record: {'; '.join(faults)}") from error
