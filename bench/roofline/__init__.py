"""Limits of a machine, and the operations and bytes of a clip."""
