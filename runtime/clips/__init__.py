"""Clips of any length: where their pictures come from, how they are cut into windows, what needs no network, streams."""
