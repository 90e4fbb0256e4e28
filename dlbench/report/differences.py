"""What differs between the environments of two setups, the likeliest explanation first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlbench.environment import steering
from dlbench.report import plain

RELEVANCE = (
    (1, r"gpu\.driver", "the driver compiles kernels, sets clocks and schedules"),
    (1, r"gpu\.devices", "other GPUs, or another number of them"),
    (1, r"gpu(\..*)?", "the GPU's state or settings"),
    (1, r"libraries\.libcudnn.*", "cuDNN chooses the algorithms of convolutions"),
    (1, r"libraries\.libnccl.*", "NCCL carries the gradients between GPUs"),
    (1, r"libraries\.libcu.*|packages\.nvidia-.*", "CUDA's runtime and kernels"),
    (2, r"tensorflow\.(?!int\w+_threads).*|packages\.tensorflow.*", "kernels and graph rewriting"),
    (2, r"horovod\..*|packages\.horovod", "how gradients are summed over ranks"),
    (2, r"op\..*|op", "how the pooling op was compiled, and for which instructions"),
    (2, r"keras\..*|packages\.keras", "which graph a model becomes"),
    (3, r".*_threads|cpu\.(cores.*|count)", "how many cores and threads share the work"),
    (3, r"variables\..*", "a setting that steers the libraries"),
    (4, r"cpu\.flags", "instruction sets decide which kernels run"),
    (4, r"cpu\..*|processor|machine", "another processor"),
    (
        5,
        r"(platform\.)?(release|system|libc|container)",
        "kernel and container: scheduling, memory",
    ),
    (5, r"memory_bytes", "memory of the machine"),
    (5, r"libraries\..*", "an allocator or threading runtime"),
    (6, r"packages\..*|python.*", "a package outside of the measured step, most often"),
    (8, r"platform\.hostname", "another machine, or another container on it"),
)
"""(relevance, what it matches, why it may matter); the first match counts, 1 matters most."""
OTHER = (7, "not known to decide speed")
NONE = "–"


@dataclass(frozen=True)
class Difference:
    """One entry of the environment that is not the same."""

    what: str
    before: str
    after: str
    relevance: int
    """1 for the likeliest explanation, up to 8."""
    note: str


def between(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> list[Difference]:
    """Compare the environments of one setup (several if its launches differ) with another's."""
    old, new = _entries(before), _entries(after)
    found = []
    for what in sorted(old.keys() | new.keys()):
        left, right = old.get(what, set()), new.get(what, set())
        if left == right:
            continue
        if what.endswith("flags"):  # of long lists only what is not common to both
            left, right = left - right, right - left
        found.append(Difference(what, _text(left), _text(right), *_relevance(what)))
    return sorted(found, key=lambda difference: (difference.relevance, difference.what))


def _entries(environments: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    entries: dict[str, set[str]] = {}
    for environment in environments:
        for path, value in _flattened("", environment):
            entries.setdefault(path, set()).update(value)
    return entries


def _flattened(path: str, value: Any) -> Iterator[tuple[str, list[str]]]:
    """Paths such as ``gpu.driver``, each with its value or, of a list, values."""
    name = path.rpartition(".")[2]
    if isinstance(value, Mapping):
        for key, part in (steering(value) if path == "variables" else value).items():
            yield from _flattened(f"{path}.{key}" if path else str(key), part)
    elif _no_difference(path, name):
        return
    elif path == "memory_bytes" and value is not None:
        yield path, [f"{value / 2**30:.0f} GiB"]
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        described = [", ".join(f"{k} {v}" for k, v in dict(part).items()) for part in value]
        yield path, [f"{described.count(one)} x ({one})" for one in dict.fromkeys(described)]
    elif isinstance(value, list):
        yield path, [str(part) for part in value]
    elif value is not None:
        yield path, [str(value)]


def _no_difference(path: str, name: str) -> bool:
    """Whether an entry differs from launch to launch, or says where something lies."""
    return name in plain.VOLATILE or bool(re.fullmatch(r"libraries\..*\.path", path))


def _relevance(what: str) -> tuple[int, str]:
    return next(
        ((rank, note) for rank, pattern, note in RELEVANCE if re.fullmatch(pattern, what)), OTHER
    )


def _text(values: set[str]) -> str:
    return ", ".join(sorted(values)) or NONE
