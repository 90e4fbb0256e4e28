"""What the command line of a map asks for: see `dlbench.predict_map`."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench import command_line
from dlbench.config import ConfigError
from dlbench.data import raster
from dlbench.data.dataset import DataError
from dlbench.data.imagery import earth_engine
from dlbench.data.imagery.landsat import is_landsat
from dlbench.data.imagery.safe import is_safe
from dlbench.data.imagery.sentinel2_files import SUFFIXES as IMAGES
from dlbench.data.imagery.sentinel2_files import bands_in
from dlbench.raster_output import RUN_TAG, mixer_beside

USAGE = (
    "usage: python -m dlbench.predict RUN SCENE [OUT.tif|OUT.tfrecord.gz|FOLDER], or of several "
    "scenes RUN SCENE SCENE ... FOLDER; options: [checkpoint=best|last] [bands=1,2,3] [tile=512] "
    "[overlap=64] [batch=4] [samples=8] [probabilities=OUT.tif|FOLDER] "
    "[uncertainty=OUT.tif|FOLDER] [picture=OUT.png] [overwrite=false]; of Sentinel-2 "
    "[dates=20220421,...] [harmonized=true|false|by_date]; of it and Landsat "
    "[mask_clouds=true|false]"
)
SUFFIXES = (".tif", ".tiff")
PATCHES = re.compile(r".+-\d{5}\.tfrecord(?:\.gz)?")
"""Files of an export; maps go back as one file."""
SENTINEL2 = ("dates", "harmonized", "mask_clouds")


@dataclass(frozen=True)
class Request:
    """The command line."""

    run: Path
    scenes: tuple[Path, ...]
    picture: Path | None
    outputs: dict[str, tuple[Path, ...]]
    """For each scene its ``classes`` and, where wanted, ``probabilities`` and ``uncertainty``."""
    checkpoint: str
    bands: str | None
    tile: int
    overlap: int
    batch: int
    samples: int | None
    reading: dict[str, Any]
    """What is told of satellites' scenes, in place of what was told in training."""

    @property
    def network(self) -> str:
        kind = "" if self.run.suffix == ".keras" else f", checkpoint {self.checkpoint}"
        return f"{self.run}{kind}"


def parse(arguments: list[str]) -> Request:
    """The checked command line. Raises `ConfigError`."""
    line = command_line.parse(
        arguments,
        USAGE,
        {"tile": 512, "overlap": 64, "batch": 4, "samples": 0},
        {"checkpoint", "bands", "probabilities", "uncertainty", "picture", "overwrite", *SENTINEL2},
    )
    run, *places = map(Path, line.places)
    line.refuse_checkpoint_of_file(run)
    scenes = places[:-1] or places
    if len(places) > 1:
        _refuse_imagery(places[-1], scenes)
    where = {"classes": places[-1] if len(places) > 1 else Path()}
    for kind in ("probabilities", "uncertainty"):
        if kind in line.options:
            where[kind] = Path(line.options[kind])
    outputs = {kind: _outputs(kind, place, scenes) for kind, place in where.items()}
    for kind, paths in outputs.items():
        for path in paths:
            patches = earth_engine.SUFFIXES if kind == "classes" else ()
            line.require_new(path, SUFFIXES + patches, USAGE)
            if path.name.endswith(patches):
                line.require_new(mixer_beside(path), (".json",), USAGE)
    picture = Path(line.options["picture"]) if "picture" in line.options else None
    if picture is not None:
        line.require_new(picture, (".png",), USAGE)
        if len(scenes) > 1 or not outputs["classes"][0].name.endswith(SUFFIXES):
            raise ConfigError(
                f"picture={picture} is drawn of one map, a .tif; here are {len(scenes)} scenes and "
                f"{outputs['classes'][0]}: leave it out"
            )
    every = [path for paths in outputs.values() for path in paths]
    every += [mixer_beside(path) for path in every if path.name.endswith(earth_engine.SUFFIXES)]
    every += [picture] if picture is not None else []
    for path in every:
        if every.count(path) > 1:
            raise ConfigError(f"two maps would be written to {path}; give them other names")
        if any(path.exists() and scene.exists() and path.samefile(scene) for scene in scenes):
            raise ConfigError(f"{path} is read, so it cannot be written; give another name")
    return Request(
        run=run,
        scenes=tuple(scenes),
        picture=picture,
        outputs=outputs,
        checkpoint=line.options.get("checkpoint", "best"),
        bands=line.options.get("bands"),
        tile=line.numbers["tile"],
        overlap=line.numbers["overlap"],
        batch=line.numbers["batch"],
        samples=line.numbers["samples"] or None,
        reading=_reading(line.options),
    )


def _reading(options: dict[str, str]) -> dict[str, Any]:
    words = {"true": True, "false": False}
    reading: dict[str, Any] = {
        name: words.get(options[name], options[name]) for name in SENTINEL2 if name in options
    }
    if "dates" in options:
        reading["dates"] = options["dates"].split(",")
    return reading


def _outputs(kind: str, place: Path, scenes: list[Path]) -> tuple[Path, ...]:
    """The file of each scene: ``place`` itself, or SCENE_kind.tif in a folder of this name."""
    if place.suffix and not place.is_dir():
        if len(scenes) > 1:
            raise ConfigError(
                f"{len(scenes)} scenes cannot go into one file, {place}; give a folder"
            )
        return (place,)
    return tuple(place / f"{scene.stem}_{kind}.tif" for scene in scenes)


def _refuse_imagery(last: Path, scenes: list[Path]) -> None:
    """Raise `ConfigError` where the ``last`` place, for maps, is imagery that is there already: of
    a list of scenes without a folder it would get no map, or another's written over it."""
    if last.is_dir():
        beside = any(scene.parent.resolve() == last.resolve() for scene in scenes)
        imagery = not beside and _holds_imagery(last)
    else:
        imagery = last.exists() and _is_imagery(last)
    if imagery:
        raise ConfigError(
            f"{last} comes last, where maps go, but it is imagery that is there already; after "
            "several scenes name a FOLDER for their maps, after one a new file"
        )


def _holds_imagery(folder: Path) -> bool:
    """Whether a folder is a scene or holds some; rasters whose bands are not named B2 or so, such
    as maps, are none."""
    if is_safe(folder) or is_landsat(folder):
        return True
    for entry in folder.iterdir():
        if "MSIL1C" in entry.name and is_safe(entry):
            return True  # any archive might be one by its suffix alone
        if entry.suffix.lower() in IMAGES:
            with suppress(DataError):
                if bands_in(entry):
                    return True
        if PATCHES.fullmatch(entry.name):
            return True
    return False


def _is_imagery(file: Path) -> bool:
    """Whether a file is an archive, a mixer file or a patch of an export, or a raster that is no
    map of dlbench's."""
    if is_safe(file) or earth_engine.MIXER.fullmatch(file.name) or PATCHES.fullmatch(file.name):
        return True
    with suppress(DataError), raster.open_raster(file) as dataset:
        return RUN_TAG not in dataset.tags()
    return False
