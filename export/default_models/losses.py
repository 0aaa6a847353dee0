"""Plots of training logs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from amodal.runtime.errors import InputError

_HIDDEN = {"step", "norm", "lr", "seconds", "kl", "std"}
_POINTS = 120


def plot_losses(folder: Path) -> Path:
    """Plots the logs of `folder` (NAME.jsonl) into `folder/losses.png`, one panel each, averaged over equal parts.

    Raises:
        InputError: `folder` has no log.
    """
    logs = sorted(log for log in folder.glob("*.jsonl") if log.stat().st_size)
    if not logs:
        raise InputError(f"{folder} holds no training log (NAME.jsonl); train first.")
    across = min(2, len(logs))
    down = -(-len(logs) // across)
    figure = Figure(figsize=(5.5 * across, 3.5 * down), layout="constrained")
    for place, log in enumerate(logs):
        axes = figure.add_subplot(down, across, place + 1, title=log.stem, xlabel="step", yscale="log")
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for name in sorted({key for record in records for key in record} - _HIDDEN):
            points = np.array([(r["step"], r[name]) for r in records if r.get(name, 0) > 0])
            if len(points):
                parts = np.array_split(points, min(_POINTS, len(points)))
                axes.plot(*np.stack([part.mean(axis=0) for part in parts]).T, label=name, linewidth=1)
        axes.legend(fontsize="small")
    out = folder / "losses.png"
    figure.savefig(out, dpi=100)
    return out
