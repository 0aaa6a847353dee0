"""What a results file holds: raw samples with their units, and everything needed to know what they are of.

One file, `results.json`, is one `Results`. Every measurement keeps its raw samples; medians, percentiles and ratios are
computed when they are shown (`bench/statistics.py`), so that nothing has to be measured again to be seen otherwise.
Times are seconds, memory is bytes, arithmetic is floating-point operations (a multiply-add is two).
"""

from .about import Executed, Gpu, Machine, Record, Seconds, Subject, Work
from .ceilings import Ceilings, ComponentCost, Prediction, Roofline
from .file import SCHEMA_VERSION, Measurement, Results, Skipped, read_results
from .outcome import Against, Fidelity, Peer, Peers, Preset, Quality, StageFidelity
from .running import ClipTimes, Latency, Memory, Point, Scaling, Span, Sweep, Timeline

__all__ = [
    "SCHEMA_VERSION",
    "Against",
    "Ceilings",
    "ClipTimes",
    "ComponentCost",
    "Executed",
    "Fidelity",
    "Gpu",
    "Latency",
    "Machine",
    "Measurement",
    "Memory",
    "Peer",
    "Peers",
    "Point",
    "Prediction",
    "Preset",
    "Quality",
    "Record",
    "Results",
    "Roofline",
    "Scaling",
    "Seconds",
    "Skipped",
    "Span",
    "StageFidelity",
    "Subject",
    "Sweep",
    "Timeline",
    "Work",
    "read_results",
]
