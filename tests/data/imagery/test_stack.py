from __future__ import annotations

import pytest

from dlbench.data.imagery.stack import acquired, dates_in, days_of


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("LC08_L2SP_044033_20180901_20200828_02_T1", "20180901"),
        ("LT05_L2SP_044033_19990901_20200828_02_T1_stack", "19990901"),
        ("savanna_LE07_L1TP_198030_20010312_20200917_02_T1", "20010312"),
        ("S2A_MSIL1C_20180707T102021_N0500_R065_T32TNM_20230725T173900", "20180707"),
        ("S2_HARMONIZED_20181231T103431_20190101T103428_T32TNM", "20181231"),
        ("togo_2019-02-06_2020-02-01", "20200201"),
        ("20180901_20200828", "20200828"),
        ("T32TNM_20170226T102458", "20170226"),
        ("lake_2018", None),
    ],
)
def test_the_day_on_which_a_product_was_taken(name: str, day: str | None) -> None:
    assert acquired(name) == day


def test_days_on_which_something_may_have_been_taken() -> None:
    assert days_of("20170226T102021_20170301T102458_T32TNM") == ["20170226"]
    assert days_of("togo_2019-02-06_2020-02-01") == ["20190206", "20200201"]


def test_landsat_is_older_than_sentinel2() -> None:
    assert dates_in("1984-03-16_19991231_19790101") == ["19840316", "19991231"]
