"""Masks of objects over a video, from the files of annotation and segmentation tools."""

from .reading import holds_tracks, read_tracks
from .track import Timeline, Track, Tracks

__all__ = ["Timeline", "Track", "Tracks", "holds_tracks", "read_tracks"]
