"""Observers of a workload: time and memory. They never change what they measure."""
