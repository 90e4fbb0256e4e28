"""Joules from a fake tree of sysfs and a stand-in for NVIDIA's library."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dlbench.bench import energy
from dlbench.bench.energy import EnergyMeter, of_all_nodes

RANGE_UJ = 262_143_328_850


class Tree:
    """Zones of RAPL; `set` gives one its counter in joules."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def set(self, zone: str, name: str, joules: float) -> None:
        folder = self.root / "sys/class/powercap" / zone
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        (folder / "energy_uj").write_text(f"{round(joules * 1e6)}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    for zone, name in (
        ("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "package-1"), ("intel-rapl:2", "psys"),
    ):  # fmt: skip
        made.set(zone, name, 1000.0)
    return made


def test_packages_and_memory_are_added_but_no_part_twice(tree: Tree) -> None:
    meter = EnergyMeter(root=tree.root)
    assert meter.sources == ["package-0", "dram", "package-1"]
    with meter:
        tree.set("intel-rapl:0", "package-0", 1030.0)
        tree.set("intel-rapl:0:0", "core", 1020.0)
        tree.set("intel-rapl:0:1", "dram", 1004.0)
        tree.set("intel-rapl:1", "package-1", 1000.5)
        tree.set("intel-rapl:2", "psys", 1100.0)
    assert meter.joules == pytest.approx(34.5)


def test_a_counter_that_starts_anew(tree: Tree) -> None:
    meter = EnergyMeter(root=tree.root)
    tree.set("intel-rapl:0", "package-0", RANGE_UJ / 1e6 - 2.0)
    meter.start()
    tree.set("intel-rapl:0", "package-0", 3.0)
    meter.stop()
    assert meter.joules == pytest.approx(5.0)


def test_only_what_is_measured_counts(tree: Tree) -> None:
    """Two stretches with an evaluation between them."""
    meter = EnergyMeter(root=tree.root)
    for begun, ended in ((1100.0, 1110.0), (1500.0, 1507.0)):
        tree.set("intel-rapl:0", "package-0", begun)
        meter.start()
        tree.set("intel-rapl:0", "package-0", ended)
        meter.stop()
    assert meter.joules == pytest.approx(17.0)
    meter.stop()
    assert meter.joules == pytest.approx(17.0)


def test_no_round_is_missed_in_a_long_stretch(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    meter = EnergyMeter(root=tree.root)
    meter.start()
    joules = 1000.0
    for _ in range(60):  # at 10 kW: more than twice around
        now[0] += energy.UPDATE_S + 0.1
        joules += 10_000.0
        tree.set("intel-rapl:0", "package-0", joules % (RANGE_UJ / 1e6))
        meter.start()
    meter.stop()
    assert meter.joules == pytest.approx(600_000.0)


def test_what_cannot_be_read_is_unknown(tmp_path: Path, tree: Tree) -> None:
    assert EnergyMeter(root=tmp_path / "nothing").joules is None
    for zone in ("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"):
        file = tree.root / "sys/class/powercap" / zone / "energy_uj"
        file.unlink()
        file.mkdir()  # unreadable, for root too
    meter = EnergyMeter(root=tree.root)
    with meter:
        pass
    assert meter.joules is None
    assert meter.sources == []


def test_the_counter_of_a_gpu(nvml: ModuleType, tmp_path: Path) -> None:
    nvml.MILLIJOULES[:] = [5_000_000, 5_000_000, 5_012_500]
    meter = EnergyMeter(gpus=["0", "1", "9"], root=tmp_path)
    assert meter.sources == ["gpu 0"], "one device has no counter, one does not exist"
    with meter:
        pass
    assert meter.joules == pytest.approx(12.5)


def test_each_node_counts_once() -> None:
    ranks: list[dict[str, Any]] = [{energy.NODE: 3.0}, {}, {energy.NODE: 4.0}, {}]
    assert of_all_nodes(ranks) == 7.0
    assert ranks == [{}] * 4
    assert of_all_nodes([{energy.NODE: 3.0}, {energy.NODE: None}]) is None
    assert of_all_nodes([{}]) is None
    assert EnergyMeter.of_node(1, 2) is None
