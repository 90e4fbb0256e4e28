"""Every data set from an empty folder to a trained network, as a row of a table.

    python -m benchmarks.data_table OUT [NAME ...]

Of each: `python -m dlbench.data make`, `check` and `preview`, then two epochs of its configuration
on two ranks, as a user would type them. OUT, a folder, keeps the previews, what the commands said,
and the table, OUT/data.md.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import launching
from dlbench.data import DATASETS
from dlbench.report import records

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
    """Do it all, and say it. Raises `launching.JobError` for a command that fails."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, log = Path(scratch), out / f"{name}.txt"
        root = str(folder / name)
        log.write_text("")

        def run(*words: str, ranks: int = 1) -> float:
            """The seconds of a command, whose output goes to the end of ``log``."""
            started = time.monotonic()
            output = launching.run(["-m", *words], ranks, TIMEOUT_S, folder)
            with log.open("a") as file:
                file.write(f"$ python -m {' '.join(words)}\n{output}")
            return time.monotonic() - started

        making = run("dlbench.data", "make", name, root, *MAKING.get(name, []))
        given = CONFIGURATIONS.get(name, f"configs/segnet_{name}.yaml")
        configuration = str(launching.ROOT / given)
        run("dlbench.data", "check", configuration, root)
        checked = log.read_text().strip().rpartition("\n")[2]
        run("dlbench.data", "preview", configuration, root, str(out / f"{name}.png"))
        training = run(
            "dlbench.train", configuration, f"data.root={root}", "name=two", "training.epochs=2",
            "training.evaluate_every=2", ranks=2,
        )  # fmt: skip
        place = folder / "runs" / "two"
        (record,) = records.read_many([place / "record.json"])
        with (place / "metrics.csv").open() as file:
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
