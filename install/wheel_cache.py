"""Wheels that were compiled here before, kept outside the checkout and checked before use.

Each has a folder of its own, named by a key of everything that shaped it. DLBENCH_WHEEL_CACHE is
another place than ~/.cache/dlbench/wheels, or `off`. The cache is never needed: where it cannot be
read or written, the wheel is compiled.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def folder_of(name: str, inputs: Mapping[str, str], environ: Mapping[str, str]) -> Path | None:
    """Return where the wheel made of `inputs` is kept, or None where the cache is off."""
    setting = environ.get("DLBENCH_WHEEL_CACHE", "")
    if setting == "off":
        return None
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "/tmp")) / ".cache")
    root = Path(setting) if setting else Path(home) / "dlbench" / "wheels"
    key = hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()[:16]
    return root / f"{name}-{key}"


def find(folder: Path) -> Path | None:
    """Return the wheel kept in `folder`, or None where there is none that passes its checksum."""
    try:
        record = json.loads((folder / "wheel.json").read_text())
        wheel = folder / str(record["wheel"])
        intact = hashlib.sha256(wheel.read_bytes()).hexdigest() == record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not intact:
        print(f"   {wheel} fails its checksum and is compiled anew", flush=True)
        return None
    return wheel


def keep(wheel: Path, inputs: Mapping[str, str], folder: Path) -> None:
    """Keep a wheel with its checksum, both or neither; say so where that is impossible."""
    record = {
        "wheel": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "inputs": dict(inputs),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as writing:
            complete = Path(writing) / folder.name
            complete.mkdir()
            shutil.copy(wheel, complete)
            (complete / "wheel.json").write_text(json.dumps(record, indent=1, sort_keys=True))
            if folder.exists():  # What was there failed its checksum.
                folder.rename(Path(writing) / "discarded")
            complete.rename(folder)
    except OSError as error:
        print(f"   the wheel is not kept for the next time: {error}", flush=True)
