"""The options of a configuration's model and data set, those that were not given by their defaults.

A configuration holds them as they were given. With {} in one record and all of them written out in
another, equal work would look different, and {} would tell nothing once a default has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from dlbench import data, models
from dlbench.data.options import with_defaults
from dlbench.errors import UserError


def filled_in(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """``configuration``, JSON-ready, with every option of its model and data set.

    Those of a model or data set that this version does not know, or not so, stay as they are.
    """
    found = dict(configuration)
    for section, options_of in OPTIONS.items():
        part = found.get(section)
        if not isinstance(part, Mapping) or not isinstance(part.get("options"), Mapping):
            continue
        try:
            options = options_of(str(part.get("name")), dict(part["options"]))
        except UserError:
            continue
        found[section] = {**part, "options": to_jsonable_python(options)}
    return found


def _of_data(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **with_defaults(data.kind_of(name), given)}


OPTIONS: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "model": models.check,
    "data": _of_data,
}
"""By section of the configuration: its options by its name and those that were given."""
