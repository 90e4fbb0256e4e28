"""One process, one network: ours or a twin, stepped on one batch.

    python -m benchmarks.twin_run torch_tuned segnet float32 train 180x240 2 10 2

that is PEER NETWORK PRECISION MODE SIZE BATCH STEPS THREADS, prints one line of JSON: seconds of
each step after the warm-up, the loss of every step, the warm-up included, and the peak memory.
TensorFlow and PyTorch are never loaded together. What a peer is given:

ours            batch normalisation recomputed (`training.recompute`) in training in bfloat16, where
                we should need more memory than PyTorch
ours, keras     TensorFlow with oneDNN on every processor, as dlbench sets it (by itself it uses
                oneDNN only on those with VNNI, and plain Keras would be slower on others)
torch           PyTorch and the allocator as they come
torch_tuned     the allocator keeps what is freed, as TensorFlow's does with oneDNN
convolutions    no twin: the network's convolutions alone, see `twin_limit`
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import twin_cases
from benchmarks.pooling_torch import ALLOCATORS
from benchmarks.twin_cases import Case, Weights
from dlbench.bench.memory import PeakMemory

ROOT = Path(__file__).parents[1]
PEERS = ("ours", "torch", "torch_tuned", "keras", "convolutions")
WARMUP_STEPS = 3
"""The first traces and allocates; oneDNN and the allocators settle within the others."""
Step = Callable[[], Any]
Launched = dict[str, Any]
"""What `measure` finds in a process."""


def our_training_step(
    case: Case, weights: Weights, image: np.ndarray, target: np.ndarray, optimizer: Any = None
) -> tuple[Any, Callable[[], float]]:
    """The network, and the step that `dlbench.train` repeats, which returns its loss."""
    import tensorflow as tf

    from dlbench.optimizers import Adam

    network = _our_network(case, weights)
    trainer = _our_trainer(case, network)
    optimizer = optimizer or Adam(twin_cases.LEARNING_RATE)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    batches = itertools.repeat((tf.constant(image), tf.constant(target)))

    def step() -> float:
        trainer.reset_metrics()  # otherwise the loss is the mean of all steps so far
        return float(trainer.step(batches)["loss"])

    return network, step


def our_inference(case: Case, weights: Weights, image: np.ndarray) -> Callable[[], np.ndarray]:
    """Class probabilities or velocities, (batch, height, width, outputs) float32."""
    import tensorflow as tf

    from dlbench.prediction import Predictor

    activation = tf.nn.softmax if case.network == "segnet" else tf.identity
    predictor = Predictor(_our_network(case, weights), activation, frozen=True)
    tensor = tf.constant(image)
    return lambda: predictor(tensor)[0].numpy()


def _our_network(case: Case, weights: Weights) -> Any:
    from benchmarks import twin_keras
    from dlbench import models

    inputs, outputs = twin_cases.CHANNELS[case.network]
    network = models.build(case.network, (None, None, inputs), outputs, **case.options)
    twin_keras.load(network, weights)
    return network


def _our_trainer(case: Case, network: Any) -> Any:
    from dlbench.distributed import SingleProcess
    from dlbench.tasks.segmentation import CrossEntropy
    from dlbench.tasks.velocity import SquaredError
    from dlbench.training import Trainer

    segnet = case.network == "segnet"
    loss = CrossEntropy(twin_cases.CLASS_WEIGHTS) if segnet else SquaredError()
    recompute = case.precision == "mixed_bfloat16"
    return Trainer(
        network, SingleProcess(), loss, recompute="normalization" if recompute else False
    )


def make_step(peer: str, case: Case, weights: Weights, threads: int) -> Step:
    """What is timed, ready to run: gives a loss in training, a prediction in inference."""
    image, target = twin_cases.batch(case)
    train: Callable[..., tuple[Any, Step]] = our_training_step
    infer: Callable[..., Step] = our_inference
    if peer.startswith("torch"):
        import torch

        from benchmarks import twin_torch

        torch.set_num_threads(threads)
        train, infer = twin_torch.training_step, twin_torch.inference
    else:
        import keras

        from benchmarks import twin_keras, twin_limit
        from dlbench import distributed

        distributed.configure_devices(threads)
        keras.config.set_dtype_policy(case.precision)
        if peer == "keras":
            train, infer = twin_keras.training_step, twin_keras.inference
        elif peer == "convolutions":
            train, infer = twin_limit.training_step, twin_limit.inference
    if case.mode == "train":
        return train(case, weights, image, target)[1]
    return infer(case, weights, image)


def measure(peer: str, case: Case, weights: Path, steps: int, threads: int) -> Launched:
    """Seconds, losses and peak memory of this process; see the top of the file."""
    _, target = twin_cases.batch(case)
    losses, step_s = [], []
    with PeakMemory() as memory:
        step = make_step(peer, case, twin_cases.read_weights(weights), threads)
        for _ in range(WARMUP_STEPS + steps):
            start = time.perf_counter()
            found = step()
            step_s.append(time.perf_counter() - start)
            is_loss = isinstance(found, float)
            losses.append(found if is_loss else twin_cases.loss(case, found, target))
    assert not {"tensorflow", "torch"} <= sys.modules.keys()
    return {
        "framework": _framework(peer),
        "step_s": step_s[WARMUP_STEPS:],
        "loss": losses,
        "peak_bytes": memory.peak_bytes,
    }


def _framework(peer: str) -> str:
    name = "torch" if peer.startswith("torch") else "tensorflow"
    return f"{name} {sys.modules[name].__version__}"


def median(launched: Launched) -> float:
    """Seconds of a step."""
    return statistics.median(launched["step_s"])


def launch(
    peer: str, case: Case, weights: Path, steps: int, threads: int, timeout_s: float
) -> Launched:
    """What `measure` finds in a process of its own; the weights are written if need be."""
    if not weights.exists():
        write_weights(case, weights)
    arguments = [peer, case.network, case.precision, case.mode, "x".join(map(str, case.size))]
    arguments += [str(case.batch), str(steps), str(threads)]
    arguments += ["--options", json.dumps(case.options), "--weights", str(weights)]
    found: Launched = json.loads(_run(["benchmarks.twin_run", *arguments], timeout_s))
    return found


def write_weights(case: Case, path: Path) -> None:
    """In another process: one that is measured must not have built our network before."""
    arguments = [case.network, json.dumps(case.options), str(path)]
    _run(["benchmarks.twin_cases", *arguments], timeout_s=600.0)


def _run(arguments: list[str], timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def environment(peer: str, threads: int) -> dict[str, str]:
    """The variables that this peer's process is to start with."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return own | ALLOCATORS.get(peer, {}) | {"OMP_NUM_THREADS": str(threads)}


def size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("network", choices=twin_cases.NETWORKS)
    parser.add_argument("precision", choices=twin_cases.PRECISIONS)
    parser.add_argument("mode", choices=twin_cases.MODES)
    parser.add_argument("size", type=size, help="HEIGHTxWIDTH")
    for name in ("batch", "steps", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("--options", type=json.loads, default={}, help="of the network, JSON")
    parser.add_argument("--weights", type=Path, help=".npz of benchmarks.twin_cases")
    given = parser.parse_args()

    wanted = environment(given.peer, given.threads)
    if wanted != dict(os.environ):
        # Allocator and OpenMP read them when the process starts.
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.twin_run", *sys.argv[1:]], wanted
        )
    case = Case(given.network, given.precision, given.mode, given.size, given.batch, given.options)
    with tempfile.TemporaryDirectory() as folder:
        weights = given.weights or Path(folder) / "weights.npz"
        if given.weights is None:
            write_weights(case, weights)
        print(json.dumps(measure(given.peer, case, weights, given.steps, given.threads)))


if __name__ == "__main__":
    main()
