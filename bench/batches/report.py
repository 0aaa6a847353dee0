"""How far a batch is and how it went: counts, a summary, and figures for Prometheus."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 1000


@dataclass
class Tally:
    """Counts of a batch's units.

    Attributes:
        total: of this shard.
        before: done by earlier runs.
        done, quarantined: with the earlier ones.
        retries: attempts beyond the first, of this run.
        seconds: spent in units, of this run.
        rss: the largest memory of a worker so far, in bytes.
        reasons: why units are in quarantine, by key, of the first thousand.
    """

    total: int
    workers: int
    shard: str = "1/1"
    before: int = 0
    done: int = 0
    quarantined: int = 0
    retries: int = 0
    seconds: float = 0.0
    rss: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def add(self, record: Mapping[str, Any], earlier: bool = False) -> None:
        """Counts a unit's record."""
        if record["status"] == "done":
            self.done += 1
            self.before += earlier
        else:
            self.quarantined += 1
            if len(self.reasons) < _SHOWN:
                self.reasons[record["key"]] = record["reason"]
        if not earlier:
            self.retries += record["attempts"] - 1
            self.seconds += record["seconds"]
            self.rss = max(self.rss, record.get("rss", 0))

    @property
    def elapsed(self) -> float:
        """Seconds since the batch began."""
        return time.monotonic() - self.start

    def summary(self) -> dict[str, Any]:
        """Returns the content of the summary."""
        fresh = self.done - self.before
        return {
            "schema_version": 1,
            "shard": self.shard,
            "clips": self.total,
            "done": self.done,
            "done_before": self.before,
            "quarantined": self.quarantined,
            "waiting": self.total - self.done - self.quarantined,
            "retries": self.retries,
            "workers": self.workers,
            "seconds": round(self.elapsed, 3),
            "seconds_in_clips": round(self.seconds, 3),
            "clips_per_second": round(fresh / self.elapsed, 4) if self.elapsed else 0.0,
            "largest_worker_bytes": self.rss,
            "quarantine": self.reasons,
        }

    def prometheus(self) -> str:
        """Returns the figures in Prometheus's text format, for the textfile collector of its node exporter."""
        shard = json.dumps(self.shard)
        waiting = self.total - self.done - self.quarantined
        lines = ["# HELP amodal_batch_clips Clips of the batch by state.", "# TYPE amodal_batch_clips gauge"]
        for state, count in (("done", self.done), ("quarantined", self.quarantined), ("waiting", waiting)):
            lines.append(f'amodal_batch_clips{{shard={shard},state="{state}"}} {count}')
        for name, kind, about, value in (
            ("retries_total", "counter", "Attempts beyond the first of this run.", self.retries),
            ("clip_seconds_total", "counter", "Seconds that workers spent in clips in this run.", self.seconds),
            ("elapsed_seconds", "gauge", "Seconds since this run began.", self.elapsed),
            ("workers", "gauge", "Workers of this run.", self.workers),
            ("worker_resident_bytes", "gauge", "Largest memory of a worker in this run.", self.rss),
        ):
            full = f"amodal_batch_{name}"
            lines += [f"# HELP {full} {about}", f"# TYPE {full} {kind}", f"{full}{{shard={shard}}} {value:.10g}"]
        return "\n".join(lines) + "\n"
