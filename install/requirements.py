"""Print the requirements of pyproject.toml, one a line: `requirements.py EXTRA...`."""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(extras: list[str], project: Path = PROJECT) -> list[str]:
    """Return the dependencies and those of the named extras; an unknown extra is a ValueError."""
    table = tomllib.loads(project.read_text())["project"]
    optional = table["optional-dependencies"]
    if unknown := sorted(set(extras) - set(optional)):
        raise ValueError(f"{project} has no extra {unknown[0]!r}; it has {', '.join(optional)}")
    return sorted({*table["dependencies"], *(line for name in extras for line in optional[name])})


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
