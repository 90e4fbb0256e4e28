"""The report: one folder of static pages that opens from disk, without a network.

python -m dlbench.report build FOLDER FILES...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def build(paths: Sequence[Path], folder: Path) -> None:
    """Write the pages of all records in ``paths`` into ``folder``, whole or not at all.

    A folder that is there already is replaced if a report is all that it holds; `UserError` else,
    and where a file cannot be read.
    """
    # pandas and the statistics are loaded by who builds, not by who imports the package.
    from dlbench.report.site import building

    building.build(paths, folder)
