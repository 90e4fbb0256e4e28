"""The recipes for clusters, without clusters: the commands that come out of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from dlbench import config

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "configs/clusters"


def stand_in(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def test_slurm_starts_as_many_ranks_as_tasks_on_all_nodes(tmp_path: Path) -> None:
    """scontrol and horovodrun are stand-ins; the supervisor is real."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n')
    stand_in(programs / "python", f'exec "{sys.executable}" "$@"')
    known = '[[ "$*" == "show hostnames node[1-2]" ]]'
    stand_in(programs / "scontrol", f"{known} && printf 'node1\\nnode2\\n'")
    stand_in(programs / "horovodrun", "printf '%s\\n' \"$@\" > command")
    submitted = os.environ | {
        "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS_PER_NODE": "4", "SLURM_NTASKS": "8", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    arguments = ["configs/segnet_vaihingen.yaml", "data.root=/data/with space"]
    subprocess.run(
        ["bash", str(CLUSTERS / "slurm.sbatch"), *arguments], env=submitted, check=True, cwd="/"
    )
    command = (tmp_path / "command").read_text().splitlines()
    assert command == [
        "-np", "8", "-H", "node1:4,node2:4", "python", "-m", "dlbench.train", *arguments,
    ]  # fmt: skip


def test_slurm_asks_for_what_its_ranks_need() -> None:
    text = (CLUSTERS / "slurm.sbatch").read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    asked = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert text.index("set -euo pipefail") > text.rindex("#SBATCH"), "Slurm reads no further"


def test_kubernetes_starts_as_many_ranks_as_slots() -> None:
    job = yaml.safe_load((CLUSTERS / "mpijob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    replicas = job["spec"]["mpiReplicaSpecs"]
    (launcher,) = replicas["Launcher"]["template"]["spec"]["containers"]
    (worker,) = replicas["Worker"]["template"]["spec"]["containers"]
    slots = job["spec"]["slotsPerWorker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == slots
    words = launcher["command"] + launcher["args"]
    started = words.index("horovodrun")
    assert words[:3] == ["python", "-m", "dlbench.supervise"]
    assert words[started + 1 : started + 3] == ["-np", str(slots * replicas["Worker"]["replicas"])]
    assert job["spec"]["launcherCreationPolicy"] == "WaitForWorkersReady"
    assert worker["readinessProbe"]["tcpSocket"]["port"] == 22
    assert all(isinstance(word, str) for word in words)
    train = words.index("dlbench.train")
    assert words[train - 2 : train] == ["python", "-m"]
    arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    assert config.load(arguments[train + 1 :]).output == "/runs"
    for pod in replicas.values():
        names = {one["name"] for one in pod["template"]["spec"]["volumes"]}
        (container,) = pod["template"]["spec"]["containers"]
        assert {one["name"] for one in container["volumeMounts"]} == names
