"""What the launcher has told this process of its job, by the environment alone."""

from __future__ import annotations

import os

from dlbench.config import ConfigError

OTHER_LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": "mpirun",  # Open MPI
    "PMI_SIZE": "mpirun",  # MPICH, Intel MPI
    "SLURM_STEP_NUM_TASKS": "srun",
}
"""By which variable each tells its processes how many they are."""


def size() -> int:
    """Number of ranks that ``horovodrun`` announced; 1 without it. Reads the environment alone.

    `ConfigError` where another launcher started several processes: a Horovod that knows Gloo, not
    MPI, would make each of them rank 0 of 1.
    """
    if size := os.environ.get("HOROVOD_SIZE"):
        return int(size)
    for variable, launcher in OTHER_LAUNCHERS.items():
        count = os.environ.get(variable, "")
        if count.isdigit() and int(count) > 1:
            raise ConfigError(
                f"{launcher} tells of {count} processes ({variable}), but ranks are what Horovod's "
                f"own launcher starts: horovodrun -np {count} ... (configs/clusters/ has recipes); "
                f"where this one, or each, is to be a run by itself, unset {variable}"
            )
    return 1


def local_size() -> int:
    """Number of ranks on this host, likewise."""
    return int(os.environ.get("HOROVOD_LOCAL_SIZE") or 1)
