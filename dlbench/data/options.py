"""Options of data sets and of what makes miniatures: which there are, and of which type."""

from __future__ import annotations

import inspect
import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError

from dlbench.data.dataset import DataError, DataSet

Count = Annotated[int, Field(gt=0, description="whole number from 1")]
Seed = Annotated[int, Field(ge=0, description="whole number from 0")]
Split = Annotated[str, Field(pattern=r"^(train|val|test)$", description="train, val or test")]
WORDS: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null",
    Any: "any value",
}  # fmt: skip


def of_kind(kind: type[DataSet]) -> dict[str, inspect.Parameter]:
    """What a data set takes beside root and size, with what it hands on to the class below it."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base, eval_str=True).parameters.values())[2:]
        handed_on = inspect.Parameter.VAR_KEYWORD
        found |= {p.name: p for p in parameters if p.kind is not handed_on}
        if not any(p.kind is handed_on for p in parameters):
            break
    return found


def with_defaults(kind: type[DataSet], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a data set as JSON has them, those not given by their defaults."""
    values = {name: given.get(name, known.default) for name, known in of_kind(kind).items()}
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def of_maker(maker: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What the maker of a miniature takes beside its folder, the seed first."""
    _, *found = inspect.signature(maker, eval_str=True).parameters.values()
    known = {parameter.name: parameter for parameter in found}
    return {"seed": known.pop("seed").replace(annotation=Seed), **known}


def check(
    what: str, given: Mapping[str, Any], known: Mapping[str, inspect.Parameter], prefix: str = ""
) -> None:
    """Raise `DataError` unless all that is ``given`` is ``known``, and of the type that it names
    there. ``what`` is what takes them, ``prefix`` where its options stand."""
    if unknown := sorted(set(given) - set(known)):
        raise DataError(
            f"{what} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}"
        )
    for name, value in given.items():
        require(prefix + name, value, known[name].annotation)


def require(name: str, value: Any, allowed: Any) -> None:
    """Raise `DataError` unless ``value``, as YAML has it, is of the type ``allowed``: a whole
    number is a number too, and a list a tuple, but text is neither number nor truth value. Types
    with limits have a description of them."""
    try:
        # YAML has no tuples.
        seen = tuple(value) if isinstance(value, list) else value
        TypeAdapter(allowed).validate_python(seen, strict=True)
    except ValidationError:
        raise DataError(f"{name} is {reprlib.repr(value)}, allowed: {_words(allowed)}") from None


def _words(allowed: Any) -> str:
    """A type as YAML writes its values."""
    kind, inner = get_origin(allowed), get_args(allowed)
    if kind is Annotated:
        return str(inner[1].description)
    if kind in (Union, UnionType):
        return " or ".join(map(_words, inner))
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple:
        return f"[{', '.join(map(_words, inner))}]"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return f"{{{_words(inner[0])}: {_words(inner[1])}, ...}}"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return f"[{_words(inner[0])}, ...]"
    return WORDS.get(allowed) or str(allowed)
