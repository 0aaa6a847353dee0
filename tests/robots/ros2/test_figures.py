"""What a node says about itself."""

from __future__ import annotations

import numpy as np
import pytest

from amodal.robots.ros2.figures import ERROR, OK, WARN, Figures, Limits


def test_counts_rate_and_latencies_are_those_noted() -> None:
    figures, latencies = Figures(Limits(), 0.0), [0.01, 0.02, 0.4]
    for number, latency in enumerate(latencies):
        figures.pushed(number / 10)
        figures.answered(latency, number, latency > 0.1)
    level, said, values = figures.status(0.3, [("depth", 4)])
    assert (level, said) == (OK, "running")
    assert values == {
        "pushed": "3",
        "answered": "3",
        "dropped": "3",
        "refused": "0",
        "deadline_misses": "1",
        "unpaired depth": "4",
        "latency_p50_ms": "20.0",
        "latency_p99_ms": f"{1000 * np.percentile(latencies, 99):.1f}",
        "rate_hz": "10.0",
    }


@pytest.mark.parametrize(("latency", "level"), [(0.4, OK), (0.6, WARN), (2.5, ERROR)])
def test_late_results_raise_the_level(latency: float, level: int) -> None:
    figures = Figures(Limits(), 0.0)
    figures.pushed(1.0)
    figures.answered(latency, 0, False)
    assert figures.status(1.1, [])[0] == level


def test_problems_are_said_until_they_are_over() -> None:
    figures = Figures(Limits(silence=2.0), 10.0)
    assert figures.status(11.0, [])[0] == OK
    assert figures.status(13.0, [])[:2] == (WARN, "no complete frame for 3.0 s")
    figures.refused("frame of another size")
    assert figures.status(13.0, [])[:2] == (WARN, "frame of another size")
    figures.pushed(13.0)
    assert figures.status(13.1, [])[0] == OK
    figures.lasts("QoS does not match")
    figures.pushed(13.2)
    assert figures.status(13.3, [])[:2] == (WARN, "QoS does not match")
    figures.failed("nothing more is computed")
    assert figures.status(13.3, [])[:2] == (ERROR, "nothing more is computed")
