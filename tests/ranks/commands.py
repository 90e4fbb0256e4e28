"""Several of our commands in one process: ``python commands.py FILE`` with [[module, arguments]].

Writes [{"status", "stdout", "stderr"}] over FILE.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(module: str, arguments: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = importlib.import_module(module).main(arguments)
    return {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(json.dumps([run(*command) for command in json.loads(file.read_text())]))
