"""Frames, masks and results on disk."""
