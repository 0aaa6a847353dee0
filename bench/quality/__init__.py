"""How good amodal masks and completed RGB are, measured against the truth.

`measures` holds one function per measure, each over the frames of one clip; what it is and where it comes from stands
in its docstring. `report` takes means over all frames, `table` prints them; `truth` and `reading` find what is on disk.
"""

from .clips import ClipPrediction, ClipTruth
from .reading import read_pairs
from .report import MaskScores, Mode, Report, Row, evaluate
from .table import render

__all__ = ["ClipPrediction", "ClipTruth", "MaskScores", "Mode", "Report", "Row", "evaluate", "read_pairs", "render"]
