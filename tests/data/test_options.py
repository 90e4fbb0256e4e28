"""Options of the wrong type are told before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dlbench.data import DATASETS, DataError, build, kind_of
from dlbench.data.__main__ import main
from dlbench.data.miniatures import make
from dlbench.data.options import of_kind, require

TEXTS = "{text: [text, ...], ...} or null"


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("plantations", "minimum_percent", "60", "number or null"),
        ("plantations", "stride", "8", "whole number or null"),
        ("plantations", "stride", 8.0, "whole number or null"),
        ("plantations", "stride", True, "whole number or null"),
        ("plantations", "scenes", ["a"], TEXTS),
        ("plantations", "scenes", {"train": 3}, TEXTS),
        ("plantations", "scenes", {"train": "a"}, TEXTS),
        ("plantations", "bands", ["B02", 4], "[text, ...]"),
        ("plantations", "bands", "B02", "[text, ...]"),
        ("plantations", "aliases", ["x"], "{text: text, ...} or null"),
        ("plantations", "labels", 5, "text or null"),
        ("plantations", "by", ["type"], "text"),
        ("plantations", "mask_clouds", "no", "true or false"),
        ("plantations", "harmonized", "no", "true or false or by_date or null"),
        ("vaihingen", "areas", {"train": 1}, "{text: [any value, ...], ...} or null"),
        ("burned_area", "clouds", "x", "true or false"),
        ("burned_area", "year", "2018", "whole number or null"),
    ],
)
def test_a_value_of_the_wrong_type(
    tmp_path: Path, name: str, option: str, value: Any, allowed: str
) -> None:
    told = f"data.options.{option} is {value!r}, allowed: {allowed}"
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        build(name, tmp_path, (64, 64), **{option: value})


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (60, float),
        (None, float | None),
        (["B02"], Sequence[str]),
        (("B02",), Sequence[str]),
        ({"train": ["a"]}, Mapping[str, Sequence[str]]),
        ({"train": [1, "2_10"]}, Mapping[str, Sequence[Any]]),
        ([64, 96], tuple[int, int]),
        ("all", str | date | Sequence[Any]),
        (date(2022, 4, 21), str | date | Sequence[Any]),
        ([date(2022, 4, 21), 20220421], str | date | Sequence[Any]),
    ],
)
def test_what_yaml_has_for_a_type(value: Any, allowed: Any) -> None:
    require("option", value, allowed)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_defaults_are_of_their_types(name: str) -> None:
    for option, known in of_kind(kind_of(name)).items():
        require(option, known.default, known.annotation)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 100}, "size is 100, allowed: [whole number, whole number]"),
        ({"size": [100, 120, 3]}, "size is [100, 120, 3], allowed: [whole number, whole number]"),
        ({"pictures": 3}, "pictures is 3, allowed: {train, val or test: whole number from 1, .."),
        (
            {"pictures": {"train": "x"}},
            "pictures is {'train': 'x'}, allowed: {train, val or test: ",
        ),
        ({"pictures": {"train": 0}}, "pictures is {'train': 0}, allowed: {train, val or test: who"),
        ({"pictures": {"all": 2}}, "pictures is {'all': 2}, allowed: {train, val or test: whole "),
        ({"seed": -1}, "seed is -1, allowed: whole number from 0"),
        ({"seed": "a"}, "seed is 'a', allowed: whole number"),
        ({"sides": 3}, "the miniature of camvid has no option sides; its options: seed, pictures"),
    ],
)
def test_a_miniature_that_cannot_be(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        make("camvid", tmp_path / "streets", **options)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("burned_area", {"scene_size": 0}, "scene_size is 0, allowed: whole number from 1"),
        ("land_cover", {"size": 7}, "size is 7 pixels of 10 m, allowed: multiples of 6 from 6"),
        ("potsdam", {"tile_size": 0}, "tile_size is 0, allowed: whole number from 1"),
        ("potsdam", {"tiles": [210]}, "tiles is [210], allowed: ['ROW_COLUMN', ...]"),
        ("vaihingen", {"tiles": {"all": 1}}, "tiles is {'all': 1}, allowed: {train, val or test"),
        ("vaihingen", {"seed": -1}, "seed is -1, allowed: whole number from 0"),
    ],
)
def test_each_maker_has_its_limits(
    tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        make(name, tmp_path / "made", **options)


@pytest.mark.parametrize(
    ("command", "option", "told"),
    [
        ("info", "size=256", "size is 256, allowed: [whole number from 1, whole number from 1] or"),
        ("info", "size=[a,b]", "size is ['a', 'b'], allowed: [whole number from 1, whole number"),
        ("preview", "samples=0", "samples is 0, allowed: whole number from 1"),
        ("preview", "samples=x", "samples is 'x', allowed: whole number from 1"),
        ("prepare", "split=3", "split is 3, allowed: text or [text, ...] or null"),
    ],
)
def test_a_command_with_a_wrong_value(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    command: str, option: str, told: str,
) -> None:  # fmt: skip
    out = {"info": [], "preview": [f"{tmp_path}/out.png"], "prepare": [f"{tmp_path}/out"]}[command]
    assert main([command, "vaihingen", str(miniature), *out, option]) == 2
    assert told in capsys.readouterr().err
