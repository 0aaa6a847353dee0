"""Latency, memory, fidelity, scaling, presets."""
