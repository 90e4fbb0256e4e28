"""Distributed benchmarks of dense-prediction networks, with max pooling that stores its indices."""

__version__ = "0.1.0"
