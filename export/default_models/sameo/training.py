"""Trains the default SAMEO network for a set time; its state is kept, so that a training goes on where it stopped."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...families.sameo.network import Sameo
from ..loop import load_average
from .data import Batch, Pictures
from .loss import loss_of
from .recipe import MEAN, STD, Recipe, make_network

NAME = "sameo"

_SAVE_SECONDS = 60.0
_LARGEST_NORM = 1.0  # of a gradient


class _Training:
    """Network, optimisers, averaged weights, and how far they are."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.network = make_network(recipe)
        matrices, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
        for name, value in self.network.named_parameters():
            inner = value.ndim == 2 and (".blocks." in name or ".transformer." in name)
            (matrices if inner else others).append(value)
        self.optimisers: list[Any] = [
            torch.optim.Muon(matrices, lr=recipe.lr_matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.01),
        ]
        self.average = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.step, self.seconds = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the time that is over."""
        return self.seconds / (60 * self.recipe.minutes)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.network.load_state_dict(state["module"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def save(self, file: Path) -> None:
        state = {
            "module": self.network.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)

    def take_step(self, batch: Batch) -> dict[str, float]:
        """Takes one step; returns values for the log."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        rgb = torch.from_numpy(np.ascontiguousarray(batch.rgb.transpose(0, 3, 1, 2))).float() / 255
        points, labels, modal, amodal = (
            torch.from_numpy(np.ascontiguousarray(part))
            for part in (batch.points, batch.labels, batch.modal, batch.amodal)
        )
        logits, iou = self.network((rgb - mean) / std, points, labels)
        logits, iou, modal, amodal = (part.flatten(0, 1) for part in (logits, iou, modal, amodal))
        fine = self.progress > 1 - self.recipe.fine
        loss, values = loss_of(logits, iou, modal, amodal, self.recipe, fine=fine)
        values = self._update(loss) | values
        self.step += 1
        return values

    def _update(self, loss: torch.Tensor) -> dict[str, float]:
        recipe = self.recipe
        factor = min(1.0, self.progress / recipe.warm_up + 0.02, max(0.0, (1 - self.progress) / recipe.cooldown))
        for optimiser, lr in zip(self.optimisers, (recipe.lr_matrices, recipe.lr), strict=True):
            optimiser.param_groups[0]["lr"] = factor * lr
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_NORM)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return {"loss": loss.item(), "norm": norm.item(), "rate": factor}


def train_network(folder: Path, recipe: Recipe) -> Sameo:
    """Trains in `folder` (`sameo.pt`, `sameo.jsonl`, the drawn pictures), or goes on until the time is over."""
    pictures = Pictures(folder, recipe)
    training = _Training(recipe)
    state_file = folder / f"{NAME}.pt"
    if state_file.exists():
        training.load(state_file)
    before, start = training.seconds, time.monotonic()
    saved = start
    with (folder / f"{NAME}.jsonl").open("a", encoding="utf-8") as log:
        while training.progress < 1:
            values = training.take_step(pictures.batch(training.step))
            training.seconds = before + time.monotonic() - start
            log.write(json.dumps({"step": training.step, "seconds": round(training.seconds, 1), **values}) + "\n")
            if time.monotonic() - saved > _SAVE_SECONDS or training.progress >= 1:
                log.flush()
                training.save(state_file)
                saved = time.monotonic()
    return trained_network(folder, recipe)


def trained_network(folder: Path, recipe: Recipe) -> Sameo:
    """Returns the network with the averaged weights of a training in `folder`, in evaluation mode."""
    network = make_network(recipe)
    load_average(network, folder / f"{NAME}.pt")
    return network.eval().requires_grad_(False)
