"""Setup files: what they make a launch run, and how they are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dlbench.bench import setups
from dlbench.config import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A setup file, and a checkout's folder to read it in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path / "setup.yaml"


def test_the_examples_are_setups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = sorted((ROOT / "configs" / "setups").glob("*.yaml"))
    found = {one.name: one for one in setups.load_distinct(files)}
    assert set(found) == {"base", "no oneDNN", "one thread"}
    assert found["no oneDNN"].environment()["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert found["one thread"].compute_threads == 1


def test_a_name_alone_is_the_shell_that_launches(written: Path) -> None:
    written.write_text("name: A100, driver 550\n")
    setup = setups.load(written)
    assert setup.environment() == dict(os.environ)
    assert setup.folder_name == "A100-driver-550"
    assert setup.command(Path("/tmp/x"), ["-k", "unpool"]) == [
        sys.executable, "-m", "pytest", "benchmarks/", "--benchmark-json=/tmp/x/benchmarks.json",
        "--setup-name=A100, driver 550", "-k", "unpool",
    ]  # fmt: skip


def test_all_that_a_setup_says_reaches_its_launch(written: Path) -> None:
    python = written.with_name("python")
    python.symlink_to(sys.executable)
    written.write_text(
        "name: x\npython: python\ncompute_threads: 1\ndevices: [1, 0]\n"
        'variables: {KERAS_X: "010"}\n'
    )
    setup = setups.load(written)
    assert setup.python == python, "the link of a virtual environment must stay"
    assert "--compute-threads=1" in setup.command(Path("/tmp"), [])
    environment = setup.environment()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["KERAS_X"]) == ("1,0", "010")
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_no_devices_hide_all(written: Path) -> None:
    written.write_text("name: x\ndevices: []\n")
    assert setups.load(written).environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_an_experiment_is_trained_on_its_ranks(written: Path) -> None:
    python = written.with_name("python")
    for name in ("python", "horovodrun"):
        written.with_name(name).symlink_to(sys.executable)
    written.write_text(
        "name: x\npython: python\nranks: 2\ncompute_threads: 3\nexperiment: [training.epochs=2]\n"
    )
    command = setups.load(written).command(Path("/out: of #way"), [])
    assert command == [
        str(python.with_name("horovodrun")), "-np", "2", str(python), "-m", "dlbench.train",
        "training.epochs=2", 'output="/out: of #way"', "name=launch", "resume=false",
        "training.threads=3",
    ]  # fmt: skip
    from dlbench import config

    assert config.load(command[6:]).output == "/out: of #way"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("variables: {}\n", "name: it is needed"),
        ("name: x\nthreads: 1\n", "threads: unknown key; known here: name, variables, python"),
        ("name: x\nvariables: {TF_X: 0}\n", 'text in quotes: TF_X: "..."'),
        ('name: x\nvariables: {"A=B": "0"}\n', "'A=B' is not the name of a variable"),
        ("name: x\ncompute_threads: 0\n", "compute_threads: Input should be greater than 0"),
        ("name: x\ndevices: [-1]\n", "devices.0: Input should be greater than or equal to 0"),
        ("name: ../..\n", "letters or digits"),
        ('name: "a\\nb"\n', "one line"),
        (f"name: {'x' * 61}\n", "at most 60 characters"),
        ("name: x\nranks: 2\n", "ranks goes with experiment"),
        ('name: x\ndevices: [0]\nvariables: {CUDA_VISIBLE_DEVICES: "1"}\n', "not both"),
        ("name: x\npython: /nowhere/bin/python\n", "runs /nowhere/bin/python, which is no"),
        ("name: x\npython: benchmarks\n", "benchmarks, which is no interpreter"),
        ("name: x\ncheckout: /nowhere\n", "launches in /nowhere, which has no benchmarks/"),
        ("name: x\nexperiment: [training.epoch=2]\n", "training.epoch: unknown key"),
        ("name: [x\n", "is not valid YAML"),
        ("!!python/object/apply:os.system [true]\n", "is not valid YAML"),
        ("- x\n", "holds a list"),
    ],
)
def test_what_is_wrong_is_told(written: Path, text: str, told: str) -> None:
    written.write_text(text)
    with pytest.raises(ConfigError) as error:
        setups.load(written)
    assert told in str(error.value)
    if "unknown key" not in told or "threads" in text:
        assert "setup" in str(error.value)


def test_a_missing_launcher_is_told(written: Path) -> None:
    written.with_name("python").symlink_to(sys.executable)
    written.write_text("name: x\npython: python\nranks: 2\nexperiment: []\n")
    with pytest.raises(ConfigError, match=r"has 2 ranks, but .*/horovodrun is missing"):
        setups.load(written)


def test_setups_that_would_share_a_folder_are_refused(written: Path) -> None:
    other = written.with_name("other.yaml")
    written.write_text("name: 1 thread\n")
    other.write_text("name: 1  thread\n")
    with pytest.raises(ConfigError, match=r"setup.yaml and .*other.yaml are both named"):
        setups.load_distinct([written, other])


def test_setups_that_differ_in_nothing_but_the_name_are_two(written: Path) -> None:
    other = written.with_name("other.yaml")
    written.write_text("name: A\n")
    other.write_text("name: B\n")
    first, second = setups.load_distinct([written, other])
    assert first.folder_name != second.folder_name
    assert first == second.model_copy(update={"name": "A"})
