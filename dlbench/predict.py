"""Predict with a trained network: ``python -m dlbench.predict RUN INPUT ... [OUTPUT]``.

RUN is the folder of a training, or a ``.keras`` file. What its network has learnt says what is
read and written: velocities of a sequence of images (`dlbench.predict_velocity`), or a map of the
classes in a raster (`dlbench.predict_map`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dlbench import map_request, predict_map, predict_velocity, trained
from dlbench.config import ConfigError
from dlbench.errors import exit_status

COMMANDS = {"velocity": predict_velocity, "segmentation": predict_map}
USAGE = f"{predict_velocity.USAGE}\n   or {map_request.USAGE.removeprefix('usage: ')}"


def predict(arguments: list[str]) -> None:
    """Hand ``arguments`` to the command for the task that the run's network has learnt."""
    places = [a for a in arguments if "=" not in a]
    if len(places) < 2:
        raise ConfigError(USAGE)
    COMMANDS[trained.task(Path(places[0]))].predict(arguments)


def main(arguments: list[str]) -> int:
    """Predict and return the process's exit status: 2 for what the user can mend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return exit_status("dlbench.predict", lambda: predict(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
