"""Trains the default SAMEO network; its state is kept, so that a training goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...families.sameo.network import Sameo
from ..loop import load_average, train
from .data import Pictures
from .loss import loss_of
from .recipe import MEAN, STD, Recipe, make_network

NAME = "sameo"


def train_network(folder: Path, recipe: Recipe) -> Sameo:
    """Trains in `folder` (`sameo.pt`, `sameo.jsonl`, the drawn pictures), or goes on; see `amodal.export.default_models.loop`."""
    network = make_network(recipe)
    pictures = Pictures(folder, recipe)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        batch = pictures.batch(step)
        rgb = torch.from_numpy(np.ascontiguousarray(batch.rgb.transpose(0, 3, 1, 2))).float() / 255
        points, labels, modal, amodal = (
            torch.from_numpy(np.ascontiguousarray(part))
            for part in (batch.points, batch.labels, batch.modal, batch.amodal)
        )
        logits, iou = network((rgb - mean) / std, points, labels)
        flat = (part.flatten(0, 1) for part in (logits, iou, modal, amodal))
        return loss_of(*flat, recipe)

    train(folder, NAME, network, loss, steps=recipe.steps, lr=recipe.lr, ema=recipe.ema, cooldown=recipe.cooldown)
    return network


def trained_network(folder: Path, recipe: Recipe) -> Sameo:
    """Returns the network with the averaged weights of a training in `folder`, in evaluation mode."""
    network = make_network(recipe)
    load_average(network, folder / f"{NAME}.pt")
    return network.eval().requires_grad_(False)
