"""Data sets of amodal perception on disk, and the protocols that their published tables follow.

A **reader** knows a format and gives clips (`clip.py`); **rules** know a protocol and give figures (`rules/`);
`catalogue.py` says which belong together. `evaluation.py` fills a folder with one file per clip and seed, `merging.py`
makes tables of such folders.
"""

from .catalogue import NAMES, Entry, entry
from .evaluation import Request, evaluate_clips
from .merging import merge

__all__ = ["NAMES", "Entry", "Request", "entry", "evaluate_clips", "merge"]
