"""Clips of any length: their pictures, the windows they are cut into, what needs no network, and streams."""
