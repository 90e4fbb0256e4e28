"""Look at data before training on it: ``python -m dlbench.data COMMAND ...``.

list                            every data set: classes, bands, licence, where to get it, its layout
info DATA [ROOT]                what a folder holds
check DATA [ROOT]               is it complete, and can every sample be read? status 1 if not
preview DATA [ROOT] OUT.png     pictures of samples with their labels
stats DATA [ROOT]               pixels of each class, moments of each band (remembered)
fetch NAME OUT                  download it, where that needs no registration; repeated, it goes on
                                where it stopped; part=...: of those that come in parts
make NAME OUT                   a miniature of the data set in its real layout; seed=0 and
                                options of its own
prepare DATA [ROOT] OUT         all samples decoded, for data.root=OUT to read many times faster;
                                repeated, it goes on where it stopped; split=[train,val]: only these

DATA is a name of the list, or a configuration (.yaml) as `dlbench.train` takes it; without ROOT,
what dlbench generates. Options follow as key=value: size=[256,256], split=train, samples=4,
seed=0, and those of the data set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from dlbench import config, data
from dlbench.data import (
    DATASETS,
    DataError,
    DataSet,
    fetching,
    miniatures,
    preparation,
    statistics,
)
from dlbench.data.options import Count, require
from dlbench.data.windows import WindowedDataSet
from dlbench.errors import exit_status

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SIZE = (256, 256)
"""Of windows where none is given."""


def main(arguments: list[str]) -> int:
    """Run a command and return the process's exit status: 2 for what the user can mend."""

    def job() -> int:
        if not arguments or arguments[0] not in COMMANDS:
            raise DataError(f"the commands are {', '.join(COMMANDS)}\n\n{__doc__}")
        places = [a for a in arguments[1:] if "=" not in a]
        options = {k: _value(k, v) for k, _, v in (a.partition("=") for a in arguments if "=" in a)}
        return COMMANDS[arguments[0]](places, options)

    return exit_status("dlbench.data", job)


def listing(places: list[str], options: dict[str, Any]) -> int:
    _expect(places, 0, options)
    for name in DATASETS:
        kind = data.kind_of(name)
        classes = ", ".join(c.name for c in kind.classes)
        print(f"{name}: {kind.task}")
        print(f"  classes  {classes or 'by the labels chosen, or values'}")
        print(f"  bands    {', '.join(getattr(kind, 'bands', ())) or 'by the imagery'}")
        print(f"  licence  {kind.licence}")
        print(f"  source   {kind.source}")
        if kind.downloads:
            print(f"  fetch    {', '.join(kind.downloads)}")
        print("  layout   " + kind.layout.replace("\n", "\n           "))
    return 0


def info(places: list[str], options: dict[str, Any]) -> int:
    dataset = _opened(places, options)
    _describe(dataset)
    return 0


def check(places: list[str], options: dict[str, Any]) -> int:
    dataset = _opened(places, options)
    _describe(dataset)
    for line in dataset.missing():
        print(f"missing: {line}")
    problems: dict[str, None] = {}
    for split in dataset.splits:
        for problem in _problems(dataset, split):
            if problem not in problems:
                print(f"unusable: {problem}")
                problems[problem] = None
    if problems:
        return 1
    print("every sample of these splits was read")
    return 0


def preview(places: list[str], options: dict[str, Any]) -> int:
    if len(places) < 2 or not places[-1].endswith(".png"):
        raise DataError("usage: python -m dlbench.data preview DATA [ROOT] OUT.png")
    split, samples = options.pop("split", "train"), options.pop("samples", 4)
    require("samples", samples, Count)
    dataset = _opened(places[:-1], options)
    dataset.require_split(split)
    count = dataset.count(split)
    chosen = [i * count // samples for i in range(min(samples, count))]
    images, targets = zip(*(dataset.read(split, index) for index in chosen), strict=True)
    names = [dataset.sample_name(split, i).partition("/")[2].replace("/", "\n") for i in chosen]
    path = Path(places[-1])
    if dataset.classes:
        from dlbench.pictures import prediction_grid

        prediction_grid(
            images, targets, None, dataset.classes, path, bands=dataset.shown, names=names,
            value_range=dataset.value_range,
        )  # fmt: skip
    else:
        from dlbench.velocity_pictures import velocity_figure

        scale = dataset.ground_sampling_distance
        assert scale is not None
        velocity_figure(images, None, targets, path, names=names, pixel_km=scale / 1000.0)
    print(f"wrote {path}")
    return 0


def stats(places: list[str], options: dict[str, Any]) -> int:
    split = options.pop("split", "train")
    dataset = _opened(places, options)
    found = statistics.of(dataset, split)
    print(f"{split}: {found.samples} samples, {found.pixels:,} pixels")
    if dataset.classes:
        void = 1.0 - sum(found.class_pixels) / found.pixels
        print(f"{'class':<28} {'pixels':>16} {'share':>8}   ({void:.2%} void)")
        rows = zip(dataset.classes, found.class_pixels, found.class_shares, strict=True)
        for info, pixels, share in rows:
            print(f"{info.name:<28} {pixels:>16,} {share:>8.2%}")
    print(f"{'band':<28} {'minimum':>10} {'maximum':>10} {'mean':>10} {'deviation':>10}")
    for band, *moments in zip(
        dataset.bands,
        found.band_minimum,
        found.band_maximum,
        found.band_mean,
        found.band_deviation,
        strict=True,
    ):
        print(f"{band:<28} " + " ".join(f"{value:>10.5g}" for value in moments))
    return 0


def make(places: list[str], options: dict[str, Any]) -> int:
    _expect(places, 2, {})
    made = miniatures.make(places[0], Path(places[1]), **options)
    print(f"{made} holds a miniature of {places[0]}; look at it:")
    print(f"python -m dlbench.data info {places[0]} {made}")
    return 0


def fetch(places: list[str], options: dict[str, Any]) -> int:
    part = options.pop("part", None)
    _expect(places, 2, options)
    kind = data.kind_of(places[0])
    with _bar("fetch") as (bar, task):

        def tell(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        out = fetching.fetch(kind, Path(places[1]), None if part is None else str(part), tell)
    print(f"{out} holds what was fetched of {kind.name} ({kind.licence}); it is laid out as")
    print("    " + kind.layout.replace("\n", "\n    "))
    print(f"python -m dlbench.data check {kind.name} {out}")
    return 0


def prepare(places: list[str], options: dict[str, Any]) -> int:
    if not 2 <= len(places) <= 3:
        raise DataError("usage: python -m dlbench.data prepare DATA [ROOT] OUT")
    splits = options.pop("split", None)
    require("split", splits, str | Sequence[str] | None)
    splits = [splits] if isinstance(splits, str) else splits
    dataset = _opened(places[:-1], options, whole=True)
    with _bar("prepare") as (bar, task):

        def advance(done: int, total: int) -> None:
            bar.update(task, advance=done, total=total)

        out = preparation.prepare(dataset, Path(places[-1]), splits, progress=advance)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out} holds {dataset.name}, {size / 1e9:.3g} GB; train on it with data.root={out}")
    return 0


COMMANDS: dict[str, Callable[[list[str], dict[str, Any]], int]] = {
    "list": listing,
    "info": info,
    "check": check,
    "preview": preview,
    "stats": stats,
    "fetch": fetch,
    "make": make,
    "prepare": prepare,
}


@contextmanager
def _bar(what: str) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task(what, total=None)


def _opened(places: list[str], options: dict[str, Any], whole: bool = False) -> DataSet:
    """The data set that a command names; ``whole``: samples not cut to size."""
    if not 1 <= len(places) <= 2:
        raise DataError(f"expected DATA and perhaps its ROOT, got {places}\n\n{__doc__}")
    if places[0].endswith((".yaml", ".yml")):
        settings = config.load([places[0]]).data
        options = {**settings.options, **options}
    else:
        settings = config.Data(name=places[0])
    root = Path(places[1]) if len(places) == 2 else settings.resolved_root()
    size = options.pop("size", settings.size)
    require("size", size, tuple[Count, Count] | None)
    kind = data.kind_of(settings.name)
    if size is None and issubclass(kind, WindowedDataSet):
        size = SIZE
    if whole and kind.crops:
        size = None
    return data.build(settings.name, root, size and tuple(size), **options)


def _describe(dataset: DataSet) -> None:
    scale = dataset.ground_sampling_distance
    print(f"{dataset.name} at {dataset.root}: {dataset.task}")
    print(f"  bands    {', '.join(dataset.bands)}; {dataset.dtype}, {dataset.units}")
    print(f"  outputs  {', '.join(dataset.outputs)}")
    print(f"  pixels   {'of no fixed size' if scale is None else f'of {scale:g} m'}")
    for split in dataset.splits:
        try:
            count: str | int = dataset.count(split)
        except DataError:
            count = "unusable"
        print(f"  {split:<8} {count} samples of {dataset.size or 'their own size'}")
    print(f"  licence  {dataset.licence}")


def _problems(dataset: DataSet, split: str) -> Iterator[str]:
    """What keeps samples of a split from being used, a sentence a sample."""
    from rich.console import Console
    from rich.progress import track

    def problem(index: int) -> str | None:
        try:
            image, _ = dataset.read(split, index)
        except DataError as error:
            return str(error)
        name = f"{dataset.root}, sample {dataset.sample_name(split, index)}"
        if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
            return f"{name}: image values that are not finite"
        return None

    try:
        count = dataset.count(split)
    except DataError as error:
        yield str(error)
        return
    console = Console(stderr=True)
    with ThreadPoolExecutor(2, thread_name_prefix="dlbench-check") as pool:
        found = pool.map(problem, range(count))
        for text in track(found, split, count, console=console, disable=not console.is_terminal):
            if text is not None:
                yield text


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except config.NOT_YAML as error:
        raise DataError(f"the value in '{key}={text}' is not valid YAML: {error}") from error


def _expect(places: list[str], count: int, options: dict[str, Any]) -> None:
    if len(places) != count or options:
        raise DataError(f"unexpected {' '.join([*places, *options])}\n\n{__doc__}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
