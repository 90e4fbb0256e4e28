"""Damage to files: deterministic by the generator that it draws from, some by the file's format."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

Mutation = Callable[[Path, np.random.Generator], None]

HOSTILE = (0, 1, 2, 7, 255, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGEST_CROP = 256


def _bytes(change: Callable[[bytearray, np.random.Generator], bytes | bytearray]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        file.write_bytes(change(bytearray(file.read_bytes()), rng))

    return mutation


def _flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    # Headers are short, yet most of a format is in them.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
    for place in rng.integers(0, max(reach, 1), int(rng.choice([1, 4, 32]))):
        if data:
            data[place] ^= int(rng.integers(1, 256))
    return data


def _zeroed(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(0, len(data) + 1))
    length = min(int(rng.choice([8, 64, 512, 4096])), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def _moved(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, end = sorted(map(int, rng.integers(0, len(data) + 1, 2)))
    return data[:start] + data[end:] + data[start:end]


OTHER_FORMATS = (
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"PK\5\6" + bytes(18), b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0\0\0", b"\x89HDF\r\n\x1a\n",
    b"SIMPLE  =                    T" + b" " * 50 + b"END" + b" " * 2797, b"{}", b"[]", b"null",
    b"SQLite format 3\0", b"\x93NUMPY\x01\0\x02\0{}", b"<a/>", bytes(4096),
    b"<VRTDataset rasterXSize='9' rasterYSize='9'><VRTRasterBand dataType='Byte' band='1'>"
    b"<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand>"
    b"</VRTDataset>",
)  # fmt: skip


def _removed(file: Path, rng: np.random.Generator) -> None:
    file.unlink()


def _a_folder(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.mkdir()


def _a_loop(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.symlink_to(file.name)


ANY: dict[str, Mutation] = {
    "truncated": _bytes(lambda data, rng: data[: int(rng.integers(0, len(data) + 1))]),
    "flipped": _bytes(_flipped),
    "zeroed": _bytes(_zeroed),
    "moved": _bytes(_moved),
    "emptied": _bytes(lambda data, rng: b""),
    "padded": _bytes(lambda data, rng: data + rng.bytes(300)),
    "of another format": _bytes(lambda data, rng: OTHER_FORMATS[rng.integers(len(OTHER_FORMATS))]),
    "noise": _bytes(lambda data, rng: rng.bytes(len(data))),
    "removed": _removed,
    "a folder": _a_folder,
    "a loop of links": _a_loop,
}


def _raster(change: Callable[[np.ndarray, dict[str, Any], np.random.Generator], np.ndarray]) -> (
    Mutation
):  # fmt: skip
    """A raster written anew, as a GeoTIFF whatever its name says."""

    def mutation(file: Path, rng: np.random.Generator) -> None:
        with rasterio.open(file) as source:
            height, width = (min(side, LARGEST_CROP) for side in source.shape)
            values = source.read(window=Window(0, 0, width, height))
            profile = {"crs": source.crs, "transform": source.transform, "nodata": source.nodata}
            names = source.descriptions
        values = change(values, profile, rng)
        if profile["nodata"] is not None and values.dtype.kind in "iu":
            info = np.iinfo(values.dtype)
            if not info.min <= profile["nodata"] <= info.max:
                profile["nodata"] = None
        count, height, width = values.shape
        file.unlink()
        with rasterio.open(
            file, "w", driver="GTiff", count=count, height=height, width=width,
            dtype=values.dtype, **profile,
        ) as target:  # fmt: skip
            target.write(values)
            if len(names) >= count and "names" not in profile:
                target.descriptions = names[:count]

    return mutation


def _typed(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    kinds = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64",
             "complex64", "int64", "uint64")  # fmt: skip
    return values.astype(kinds[rng.integers(len(kinds))])


def _set(**changes: Any) -> Mutation:
    return _raster(lambda values, profile, rng: (profile.update(changes), values)[1])


def _place(change: Callable[[Affine], Affine]) -> Mutation:
    def changed(
        values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        profile["transform"] = change(profile["transform"])
        return values

    return _raster(changed)


def _missing(value: float) -> Mutation:
    def changed(
        values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        values = values.astype(np.float32)
        values[rng.random(values.shape) < rng.choice([0.1, 1.0])] = value
        return values

    return _raster(changed)


def _no_data(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    profile["nodata"] = 0
    return np.zeros_like(values)


def _codes(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    if values.dtype.kind in "iu":
        info = np.iinfo(values.dtype)
        drawn = rng.integers(info.min, info.max, values.shape, values.dtype, endpoint=True)
        return np.where(rng.random(values.shape) < 0.2, drawn, values)
    return values * 1e30


def _tag(file: Path, rng: np.random.Generator) -> None:
    """A tag of a TIFF's first directory, such as its width, set to a hostile number."""
    data = bytearray(file.read_bytes())
    if data[:2] != b"II" or data[2:4] != b"*\0":
        ANY["flipped"](file, rng)
        return
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    # Half of the time width, length, tile width and tile length, which memory is allotted by.
    entries = [start + 2 + 12 * n for n in range(count)]
    sizes = [e for e in entries if struct.unpack("<H", data[e : e + 2])[0] in (256, 257, 322, 323)]
    chosen = sizes if sizes and rng.random() < 0.5 else entries
    for entry in rng.choice(chosen, int(rng.integers(1, 3))):
        value = HOSTILE[rng.integers(len(HOSTILE))]
        struct.pack_into("<HII", data, int(entry) + 2, 4, 1, value)
    file.write_bytes(data)


RASTER: dict[str, Mutation] = {
    "of another dtype": _raster(_typed),
    "bands shuffled": _raster(lambda values, profile, rng: rng.permutation(values)),
    "a band less": _raster(lambda values, profile, rng: values[:-1] if len(values) > 1 else values),
    "a band more": _raster(lambda values, profile, rng: np.concatenate([values, values[:1]])),
    "in degrees": _set(crs="EPSG:4326"),
    "of another zone": _set(crs="EPSG:32755"),
    "of no CRS": _set(crs=None),
    "of no place": _set(crs=None, transform=Affine.identity()),
    "rotated": _place(lambda transform: transform @ Affine.rotation(20)),
    "upside down": _place(lambda transform: transform @ Affine.scale(1, -1)),
    "mirrored": _place(lambda transform: transform @ Affine.scale(-1, 1)),
    "far away": _place(lambda transform: Affine.translation(1e7, 1e7) @ transform),
    "of tiny pixels": _place(lambda transform: transform @ Affine.scale(1e-9)),
    "of huge pixels": _place(lambda transform: transform @ Affine.scale(1e12)),
    "of NaN pixels": _place(lambda transform: transform @ Affine.scale(float("nan"))),
    "smaller": _raster(lambda values, profile, rng: values[:, :-1, :-2]),
    "of one pixel": _raster(lambda values, profile, rng: values[:, :1, :1]),
    "larger": _raster(lambda values, profile, rng: np.pad(values, ((0, 0), (0, 3), (0, 5)))),
    "NaN": _missing(np.nan),
    "infinite": _missing(np.inf),
    "no data anywhere": _raster(_no_data),
    "codes out of table": _raster(_codes),
}
TIFF = RASTER | {"hostile tags": _tag, "hostile tags again": _tag}


def _jp2_size(file: Path, rng: np.random.Generator) -> None:
    """Height or width in the image header box and the codestream's SIZ, or its tiles' size."""
    data = bytearray(file.read_bytes())
    value = HOSTILE[rng.integers(len(HOSTILE))]
    box, siz = data.find(b"ihdr"), data.find(b"\xff\x51")
    if box < 0 or siz < 0:
        ANY["flipped"](file, rng)
        return
    axis = int(rng.integers(2))
    if rng.random() < 0.7:
        struct.pack_into(">I", data, box + 8 - 4 * axis, value)
    struct.pack_into(">I", data, siz + 6 + 4 * axis + int(rng.choice([0, 0, 16])), value)
    file.write_bytes(data)


def _png_size(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    struct.pack_into(">I", data, int(rng.choice([16, 20])), HOSTILE[rng.integers(len(HOSTILE))])
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    file.write_bytes(data)


def _picture(mode: str) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        from PIL import Image

        with Image.open(file) as picture:
            changed = picture.convert(mode)
        changed.save(file, "TIFF" if mode in ("F", "I") else "PNG")

    return mutation


def _cropped(file: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        changed = picture.crop((0, 0, picture.width - 1, picture.height))
    changed.save(file)


def _noisy(file: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        values = rng.integers(0, 256, np.array(picture).shape, np.uint8)
    Image.fromarray(values).save(file)


PNG: dict[str, Mutation] = {
    "hostile size": _png_size, "cropped": _cropped, "codes out of table": _noisy,
    **{f"of mode {mode}": _picture(mode) for mode in ("RGBA", "L", "1", "P", "I", "F", "RGB")},
}  # fmt: skip

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    + "]>"
)


def _bomb(text: str, rng: np.random.Generator) -> str:
    return BOMB + re.sub(r"<\?xml.*?\?>", "", text).replace("</", "&l11;</", 1)


def _foreign(text: str, rng: np.random.Generator) -> str:
    head = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    return head + re.sub(r"<\?xml.*?\?>", "", text).replace("</", "&x;</", 1)


def _text(change: Callable[[str, np.random.Generator], str]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        text = file.read_bytes().decode("utf-8", "replace")
        file.write_bytes(change(text, rng).encode("utf-8", "surrogatepass"))

    return mutation


WORDS = (
    "", "nan", "inf", "-1", "0", "1e400", "9" * 5000, "é" * 9, "\N{GRINNING FACE}", "EPSG:0",
    "EPSG:99999999", "../../x", "2024-99-99", "null", "true", "[]", "{}", "-0", "1e9", "x" * 200,
)  # fmt: skip


def _word(text: str, rng: np.random.Generator) -> str:
    """One number, name or quoted text replaced."""
    found = list(re.finditer(r"(?<=>)[^<>\s]+(?=<)|[\w.+-]+", text))
    if not found:
        return text
    match = found[rng.integers(len(found))]
    return text[: match.start()] + WORDS[rng.integers(len(WORDS))] + text[match.end() :]


def _line(text: str, rng: np.random.Generator) -> str:
    lines = text.splitlines(keepends=True)
    if lines:
        at = int(rng.integers(len(lines)))
        lines[at : at + 1] = [] if rng.random() < 0.5 else [lines[at]] * 2
    return "".join(lines)


def _with_nul(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text) + 1))
    return text[:at] + "\0" * int(rng.choice([1, 40])) + text[at:]


def _less(text: str, rng: np.random.Generator) -> str:
    names = re.findall(r"<(\w+)[ >]", text)
    name = names[rng.integers(len(names))] if names else "a"
    return re.sub(f"<{name}[^>]*>.*?</{name}>", "", text, count=1, flags=re.DOTALL)


TEXT: dict[str, Mutation] = {
    "a word replaced": _text(_word),
    "another word replaced": _text(_word),
    "a line removed or doubled": _text(_line),
    "NUL bytes": _text(_with_nul),
    "in UTF-16": _bytes(lambda data, rng: data.decode("utf-8", "replace").encode("utf-16")),
    "in capitals": _text(lambda text, rng: text.upper()),
    "a field of a megabyte": _text(
        lambda text, rng: text.replace(",", ',"' + "x" * 2**20 + '",', 1)
    ),
}
XML = TEXT | {
    "a billion laughs": _text(_bomb),
    "an external entity": _text(_foreign),
    "a million levels": _text(lambda text, rng: "<a>" * 1_000_000 + text + "</a>" * 1_000_000),
    "without an element": _text(_less),
}  # fmt: skip

_ALIASES = "".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(12)
)
YAML = TEXT | {
    "aliases of aliases": _text(lambda text, rng: _ALIASES + text),
    "a section of aliases": _text(
        lambda text, rng: (
            _ALIASES + re.sub(r"(?m)^(seed|model|name):.*", r"\1: *l11", text, count=1)
        )
    ),
    "ten thousand levels": _text(lambda text, rng: text + "x: " + "[" * 10_000 + "]" * 10_000),
    "objects of Python": _text(
        lambda text, rng: text + "\nname: !!python/object/apply:os.system ['touch outside']\n"
    ),
    "an alias of itself": _text(lambda text, rng: "name: &a [*a]\n" + text),
    "options of other kinds": _text(
        lambda text, rng: re.sub(r"options: \{\}", "options: {x_axis: [], width: {}}", text)
    ),
}


def _value(content: Any, rng: np.random.Generator) -> Any:
    """JSON with one value or key, somewhere, replaced."""
    odd: tuple[Any, ...] = (
        None,
        -1,
        1e308,
        "x",
        [],
        {},
        [[]],
        True,
        2**70,
        "\0",
        float("nan"),
        "9" * 5000,
    )
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = sorted(content)[rng.integers(len(content))]
        if rng.random() < 0.2:
            return {("x" if k == key else k): v for k, v in content.items()}
        return {**content, key: _value(content[key], rng)}
    if isinstance(content, list) and content and rng.random() < 0.9:
        at = int(rng.integers(len(content)))
        return [*content[:at], _value(content[at], rng), *content[at + 1 :]]
    return odd[rng.integers(len(odd))]


def _json(file: Path, rng: np.random.Generator) -> None:
    file.write_text(json.dumps(_value(json.loads(file.read_text()), rng)))


JSON = TEXT | {
    "a value replaced": _json, "a value replaced again": _json,
    "ten thousand levels": _text(lambda text, rng: "[" * 10_000 + text + "]" * 10_000),
}  # fmt: skip


def _table(change: Callable[[list[list[str]], np.random.Generator], None]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
        change(rows, rng)
        with file.open("w", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows(rows)

    return mutation


def _column(change: Callable[[list[str], int, np.random.Generator], None]) -> Mutation:
    def changed(rows: list[list[str]], rng: np.random.Generator) -> None:
        at = int(rng.integers(len(rows[0])))
        for row in rows:
            change(row, at, rng)

    return _table(changed)


def _cell(rows: list[list[str]], rng: np.random.Generator) -> None:
    row, at = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
    rows[row][at] = WORDS[rng.integers(len(WORDS))]


CSV = TEXT | {
    "a column less": _column(lambda row, at, rng: row.__delitem__(at)),
    "a column doubled": _column(lambda row, at, rng: row.append(row[at])),
    "columns swapped": _column(lambda row, at, rng: row.insert(0, row.pop(at))),
    "a cell replaced": _table(_cell),
    "a field renamed": _table(lambda rows, rng: rows[0].__setitem__(
        rng.integers(len(rows[0])), "other")),
    "the header alone": _table(lambda rows, rng: rows.__delitem__(slice(1, None))),
    "an open quote": _text(lambda text, rng: text.replace(",", ',"', 1)),
}  # fmt: skip


def _members(file: Path) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def _archive(
    change: Callable[[list[tuple[zipfile.ZipInfo, bytes]], np.random.Generator], None],
) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        members = _members(file)
        change(members, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of members there twice
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for info, data in members:
                    archive.writestr(info, data)

    return mutation


def _renamed(name: str) -> Mutation:
    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        info = members[rng.integers(len(members))][0]
        info.filename = name.format(name=info.filename)

    return _archive(changed)


def _link(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    members[at][0].external_attr = 0o120777 << 16
    members[at] = members[at][0], b"../../outside"


def _zip_bomb(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    members[at][0].compress_type = zipfile.ZIP_DEFLATED
    members[at] = members[at][0], bytes(200 << 20)


def _member(kinds: dict[str, dict[str, Mutation]]) -> Mutation:
    """Damage to a file inside, as to one that lies in a folder."""

    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        import tempfile

        at = int(rng.integers(len(members)))
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder) / Path(members[at][0].filename).name
            inside.write_bytes(members[at][1])
            suffix = inside.suffix.lower()
            chosen = {n: m for n, m in {**ANY, **kinds.get(suffix, {})}.items()
                      if n not in ("removed", "a folder", "a loop of links")}  # fmt: skip
            list(chosen.values())[rng.integers(len(chosen))](inside, rng)
            members[at] = members[at][0], inside.read_bytes()

    return _archive(changed)


def _header_field(file: Path, rng: np.random.Generator) -> None:
    """A field of a member's entry in the central directory: flags, method, sizes, offset."""
    data = bytearray(file.read_bytes())
    entries = [m.start() for m in re.finditer(b"PK\1\2", bytes(data))]
    entry = entries[rng.integers(len(entries))]
    place, form = ((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I"))[
        rng.integers(6)
    ]
    limit = 2 ** (8 * struct.calcsize(form))
    struct.pack_into(form, data, entry + place, HOSTILE[rng.integers(len(HOSTILE))] % limit)
    file.write_bytes(data)


def _array(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Mutation:
    """An array of an npz changed; what is larger than it says is told by its header alone."""

    def changed(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
        at = int(rng.integers(len(members)))
        array = change(np.load(io.BytesIO(members[at][1])), rng)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        members[at] = members[at][0], buffer.getvalue()

    return _archive(changed)


def _npy_shape(members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(members)))
    info, data = members[at]
    text = re.sub(rb"'shape': \(.*?\)", b"'shape': (%d, 64, 64, 2)" % 2 ** int(rng.integers(8, 44)),
                  data[10:138])  # fmt: skip
    members[at] = info, data[:8] + struct.pack("<H", len(text)) + text + data[138:]


ARRAYS: dict[str, Callable[[np.ndarray, np.random.Generator], Any]] = {
    "NaN": lambda array, rng: np.full_like(array, np.nan, np.float32),
    "infinite": lambda array, rng: np.full_like(array, np.inf, np.float32),
    "of text": lambda array, rng: array.astype("S4"),
    "of unicode": lambda array, rng: array.astype("U4"),
    "complex": lambda array, rng: array.astype(np.complex64),
    "of whole numbers": lambda array, rng: (array * 100).astype(np.int16),
    "of booleans": lambda array, rng: array > 0,
    "of records": lambda array, rng: np.zeros(array.shape, [("a", "f4"), ("b", "f4")]),
    "of dates": lambda array, rng: np.zeros(array.shape, "M8[s]"),
    "of a dimension less": lambda array, rng: array[..., 0] if array.ndim else array,
    "of a dimension more": lambda array, rng: array[None],
    "scalar": lambda array, rng: array.dtype.type(0),
    "of no elements": lambda array, rng: array[:0] if array.ndim else array,
    "shorter": lambda array, rng: array[:-1] if array.ndim else array,
    "transposed": lambda array, rng: array.T,
}
ZIP: dict[str, Mutation] = {
    "a member above": _renamed("../../{name}"),
    "an absolute member": _renamed("/tmp/{name}"),
    "a member of Windows": _renamed("C:\\{name}"),
    "a member of a long name": _renamed("x" * 40000),
    "a member renamed": _renamed("other/{name}"),
    "a link": _archive(_link),
    "a bomb": _archive(_zip_bomb),
    "a member twice": _archive(lambda members, rng: members.append(members[0])),
    "a member less": _archive(lambda members, rng: members.pop(int(rng.integers(len(members))))
                              and None),
    "a directory's field": _header_field,
    "a directory's field again": _header_field,
}  # fmt: skip
NPZ = ZIP | {
    "a hostile shape": _archive(_npy_shape),
    "an array of objects": _array(lambda array, rng: np.array([{}, array], object)),
    **{f"an array {name}": _array(change) for name, change in ARRAYS.items()},
}


def _dataset(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        with h5py.File(file, "r+") as held:
            name = sorted(held)[0]
            array, facts = held[name][()], dict(held[name].attrs)
            array = np.asarray(change(array, rng))
            del held[name]
            if array.dtype.kind == "U":
                array = array.astype("S")
            held.create_dataset(name, data=array.view("i8") if array.dtype.kind == "M" else array)
            held[name].attrs.update(facts)

    return mutation


def _declared(file: Path, rng: np.random.Generator) -> None:
    """More elements than memory has, none of them stored."""
    with h5py.File(file, "r+") as held:
        name = sorted(held)[0]
        shape, kind = held[name].shape, held[name].dtype
        del held[name]
        axis = int(rng.integers(len(shape)))
        huge = tuple(
            2 ** int(rng.integers(24, 44)) if n == axis else s for n, s in enumerate(shape)
        )
        held.create_dataset(name, huge, kind, chunks=(1,) * len(shape))


def _attribute(file: Path, rng: np.random.Generator) -> None:
    odd = ("text", np.nan, np.inf, -1.0, 0.0, np.zeros((0,)), np.ones((3, 3)), b"\xff", True, 1j)
    names = ("minimum", "maximum", "pixel_km", "cadence_s")
    with h5py.File(file, "r+") as held:
        attributes = held[sorted(held)[0]].attrs
        attributes[names[rng.integers(len(names))]] = odd[rng.integers(len(odd))]


def _hdf5_link(file: Path, rng: np.random.Generator) -> None:
    with h5py.File(file, "r+") as held:
        name = sorted(held)[0]
        del held[name]
        links = (h5py.SoftLink(f"/{name}"), h5py.ExternalLink("gone.h5", "/x"), None)
        link = links[rng.integers(3)]
        if link is None:
            held.create_group(name)
        else:
            held[name] = link


HDF5: dict[str, Mutation] = {
    "a hostile shape": _declared,
    "an odd attribute": _attribute,
    "an odd attribute too": _attribute,
    "a link": _hdf5_link,
    **{f"an array {name}": _dataset(change) for name, change in ARRAYS.items()},
}  # fmt: skip


def _card(file: Path, rng: np.random.Generator) -> None:
    """A card of a FITS header with another value."""
    data = bytearray(file.read_bytes())
    end = data.find(b"END     ")
    cards = [n for n in range(80, max(end, 0), 80) if data[n + 8 : n + 10] == b"= "]
    if not cards:
        return
    known = [n for n in cards if data[n : n + 5] in (b"NAXIS", b"BITPI")]
    at = rng.choice(known if known and rng.random() < 0.7 else cards)
    values = (*HOSTILE, -1, -32, 16, 3, 10**12, "'text'", "NaN", "1E999", "T", "''", "(1,2)")
    data[at + 10 : at + 80] = f"{values[rng.integers(len(values))]!s:>20}".ljust(70).encode()
    file.write_bytes(data)


FITS: dict[str, Mutation] = {f"a card replaced, {n}": _card for n in range(4)}


def _layer(change: Callable[[dict[str, Any], np.random.Generator], None]) -> Mutation:
    """A vector file written anew."""
    drivers = {".shp": "ESRI Shapefile", ".gpkg": "GPKG", ".geojson": "GeoJSON"}

    def mutation(file: Path, rng: np.random.Generator) -> None:
        file = file.with_suffix(".shp") if file.suffix not in drivers else file
        meta, _, shapes, values = pyogrio.raw.read(file)
        layer = {
            "crs": meta["crs"], "kind": meta["geometry_type"], "shapes": shapely.from_wkb(shapes),
            "fields": dict(zip(meta["fields"], values, strict=True)),
        }  # fmt: skip
        change(layer, rng)
        if file.suffix != ".shp":
            file.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pyogrio.raw.write(
                file, shapely.to_wkb(layer["shapes"]), list(layer["fields"].values()),
                list(layer["fields"]), crs=layer["crs"], geometry_type=layer["kind"],
                driver=drivers[file.suffix],
            )  # fmt: skip
        if layer["crs"] is None and file.suffix == ".shp":
            file.with_suffix(".prj").unlink(missing_ok=True)

    return mutation


def _renamed_field(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    layer["fields"] = {("other" if n == name else n): v for n, v in layer["fields"].items()}


def _unknown_value(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    values = layer["fields"][name].copy()
    values[rng.integers(len(values))] = "Banana" if values.dtype == object else values.max() + 999
    layer["fields"][name] = values


def _other_kind(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    size = len(layer["fields"][name])
    kinds = (np.zeros(size, bool), np.full(size, np.nan), np.zeros(size, "M8[D]"),
             np.arange(size, dtype=np.int32))  # fmt: skip
    layer["fields"][name] = kinds[rng.integers(len(kinds))]


def _shapes(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Mutation:
    def changed(layer: dict[str, Any], rng: np.random.Generator) -> None:
        layer["shapes"] = change(layer["shapes"], rng)
        layer["kind"] = "Unknown" if layer["kind"] != "Polygon" else "Polygon"

    return _layer(changed)


def _points(layer: dict[str, Any], rng: np.random.Generator) -> None:
    layer["shapes"], layer["kind"] = shapely.centroid(layer["shapes"]), "Point"


VECTOR: dict[str, Mutation] = {
    "of no CRS": _layer(lambda layer, rng: layer.update(crs=None)),
    "of another CRS": _layer(lambda layer, rng: layer.update(crs="EPSG:32755")),
    "a local CRS": _layer(lambda layer, rng: layer.update(crs='LOCAL_CS["x",UNIT["metre",1]]')),
    "a field renamed": _layer(_renamed_field),
    "codes out of table": _layer(_unknown_value),
    "a field of another kind": _layer(_other_kind),
    "NaN": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy * np.nan)),
    "infinite": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy + np.inf)),
    "far away": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy + 1e6)),
    "collapsed": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy * 0)),
    "points": _layer(_points),
    "without shapes": _shapes(lambda shapes, rng: np.full(len(shapes), None, object)),
    "of no features": _layer(lambda layer, rng: layer.update(
        shapes=layer["shapes"][:0], fields={n: v[:0] for n, v in layer["fields"].items()})),
}  # fmt: skip


def _sql(file: Path, rng: np.random.Generator) -> None:
    """A GeoPackage whose tables are at odds."""
    connection = sqlite3.connect(file)
    layer = connection.execute("SELECT table_name FROM gpkg_contents").fetchone()[0]
    statements = (
        "DROP TABLE gpkg_contents", "DROP TABLE gpkg_geometry_columns", f'DROP TABLE "{layer}"',
        "DROP TABLE gpkg_spatial_ref_sys", "UPDATE gpkg_geometry_columns SET srs_id = 77777",
        "UPDATE gpkg_geometry_columns SET column_name = 'fid'", f"DELETE FROM \"{layer}\"",
        "UPDATE gpkg_spatial_ref_sys SET definition = 'garbage'",
        f'UPDATE "{layer}" SET geom = X\'4750000100000000\'',
        f'UPDATE "{layer}" SET geom = randomblob(60)', f'UPDATE "{layer}" SET geom = \'text\'',
        "UPDATE gpkg_contents SET min_x = 'text', max_x = 9e999",
        "UPDATE gpkg_contents SET data_type = 'tiles'",
        f"DROP TABLE \"rtree_{layer}_geom\"",
    )  # fmt: skip
    connection.execute("PRAGMA writable_schema=1")
    try:
        connection.execute(statements[rng.integers(len(statements))])
        connection.commit()
    except sqlite3.Error:  # triggers may call functions of GDAL's own
        pass
    finally:
        connection.close()


def _dbf(file: Path, rng: np.random.Generator) -> None:
    """A number in the header of a .dbf or .shp."""
    data = bytearray(file.read_bytes())
    places = ((4, "<I"), (8, "<H"), (10, "<H"), (28, "<H"), (48, "<B"))
    if file.suffix != ".dbf":
        places = ((0, ">I"), (24, ">I"), (28, "<I"), (32, "<I"), (104, ">I"))
    place, form = places[rng.integers(len(places))]
    if place + 4 <= len(data):
        value = HOSTILE[rng.integers(len(HOSTILE))] % 2 ** (8 * struct.calcsize(form))
        struct.pack_into(form, data, place, value)
    file.write_bytes(data)


def _config_of_keras(
    members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator
) -> None:
    for at, (info, data) in enumerate(members):
        if info.filename == "config.json":
            members[at] = info, json.dumps(_value(json.loads(data), rng)).encode()


def _other_network(kind: str) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        import keras

        image = keras.Input((None, None, 2))
        if kind == "of vectors":
            vector = keras.Input((4,))
            network = keras.Model(vector, keras.layers.Dense(3)(vector))
        elif kind == "of two images":
            other = keras.Input((None, None, 2))
            network = keras.Model([image, other], keras.layers.Add()([image, other]))
        elif kind == "with two outputs":
            outputs = [keras.layers.Conv2D(3, 1)(image), keras.layers.Conv2D(2, 1)(image)]
            network = keras.Model(image, outputs)
        else:
            network = keras.Sequential([keras.layers.Conv2D(3, 1)])
        network.save(file)

    return mutation


KERAS = ZIP | {
    "a configuration at odds": _archive(_config_of_keras),
    "a configuration at odds too": _archive(_config_of_keras),
    **{f"a network {k}": _other_network(k)
       for k in ("of vectors", "of two images", "with two outputs", "never built")},
}  # fmt: skip

SUFFIXES: dict[str, dict[str, Mutation]] = {
    ".tif": TIFF, ".jp2": RASTER | {"hostile size": _jp2_size, "hostile size too": _jp2_size},
    ".png": PNG, ".xml": XML, ".yaml": YAML, ".json": JSON, ".txt": TEXT, ".csv": CSV,
    ".npz": NPZ, ".h5": HDF5, ".fits": FITS, ".gpkg": VECTOR | {
        f"a statement, {n}": _sql for n in range(6)},
    ".shp": VECTOR | {"a hostile header": _dbf}, ".dbf": {"a hostile header": _dbf},
    ".shx": {"a hostile header": _dbf}, ".prj": TEXT, ".geojson": VECTOR | JSON, ".keras": KERAS,
}  # fmt: skip
SUFFIXES[".zip"] = ZIP | {
    f"a file inside, {n}": _member({".jp2": SUFFIXES[".jp2"], ".xml": XML}) for n in range(12)
}


def mutations_of(file: Path) -> dict[str, Mutation]:
    """What may be done to a file, by name."""
    return ANY | SUFFIXES.get(file.suffix.lower(), {})


def mutate(folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """Damage one file of a tree; which, and how. Each kind of file has an equal chance."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    suffix = rng.choice(sorted({file.suffix for file in files}))
    alike = [file for file in files if file.suffix == suffix]
    file = alike[rng.integers(len(alike))]
    special = SUFFIXES.get(file.suffix.lower(), {})
    chosen = special if special and rng.random() < 0.6 else ANY
    name = list(chosen)[rng.integers(len(chosen))]
    whole = file.read_bytes()
    try:
        chosen[name](file, rng)
    except Exception:  # what no library writes cannot arrive either
        file.unlink(missing_ok=True)
        file.write_bytes(_flipped(bytearray(whole), rng))
        name += " (cannot be written: flipped)"
    return file, name


def copy(tree: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tree, folder))
