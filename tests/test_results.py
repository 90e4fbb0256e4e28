"""What a finished run leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from dlbench import models, results
from dlbench.runs import RunFolder


def test_the_exported_network_takes_values_as_the_trained_one_does(tmp_path: Path) -> None:
    """Those of a satellite, which do not end at 255."""
    options: dict[str, Any] = {"width": 0.05}
    value_range = (0.0, 1e4)
    network = models.build("segnet", (None, None, 3), 2, value_range=value_range, **options)
    session: Any = SimpleNamespace(
        experiment=SimpleNamespace(model=SimpleNamespace(name="segnet", options=options)),
        network=network,
        dataset=SimpleNamespace(outputs=("field", "other"), value_range=value_range),
    )
    folder = RunFolder(tmp_path)
    results.export(session, folder)
    image = np.random.default_rng(0).uniform(0, 1e4, (1, 32, 32, 3)).astype(np.float32)
    found = keras.models.load_model(folder.model)(image, training=False)
    np.testing.assert_array_equal(found, network(image, training=False))
