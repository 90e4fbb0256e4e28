"""Every data set from an empty folder to a trained network, as a row of a table.

    python -m benchmarks.data_table OUT [NAME ...]

Of each: `python -m dlbench.data make`, `check` and `preview`, then two epochs of its configuration
on two ranks, as a user would type them. OUT, a folder, keeps the previews, what the commands said,
and the table, OUT/data.md.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dlbench.data import DATASETS
from dlbench.report import records

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {
    "vaihingen": "dlbench/default.yaml",
    "granulation": "configs/deepvel_granulation.yaml",
    "camvid": "configs/segnet_basic_camvid.yaml",
    "potsdam": "configs/segnet_potsdam_miniature.yaml",
}
"""Where it is not configs/segnet_NAME.yaml."""
MAKING = {"granulation": ["pairs={train: 200, val: 40}"]}
"""Options of `make`: of granulation, the whole takes minutes."""
COLUMNS = (
    "data set", "make, s", "check", "preview", "network, input", "samples", "loss, epoch 1",
    "epoch 2", "score", "train, s",
)  # fmt: skip
SAMPLES = re.compile(r"(\d+) training and (\d+) validation samples")
TIMEOUT_S = 1200.0


def row(name: str, out: Path) -> str:
    """Do it all, and say it. Raises `SystemExit` for a command that fails."""
    with tempfile.TemporaryDirectory() as scratch:
        root, folder = Path(scratch) / name, Path(scratch)
        log = out / f"{name}.txt"
        log.write_text("")
        data = [sys.executable, "-m", "dlbench.data"]
        making = _run([*data, "make", name, str(root), *MAKING.get(name, [])], folder, log)
        configuration = str(ROOT / CONFIGURATIONS.get(name, f"configs/segnet_{name}.yaml"))
        _run([*data, "check", configuration, str(root)], folder, log)
        checked = log.read_text().strip().rpartition("\n")[2]
        _run([*data, "preview", configuration, str(root), str(out / f"{name}.png")], folder, log)
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", "2", sys.executable]
        training = _run(
            [
                *launcher, "-m", "dlbench.train", configuration, f"data.root={root}", "name=two",
                "training.epochs=2", "training.evaluate_every=2",
            ],
            folder, log,
        )  # fmt: skip
        run = folder / "runs" / "two"
        (record,) = records.read_many([run / "record.json"])
        with (run / "metrics.csv").open() as file:
            first, last = csv.DictReader(file)
    workload = record.workload
    shape = " x ".join(map(str, workload.shape or ()))
    network = f"{workload.model}, {shape}".removesuffix(", ")
    score = next(key for key in ("val_miou", "val_rmse") if last.get(key))
    counts = SAMPLES.findall(log.read_text())
    samples = " and ".join(counts[0])
    return (
        f"| {name} | {making:.1f} | {checked} | [png]({name}.png) | {network} "
        f"| {samples} | {float(first['loss']):.3f} | {float(last['loss']):.3f} "
        f"| {score.removeprefix('val_')} {float(last[score]):.3f} | {training:.0f} |\n"
    )


def _run(words: list[str], folder: Path, log: Path) -> float:
    """The seconds of a command, whose output goes to the end of ``log``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.monotonic()
    with log.open("a") as file:
        file.write(f"$ {' '.join(words[words.index('-m') - 1 :])}\n")
        file.flush()
        done = subprocess.run(
            words, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}; see {log}")
    return time.monotonic() - started


def main(arguments: list[str]) -> int:
    """Make the table of all data sets, or of those named."""
    out = Path(arguments[0]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    table = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    for name in arguments[1:] or sorted(DATASETS):
        table += row(name, out)
        (out / "data.md").write_text(table)
        print(table.splitlines()[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
