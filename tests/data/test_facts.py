"""A run folder keeps what the data set tells of itself."""

from __future__ import annotations

from pathlib import Path

from dlbench.data.camvid import CamVid
from dlbench.data.facts import facts
from dlbench.runs import RunFolder


def test_facts_come_back_as_they_were_told(street: Path, tmp_path: Path) -> None:
    dataset, folder = CamVid(street), RunFolder(tmp_path)
    assert folder.facts() is None
    folder.write_json(folder.dataset, facts(dataset).model_dump(mode="json"))
    found = folder.facts()
    assert found is not None
    assert (found.name, found.task, found.dtype) == ("camvid", "segmentation", "uint8")
    assert found.classes == dataset.classes
    assert found.bands == dataset.bands
    assert found.outputs == dataset.outputs
    assert found.value_range == (0.0, 255.0)
    assert (found.ground_sampling_distance, found.cadence_s) == (None, None)
    assert found.licence == CamVid.licence
