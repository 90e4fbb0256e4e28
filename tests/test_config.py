"""Configurations: what is accepted, and what the user is told otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlbench import config, models

ROOT = Path(__file__).parents[1]
CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), ROOT / "dlbench" / "default.yaml"]


def test_no_argument_gives_the_embedded_default() -> None:
    experiment = config.load([])
    assert (experiment.model.name, experiment.data.name) == ("segnet", "vaihingen")
    assert experiment.data.root is None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_say_how_to_run_them(path: Path) -> None:
    experiment = config.load([str(path)])
    models.check(experiment.model.name, experiment.model.options)
    header = path.read_text().split("\nname:")[0]
    argument = f" configs/{path.name}" if path.parent.name == "configs" else "\n"
    assert f"python -m dlbench.train{argument}" in header
    assert "Hardware:" in header


def test_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("training: {epochs: 3, batch: 2}\n")
    experiment = config.load([str(file), "training.batch=8", "optimizer.learning_rate=1e-2"])
    assert (experiment.training.epochs, experiment.training.batch) == (3, 8)
    assert experiment.optimizer.learning_rate == 0.01


def test_resolved_yaml_is_read_back_equal(tmp_path: Path) -> None:
    experiment = config.load(["data.size=[64, 96]", "name=x", "training.early_stop=3"])
    file = tmp_path / "resolved.yaml"
    file.write_text(experiment.to_yaml())
    assert config.load([str(file)]) == experiment


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("training.bach=3", "known here: epochs, batch"),
        ("trainig.batch=3", "known here: name, output"),
        ("data.augmentation.flip=true", "flip_left_right"),
        ("training.precision=fp8", "'float32', 'mixed_bfloat16' or 'mixed_float16'"),
        ("training.batch=0", "greater than 0"),
        ("training.batch=many", "integer"),
        ("training=3", "training"),
        ("training.batch.x=3", "training.batch"),
        ("training.recompute=stages", "training.recompute: Input should be False, True or"),
        ("data.size=[0, 4]", "greater than 0"),
        ("data.augmentation.scale=[2, 1]", "smallest <= largest"),
        ("optimizer.schedule=step", "step_epochs"),
        ("training.class_weights.mode=given", "values"),
        ("name=../escape", "folder name"),
        ("data.size=[1", "not valid YAML"),
        ("name=2026-02-30", "the value in 'name=2026-02-30' is not valid YAML: day is out of"),
        ("seed=" + "9" * 5000, "is not valid YAML: Exceeds the limit"),
        ("name=" + "[" * 5000, "is not valid YAML"),
    ],
)
def test_bad_values_are_explained(argument: str, told: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.load([argument])
    assert told in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="cannot read.*none.yaml"):
        config.load([str(tmp_path / "none.yaml")])
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(config.ConfigError, match="holds a list"):
        config.load([str(listing)])
    hostile = tmp_path / "hostile.yaml"
    hostile.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(config.ConfigError, match="not valid YAML"):
        config.load([str(hostile)])
    with pytest.raises(config.ConfigError, match="one configuration file"):
        config.load(["a.yaml", "b.yaml"])


def test_an_unset_variable_in_the_data_folder_is_named() -> None:
    experiment = config.load(["data.root=$DLBENCH_NO_SUCH_VARIABLE/x"])
    with pytest.raises(config.ConfigError, match="DLBENCH_NO_SUCH_VARIABLE is not set"):
        experiment.data.resolved_root()


def test_model_options_are_checked_by_name() -> None:
    with pytest.raises(config.ConfigError, match="known: segnet, segnet_basic"):
        models.check("segnett", {})
    with pytest.raises(config.ConfigError, match="known options: width, rescale"):
        models.check("segnet", {"depth": 3})
    with pytest.raises(config.ConfigError, match="dropout"):
        models.check("segnet", {"dropout": 0.5})
    assert models.check("segnet_bayesian", {})["dropout"] == 0.5


def test_mistakes_are_told_before_tensorflow_is_loaded() -> None:
    script = (
        "import sys\n"
        "from dlbench.train import main\n"
        "assert main(['training.bach=3']) == 2\n"
        "assert main(['model.name=segnett']) == 2\n"
        "assert main(['data.name=camvid', 'data.root=/nowhere']) == 2\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("dlbench.train (rank 0):") == 3


def test_synchronised_statistics_are_not_recomputed() -> None:
    for parts in (True, "normalization"):
        sections = [f"training.recompute={parts}", "distributed.batch_norm=sync"]
        with pytest.raises(config.ConfigError, match=r"distributed\.batch_norm=local"):
            config.load(sections)
        assert config.load(sections[:1]).training.recompute == parts


@pytest.mark.parametrize("compression", ["fp16", "bf16"])
def test_compressed_gradients_are_not_summed_by_host(compression: str) -> None:
    both = [f"distributed.compression={compression}", "distributed.hierarchical=true"]
    told = (
        f"distributed.hierarchical=true with distributed.compression={compression}: .*"
        "take distributed.compression=none, or leave hierarchical=false"
    )
    with pytest.raises(config.ConfigError, match=told) as error:
        config.load(both)
    assert len(str(error.value).splitlines()) == 2, "one problem"
    for one in both:
        assert config.load([one]).distributed
