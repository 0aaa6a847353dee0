"""The training loop of all parts: averaged weights, a log with its plot, and a saved state to continue from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from amodal.runtime.errors import InputError

Loss = Callable[[int], tuple[torch.Tensor, dict[str, float]]]

_SAVE_SECONDS = 120.0
_WARM_UP = 100
_LARGEST_NORM = 1.0  # of a gradient
_NOT_PLOTTED = {"step", "norm", "lr", "seconds", "kl", "std"}
_POINTS = 120


def train(
    folder: Path,
    name: str,
    module: torch.nn.Module,
    loss_of: Loss,
    *,
    steps: int,
    lr: float,
    ema: float,
    cooldown: float,
) -> None:
    """Trains `module` on its device, and sets its weights to their average.

    State and log are `folder/NAME.pt` and `folder/NAME.jsonl`. An interrupted run continues where it last saved. A step
    depends on its number alone, so that the result is that of an uninterrupted run.

    Args:
        loss_of: maps a step's number to its loss and further values for the log.
        steps: in total; a finished run continues if this is larger than before.
        lr: learning rate, after a warm-up of 100 steps and before the cooldown.
        ema: decay of the averaged weights, reached as (1 + step) / (10 + step).
        cooldown: share of the steps at the end over which the rate falls to zero.
    """
    state_file, log_file = folder / f"{name}.pt", folder / f"{name}.jsonl"
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    average = {key: value.detach().clone() for key, value in module.state_dict().items()}
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=next(module.parameters()).device)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], int(state["step"])
        _cut(log_file, first)
    module.train()
    start = saved = time.monotonic()
    with log_file.open("a", encoding="utf-8") as log:
        for step in range(first, steps):
            rate = lr * min(1.0, (step + 1) / _WARM_UP, (steps - step) / max(1.0, cooldown * steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss, values = loss_of(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), _LARGEST_NORM)
            if torch.isfinite(norm):
                optimiser.step()
            _follow(average, module, min(ema, (1 + step) / (10 + step)))
            seconds = time.monotonic() - start
            record = {"step": step, "loss": loss.item(), "norm": norm.item(), "lr": rate, "seconds": seconds, **values}
            log.write(json.dumps(record) + "\n")
            if time.monotonic() - saved > _SAVE_SECONDS or step + 1 == steps:
                log.flush()
                state = {"module": module.state_dict(), "optimiser": optimiser.state_dict()}
                torch.save({**state, "average": average, "step": step + 1}, state_file.with_suffix(".part"))
                os.replace(state_file.with_suffix(".part"), state_file)
                saved = time.monotonic()
    module.load_state_dict(average)
    module.eval().requires_grad_(False)


def load_average(module: torch.nn.Module, state_file: Path) -> None:
    """Loads the averaged weights of a training's `state_file` into `module`."""
    module.load_state_dict(torch.load(state_file, weights_only=True, map_location="cpu")["average"])


def _follow(average: dict[str, torch.Tensor], module: torch.nn.Module, decay: float) -> None:
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)


def _cut(log: Path, step: int) -> None:
    """Drops the lines that were logged after the state was saved."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < step]
        log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def plot_losses(folder: Path) -> Path:
    """Plots the logs of `folder` (NAME.jsonl) into `folder/losses.png`, one panel each, averaged over equal parts.

    Raises:
        InputError: `folder` has no log.
    """
    from matplotlib.figure import Figure

    logs = sorted(log for log in folder.glob("*.jsonl") if log.stat().st_size)
    if not logs:
        raise InputError(f"{folder} holds no training log (NAME.jsonl); train first.")
    across = min(2, len(logs))
    down = -(-len(logs) // across)
    figure = Figure(figsize=(5.5 * across, 3.5 * down), layout="constrained")
    for place, log in enumerate(logs):
        axes = figure.add_subplot(down, across, place + 1, title=log.stem, xlabel="step", yscale="log")
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for name in sorted({key for record in records for key in record} - _NOT_PLOTTED):
            points = np.array([(r["step"], r[name]) for r in records if r.get(name, 0) > 0])
            if len(points):
                parts = np.array_split(points, min(_POINTS, len(points)))
                axes.plot(*np.stack([part.mean(axis=0) for part in parts]).T, label=name, linewidth=1)
        axes.legend(fontsize="small")
    out = folder / "losses.png"
    figure.savefig(out, dpi=100)
    return out
