"""Latency, memory, fidelity and quality, measured side by side with what people use today."""
