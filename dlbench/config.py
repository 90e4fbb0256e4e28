"""The experiment as typed, validated objects: YAML file + ``key=value`` overrides -> `Experiment`.

No TensorFlow here: a typing error is told before the seconds that TensorFlow takes to load.
"""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dlbench.errors import UserError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


EMBEDDED = Path(__file__).with_name("default.yaml")
"""What is trained when no configuration is given."""


NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What its loader raises: of dates that there are not and of numbers of thousands of digits plain
`ValueError`s."""


class ConfigError(UserError):
    """A configuration that cannot be used; the message lists what is allowed."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are checked on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


Checked = TypeVar("Checked", bound=Section)


class Augmentation(Section):
    """Random changes of training samples; each sample's draw depends on seed, epoch and index."""

    flip_left_right: bool = True
    flip_up_down: bool = False
    rotate90: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the zoom: 2.0 shows half the height and width of the sample, enlarged."""
    brightness: Fraction = 0.0
    """Largest shift, as a fraction of what the data set's values lie between."""
    contrast: Fraction = 0.0
    """Largest relative change of the distance to the sample's mean."""
    noise: Fraction = 0.0
    """Standard deviation of the noise added to each value, likewise as a fraction."""

    @field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1]:
            raise ValueError("scale is [smallest, largest] with 0 < smallest <= largest")
        return value


class Data(Section):
    """Which data set, where it lies, and what shape its samples take."""

    name: str = "vaihingen"
    root: str | None = None
    """Folder in the data set's real layout; environment variables are expanded.
    Empty: the miniature that dlbench generates itself."""
    size: tuple[Positive, Positive] | None = None
    """(height, width) in pixels of a sample; empty: the data set's own."""
    cache: bool = True
    """Keep decoded samples in memory, up to 1 GiB of a split, in each rank for itself (none where
    windows move from epoch to epoch)."""
    workers: Positive = 2
    """Threads that read and augment."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """What an epoch of training is made of: every sample once, or as many drawn so that each class
    is as likely as any other to be what a sample is drawn for (`dlbench.data.sampling`)."""
    augmentation: Augmentation = Augmentation()
    on_unreadable: Literal["stop", "skip"] = "stop"
    """What a training sample that cannot be read does: it ends the run, or is told, counted in
    `metrics.csv` and left out. Class weights and balanced sampling, where they are counted from the
    data, need every sample all the same."""
    options: dict[str, Any] = {}
    """Further options of the data set, checked by it."""

    def resolved_root(self) -> Path | None:
        """The data folder with environment variables expanded; an unset variable is an error."""
        if self.root is None:
            return None
        expanded = os.path.expandvars(os.path.expanduser(self.root))
        unset = re.search(r"\$\{?(\w+)", expanded)
        if unset:
            raise ConfigError(
                f"data.root is '{self.root}', but the environment variable {unset[1]} is not set; "
                f"set it, or give the folder itself: data.root=/path/to/{self.name}"
            )
        return Path(expanded)


class Model(Section):
    """Which network; the options are those of its builder in `dlbench.models`."""

    name: str = "segnet"
    options: dict[str, Any] = {}
    pretrained: str | None = None
    """A Keras VGG16 weights file (.h5) for the 13 encoder convolutions of SegNet."""


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    """For one rank; see `scale_by_ranks`."""
    scale_by_ranks: bool = False
    """Multiply the learning rate by the number of ranks (linear scaling rule)."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 1.0
    step_epochs: list[Positive] = []
    """Epochs at which the 'step' schedule multiplies the learning rate by `step_factor`."""
    step_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """L2 penalty of convolution kernels (sgd, adam), decoupled decay for adamw."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    """Largest global norm of the reduced gradient."""

    @model_validator(mode="after")
    def _steps_fit_schedule(self) -> Optimizer:
        if bool(self.step_epochs) != (self.schedule == "step"):
            raise ValueError("step_epochs goes with schedule=step, and schedule=step needs it")
        return self


class ClassWeights(Section):
    """How the loss weighs classes (median frequency: Eigen & Fergus, ICCV 2015)."""

    mode: Literal["none", "median_frequency", "given"] = "none"
    values: list[Annotated[float, Field(ge=0.0)]] = []
    """One weight a class, for mode 'given'."""
    maximum: Annotated[float, Field(gt=0.0)] | None = None
    """Cap of a weight."""

    @model_validator(mode="after")
    def _values_fit_mode(self) -> ClassWeights:
        if bool(self.values) != (self.mode == "given"):
            raise ValueError("values goes with mode=given, and mode=given needs it")
        return self


class Distributed(Section):
    """What Horovod is told; all of it is inert on one rank."""

    batch_norm: Literal["local", "sync"] = "local"
    compression: Literal["none", "fp16", "bf16"] = "none"
    """How gradients of more than 4096 values travel. The sum over N ranks of x errs, with
    S = sum |x|, by at most 2^-8 (S + |sum|) in bf16, at any size; in fp16 by 2^-11 (S + |sum|) +
    (N + 1) 2^-35, and is cut off at 64. Under a loss scale (mixed_float16), of the scaled x: by
    2^-11 (S + |sum|) + (N + 1) 2^-25; what reaches 65520 is inf, by which the step is skipped."""
    fusion_threshold_mb: Annotated[int, Field(ge=0)] | None = None
    """HOROVOD_FUSION_THRESHOLD; empty: Horovod's default (128 MB)."""
    cycle_time_ms: Annotated[float, Field(gt=0.0)] | None = None
    """HOROVOD_CYCLE_TIME; empty: 10 ms on CPUs, Horovod's default of 1 ms on GPUs and for
    synchronised batch-norm."""
    hierarchical: bool = False
    """HOROVOD_TORUS_ALLREDUCE: gradients are summed within each host first, then over hosts. For
    NCCL alone; no cluster of GPUs has run it here yet."""
    stall_shutdown_s: Annotated[int, Field(ge=2)] = 1800
    """HOROVOD_STALL_SHUTDOWN_TIME_SECONDS: how long ranks wait for one that does not answer, longer
    than one of them may take alone to generate or decode data."""

    @model_validator(mode="after")
    def _only_allreduce_goes_by_host(self) -> Distributed:
        if self.hierarchical and self.compression != "none":
            raise ValueError(
                f"distributed.hierarchical=true with distributed.compression={self.compression}: "
                "compressed gradients are exchanged among all ranks, never within each host first; "
                "take distributed.compression=none, or leave hierarchical=false"
            )
        return self


class Training(Section):
    epochs: Positive = 50
    batch: Positive = 4
    """Samples per rank at a time, and per step unless `accumulate_steps` says otherwise."""
    accumulate_steps: Positive = 1
    """Micro-batches of a step: their gradients are added up on each rank, then summed over ranks,
    then the optimiser makes its step. N of them are a step on a batch N times larger, but for batch
    normalisation, which sees one at a time, in the memory of one; their samples wait in memory."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    class_weights: ClassWeights = ClassWeights()
    drop_remainder: bool = False
    """Leave out the last, smaller batch of an epoch."""
    evaluation_batch: Positive = 4
    """Samples at a time in evaluation; apart from `batch`, so that scores do not depend on it."""
    evaluate_every: Positive = 1
    """Epochs between evaluations."""
    early_stop: Positive | None = None
    """Evaluations without a better validation score after which training ends."""
    tensorboard: bool = False
    progress: Literal["auto", "bar", "epoch"] = "auto"
    """A bar, or a line an epoch; auto: a bar on a terminal."""
    recompute: Literal[False, True, "normalization"] = False
    """What is computed again in the backward pass in place of keeping it. true: each stage, for
    much less memory and up to a third more time; normalization: what goes from a batch
    normalisation into a convolution, in DeepVel for 10 % less and 3 to 6 % more (in SegNet-Basic
    nothing does but what the classifier takes)."""
    checkpoint_every: Positive | None = None
    """Steps between checkpoints within an epoch; empty: none but that after each epoch."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 2
    """The newest so many stay, and the best: a damaged one costs what has been done since."""
    threads: Positive | None = None
    """Compute threads per rank; empty: the usable cores divided by the ranks on the host."""

    @property
    def samples_per_step(self) -> int:
        """Of a rank."""
        return self.batch * self.accumulate_steps


class Experiment(Section):
    """One training run from data to report."""

    name: str | None = None
    """Folder under `output`; empty: <model>-<data>."""
    output: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    resume: bool = True
    """Go on from the run folder's last checkpoint when its configuration is the same."""
    profile: bool = False
    """Trace some steps and write where their time goes: `profile.md` in the run folder."""
    monte_carlo_samples: Positive = 8
    """Passes of a Bayesian model at prediction."""
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    distributed: Distributed = Distributed()

    @field_validator("name")
    @classmethod
    def _a_folder_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w][\w.+-]*", value):
            raise ValueError("name is one folder name of letters, digits and . _ + -")
        return value

    @model_validator(mode="after")
    def _recomputation_is_local(self) -> Experiment:
        if self.training.recompute and self.distributed.batch_norm == "sync":
            raise ValueError(
                "training.recompute would reduce synchronised statistics twice; take "
                "distributed.batch_norm=local, or leave recompute=false"
            )
        return self

    @property
    def run_folder(self) -> Path:
        return Path(self.output) / (self.name or f"{self.model.name}-{self.data.name}")

    def to_yaml(self) -> str:
        """The resolved configuration, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(arguments: list[str]) -> Experiment:
    """Read ``[CONFIG.yaml] [key=value ...]`` into an `Experiment`; without a file, `EMBEDDED`.

    Keys are dotted paths (``training.batch=8``), values are YAML. Raises `ConfigError` that names
    the key, what arrived and what is allowed.
    """
    files = [a for a in arguments if "=" not in a]
    if len(files) > 1:
        raise ConfigError(
            f"one configuration file at most, got {files}; options are written key=value"
        )
    source = files[0] if files else str(EMBEDDED)
    content = read_yaml(Path(source))
    for argument in arguments:
        if "=" in argument:
            _override(content, argument)
    return validate(content, f"{source} and the command line")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read with the safe loader."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected 'section: ...' lines")
    return content


def validate(content: dict[str, Any], source: str) -> Experiment:
    """Check a mapping against the schema; ``source`` names it in errors."""
    return checked(Experiment, content, f"the configuration from {source}")


def checked(schema: type[Checked], content: dict[str, Any], what: str) -> Checked:
    """``content`` as a ``schema``; `ConfigError` names ``what`` it is and all that is wrong."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(e, schema)}" for e in error.errors())
        raise ConfigError(f"{what} is not valid:\n{problems}") from None


def _override(content: dict[str, Any], argument: str) -> None:
    key, _, text = argument.partition("=")
    try:
        value = yaml.safe_load(text)
    except NOT_YAML as error:
        raise ConfigError(f"the value in '{argument}' is not valid YAML: {error}") from error
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"'{argument}': '{section}' is a value, not a section")
    place[last] = value


# Aliases of aliases in YAML grow without limit when they are written out.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2


def _explain(error: Any, schema: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        section = _section(error["loc"][:-1], schema)
        known = ", ".join(section.model_fields) if section else ""
        return f"{where}: unknown key; known here: {known}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where}: it is needed"
    return f"{where or 'configuration'}: {message} (got {_SHORT.repr(error['input'])})"


def _section(path: tuple[Any, ...], section: type[BaseModel]) -> type[BaseModel] | None:
    for part in path:
        annotation = section.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not found:
            return None
        section = found[0]
    return section
