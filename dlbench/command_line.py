"""What the command lines of predictions have in common: places, ``name=value`` options, notes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from dlbench.config import ConfigError

CHOICES = {
    "checkpoint": ("best", "last"),
    "overwrite": ("true", "false"),
    "harmonized": ("true", "false", "by_date"),
    "mask_clouds": ("true", "false"),
}
FROM_ONE = {"tile", "batch", "samples"}
"""Numbers that 0 is too small for."""


@dataclass(frozen=True)
class CommandLine:
    """Checked arguments."""

    places: list[str]
    """Those without a ``=``: the run, files, folders."""
    options: dict[str, str]
    numbers: dict[str, int]

    def refuse_checkpoint_of_file(self, run: Path) -> None:
        """Raise `ConfigError` where ``run`` is one network, of which no checkpoint is chosen."""
        if run.suffix == ".keras" and "checkpoint" in self.options:
            raise ConfigError(
                f"checkpoint={self.options['checkpoint']} is for run folders, not for {run}"
            )

    def require_new(self, path: Path, suffixes: Sequence[str], usage: str) -> None:
        """Raise `ConfigError` unless ``path`` is an output that may be written."""
        if not path.name.endswith(tuple(suffixes)):
            raise ConfigError(f"the output {path} does not end in {' or '.join(suffixes)}; {usage}")
        if path.exists() and self.options.get("overwrite") != "true":
            raise ConfigError(f"{path} exists; give another name, or overwrite=true")


def parse(
    arguments: list[str], usage: str, numbers: Mapping[str, int], others: Set[str]
) -> CommandLine:
    """Sort and check ``arguments``; ``numbers`` are options with their defaults, ``others`` those
    that are text. Raises `ConfigError` that says what is allowed.
    """
    places = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    if unknown := sorted(options.keys() - numbers.keys() - others):
        raise ConfigError(f"unknown option {', '.join(unknown)}; {usage}")
    for name, allowed in CHOICES.items():
        if options.get(name, allowed[0]) not in allowed:
            *most, last = allowed
            raise ConfigError(f"{name}={options[name]}: allowed are {', '.join(most)} and {last}")
    found = dict(numbers)
    for name in numbers.keys() & options.keys():
        smallest = 1 if name in FROM_ONE else 0
        if not options[name].isdecimal() or int(options[name]) < smallest:
            raise ConfigError(f"{name}={options[name]}: allowed are whole numbers from {smallest}")
        found[name] = int(options[name])
    return CommandLine(places, options, found)


def note(text: str) -> None:
    """Tell something that does not stop the prediction."""
    print(f"dlbench.predict: {text}", file=sys.stderr, flush=True)
