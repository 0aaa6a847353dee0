"""Quality of amodal masks and completed RGB, compared with the truth.

`measures` has one function per measure, over the frames of one clip, with its definition and source. `report` computes
means over all frames; `truth` and `reading` find the files.
"""

from .clips import ClipPrediction, ClipTruth
from .reading import read_pairs
from .report import MaskScores, Mode, Report, Row, evaluate, render

__all__ = ["ClipPrediction", "ClipTruth", "MaskScores", "Mode", "Report", "Row", "evaluate", "read_pairs", "render"]
