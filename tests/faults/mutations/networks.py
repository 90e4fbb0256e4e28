"""Damage to networks as Keras saves them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from faults.mutations.any_file import Mutation
from faults.mutations.archives import archive
from faults.mutations.arrays import ZIP
from faults.mutations.texts import json_value


def _config_of_keras(
    members: list[tuple[zipfile.ZipInfo, bytes]], rng: np.random.Generator
) -> None:
    for at, (info, data) in enumerate(members):
        if info.filename == "config.json":
            members[at] = info, json.dumps(json_value(json.loads(data), rng)).encode()


def _other_network(kind: str) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        import keras

        image = keras.Input((None, None, 2))
        if kind == "of vectors":
            vector = keras.Input((4,))
            network = keras.Model(vector, keras.layers.Dense(3)(vector))
        elif kind == "of two images":
            other = keras.Input((None, None, 2))
            network = keras.Model([image, other], keras.layers.Add()([image, other]))
        elif kind == "with two outputs":
            outputs = [keras.layers.Conv2D(3, 1)(image), keras.layers.Conv2D(2, 1)(image)]
            network = keras.Model(image, outputs)
        else:
            network = keras.Sequential([keras.layers.Conv2D(3, 1)])
        network.save(file)

    return mutation


KERAS = ZIP | {
    "a configuration at odds": archive(_config_of_keras),
    "a configuration at odds too": archive(_config_of_keras),
    **{f"a network {k}": _other_network(k)
       for k in ("of vectors", "of two images", "with two outputs", "never built")},
}  # fmt: skip
