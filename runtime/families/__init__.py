"""Families of models: each has its own inputs, calls and results."""
