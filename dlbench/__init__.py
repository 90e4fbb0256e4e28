"""Distributed benchmarks of dense-prediction networks, with max pooling that stores its indices."""

import os
import sys

__version__ = "0.1.0"

# TensorFlow reads this when it is loaded. By itself it uses oneDNN's convolutions only where the
# processor has VNNI; with AVX2 alone, too, a training step of the default run is twice as fast.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # By itself CUDA numbers the fastest GPU first, other than nvidia-smi and `dlbench.gpus` do.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
