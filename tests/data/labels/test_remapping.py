from __future__ import annotations

from typing import Any

import pytest

from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.labels.aafc import ACI
from dlbench.data.labels.cdl import CDL
from dlbench.data.labels.remapping import remap


def test_names_codes_and_ranges() -> None:
    legend = CDL.legend(
        {"wheat": ["winter  WHEAT", 26], "woods": ["141-143", "63"], "bare": ["Barren"]},
        colors={"woods": "#006600"},
    )
    assert [(c.name, c.color) for c in legend.classes] == [
        ("wheat", (168, 112, 0)), ("woods", (0, 0x66, 0)), ("bare", (204, 191, 163)),
    ]  # fmt: skip
    used = {code: i for code, i in legend.index_of_code.items() if i != IGNORE}
    assert used == {24: 0, 26: 0, 141: 1, 142: 1, 143: 1, 63: 1, 65: 2, 131: 2}
    assert legend.index_of_code[1] == IGNORE
    assert legend.nothing == {0, 81} and 0 not in legend.index_of_code


def test_other_gathers_the_rest() -> None:
    legend = CDL.legend({"maize": [1], "clouds": [81]}, other="rest")
    assert [c.name for c in legend.classes] == ["maize", "clouds", "rest"]
    assert (legend.index_of_code[1], legend.index_of_code[81]) == (0, 1)
    assert {legend.index_of_code[code] for code in (5, 24, 254)} == {2}
    assert legend.nothing == {0}
    joined = CDL.legend({"maize": [1], "rest": [5]}, other="rest")
    assert joined.index_of_code[24] == joined.index_of_code[5] == 1


def test_the_preset_counts_double_cropped_winter_wheat() -> None:
    for year in (2005, 2007, 2018, 2024):
        legend = CDL.legend("belgiu_csillik_2018", years=[year])
        names = [c.name for c in legend.classes]
        assert names[:3] == ["winter wheat", "maize", "rice"] and names[-1] == "water"
        wheat = {c for c, i in legend.index_of_code.items() if i == 0}
        assert wheat == {24, 26}
        assert legend.index_of_code[83] == legend.index_of_code[111] == names.index("water")


@pytest.mark.parametrize(
    ("mapping", "options", "message"),
    [
        ({"wheat": ["Wintr Wheat"]}, {}, r"'Wintr Wheat' of class 'wheat' .* Winter Wheat"),
        ({"wheat": ["wheat"]}, {}, "Durum Wheat, Spring Wheat, Winter Wheat"),
        ({"wheat": [40]}, {}, "source 40 .*the nearest: 38, 39, 41"),
        ({"wheat": ["7-9"]}, {}, "source '7-9'.* no entry"),
        ({"wheat": [True]}, {}, "neither a name, a code nor a range"),
        ({"wheat": "Winter Wheat"}, {}, "is 'Winter Wheat'; give a list"),
        ({"wheat": []}, {}, r"is \[\]; give a list"),
        ({False: [1]}, {}, "class name False .* quotes"),
        ({}, {}, r"mapping is \{\}.*belgiu_csillik_2018"),
        ("belgiu", {}, "unknown class mapping 'belgiu'; presets: belgiu_csillik_2018"),
        ({"a": [1], "b": ["1-3"]}, {}, r"code 1 \(Corn\) is a source of both 'a' and 'b'"),
        ({"a": [1]}, {"other": False}, "other is False"),
        ({"a": [1]}, {"colors": {"b": "#000000"}}, "colors names 'b'.*its classes: a"),
        ({"a": [1]}, {"colors": {"a": "red"}}, "color of 'a' is 'red'"),
    ],
)
def test_what_cannot_be_meant(mapping: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        remap(CDL.entries(), mapping, **options)


def test_a_preset_of_another_product() -> None:
    with pytest.raises(DataError, match="'Dbl Crop WinWht/Soybeans'"):
        ACI.legend("belgiu_csillik_2018")


def test_a_class_that_the_year_never_shows() -> None:
    with pytest.raises(DataError, match=r"'lakes' .* CDL 2018 .*83 Water \(to 2007\).*111 Open"):
        CDL.legend({"lakes": [83]}, years=[2018])
    CDL.legend({"lakes": [83]}, years=[2006, 2018])
