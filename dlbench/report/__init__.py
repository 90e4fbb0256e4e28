"""What becomes of measurements: records, tables, comparisons. Nothing here loads TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd


def load(paths: Iterable[Path | str]) -> pd.DataFrame:
    """The records in ``paths`` as a table, one row a launch of a workload: `tables.load`.

    pandas is imported by the call, not by who merely writes a record.
    """
    from dlbench.report import tables

    return tables.load(paths)
