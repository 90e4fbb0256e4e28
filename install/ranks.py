"""How many ranks `make train` starts: two, but one where there is one GPU, which ranks don't share.

.venv/bin/python -m install.ranks
"""

import os

from dlbench import gpus

MOST = 2


def number(devices: int) -> int:
    """Return how many ranks to start where so many GPUs are shown."""
    return min(devices, MOST) or MOST


if __name__ == "__main__":
    found = gpus.describe(os.environ)
    print(number(len(found["devices"]) if found else 0))
