"""Depth Anything V2: checkpoint, torch network, graph."""
