"""``python -m dlbench.data``: each command once, on trees that are whole and on damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from dlbench.data import DATASETS, kind_of, scenes
from dlbench.data.__main__ import main


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_list_tells_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in DATASETS:
        kind = kind_of(name)
        assert f"{name}: {kind.task}" in text
        assert kind.source in text
        assert kind.layout
        assert kind.layout.splitlines()[0] in text


def test_info(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "vaihingen", str(miniature), "size=[128,128]"]) == 0
    text = capsys.readouterr().out
    assert "train    18 samples of (128, 128)" in text
    assert "near infrared, red, green; uint8" in text


def test_check_of_a_part_of_the_data_set(
    miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "vaihingen", str(miniature)]) == 0
    text = capsys.readouterr().out
    assert "missing: " in text
    assert "top_mosaic_09cm_area38.tif (test)" in text
    assert "every sample of these splits was read" in text


def test_check_names_each_damaged_file(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(miniature, tmp_path / "tree"))
    damaged = [root / f"top/top_mosaic_09cm_area{area}.tif" for area in (1, 15)]
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["check", "vaihingen", str(root), "size=[100,100]"]) == 1
    unusable = [x for x in capsys.readouterr().out.splitlines() if x.startswith("unusable")]
    for path in damaged:
        assert any(str(path) in line for line in unusable)
    assert len(unusable) == len(set(unusable))


def test_check_of_camvid(camvid_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (camvid_tree / "train/frame_3.png").unlink()
    assert main(["check", "camvid", str(camvid_tree)]) == 1
    text = capsys.readouterr().out
    assert f"missing: {camvid_tree / 'test.txt'}: the split 'test'" in text
    assert f"missing: {camvid_tree / 'train/frame_3.png'}" in text


def test_preview(miniature: Path, granulation_tree: Path, tmp_path: Path) -> None:
    for name, root in (("vaihingen", miniature), ("granulation", granulation_tree)):
        out = tmp_path / f"{name}.png"
        assert main(["preview", name, str(root), str(out), "samples=2"]) == 0
        with Image.open(out) as picture:
            assert min(picture.size) > 300


def test_stats(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "vaihingen", str(miniature), "split=val", "size=[100,100]"]) == 0
    text = capsys.readouterr().out
    assert "val: 18 samples, 180,000 pixels" in text
    assert "clutter" in text
    assert "near infrared" in text


def test_a_configuration_tells_the_data_set(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        f"data: {{name: vaihingen, root: {miniature}, size: [64, 64], options: {{labels: eroded}}}}"
    )
    assert main(["info", str(file)]) == 0
    assert "of (64, 64)" in capsys.readouterr().out


def test_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes.make_vaihingen, "__defaults__", (0, {"train": 2, "val": 1}, 256))
    assert main(["make", "vaihingen", str(tmp_path / "made"), "seed=3"]) == 0
    assert main(["info", "vaihingen", str(tmp_path / "made")]) == 0
    assert "train    2 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the commands are list, info"),
        (["look"], "the commands are list, info"),
        (["info", "atlantis"], "unknown data set 'atlantis'"),
        (["info", "vaihingen", "/nowhere"], "/nowhere, does not exist"),
        (["make", "atlantis", "out"], "no miniature of 'atlantis'"),
        (["preview", "vaihingen", "out.jpg"], "usage: .* OUT.png"),
        (["list", "vaihingen"], "unexpected vaihingen"),
        (["info", "vaihingen", "size=["], "not valid YAML"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    import re

    assert re.search(reason, capsys.readouterr().err)
