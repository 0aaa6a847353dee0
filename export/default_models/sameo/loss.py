"""The loss of SAMEO: Dice + Focal(2) + 0.05 L1 of the predicted IoU, and what the paper leaves open."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe

_GAMMA = 2.0


def loss_of(
    logits: Tensor, iou: Tensor, modal: Tensor, amodal: Tensor, recipe: Recipe, fine: bool
) -> tuple[Tensor, dict[str, float]]:
    """Computes the loss of a step.

    The paper does not say which of the masks it is taken on: here on all, three parts of the mean and one of the least
    of masks 1 to 3, and with less weight on mask 0. The Dice loss outside the visible part is an addition: visible
    pixels are known wherever they are united in.

    Args:
        logits: [P, 4, h, w] of P prompts.
        iou: [P, 4].
        modal: bool [P, H, W].
        amodal: the same.
        fine: whether the logits are brought to the size of the masks; else the masks to that of the logits.

    Returns:
        The loss, and parts of it for the log.
    """
    truth, seen = amodal[:, None].to(logits.dtype), modal[:, None].to(logits.dtype)
    if fine:
        logits = enlarged(logits, (truth.shape[-2], truth.shape[-1]))
    else:
        size = (logits.shape[-2], logits.shape[-1])
        truth, seen = F.adaptive_avg_pool2d(truth, size), F.adaptive_avg_pool2d(seen, size)
    share = torch.sigmoid(logits)
    outside = 1 - seen
    has_hidden = (amodal & ~modal).any(dim=(1, 2)).to(logits.dtype)[:, None]
    whole, focal = _dice(share, truth), _focal(logits, share, truth)
    hidden = has_hidden * _dice(share * outside, (truth - seen).clamp(min=0))
    each = whole + focal + recipe.hidden * hidden
    three = each[:, 1:]
    masks = recipe.least * three.amin(dim=1) + (1 - recipe.least) * three.mean(dim=1) + recipe.single * each[:, 0]
    with torch.no_grad():
        found, wanted = logits >= 0, truth >= 0.5
        true_iou = (found & wanted).sum((2, 3)) / (found | wanted).sum((2, 3)).clamp(min=1)
    error = (iou - true_iou).abs().mean()
    total = masks.mean() + (recipe.iou_fine if fine else recipe.iou) * error
    values = {
        "dice": whole[:, 1:].mean().item(),
        "focal": focal[:, 1:].mean().item(),
        "hidden_dice": (hidden[:, 1:].mean() / has_hidden.mean().clamp(min=1e-6)).item(),
        "iou_error": error.item(),
        "miou": true_iou[:, 1:].mean().item(),
    }
    return total, values


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic as torch's `interpolate` [..., h, w] -> [..., *size], as two products, whose gradient is faster."""
    rows, columns = (_weights(old, new).to(logits) for old, new in zip(logits.shape[-2:], size, strict=True))
    return rows @ logits @ columns.T


@lru_cache(4)
def _weights(old: int, new: int) -> Tensor:
    return F.interpolate(torch.eye(old)[None, None], size=(new, old), mode="bicubic", align_corners=False)[0, 0]


def _dice(share: Tensor, truth: Tensor) -> Tensor:
    return 1 - (2 * (share * truth).sum((2, 3)) + 1) / (share.sum((2, 3)) + truth.sum((2, 3)) + 1)


def _focal(logits: Tensor, share: Tensor, truth: Tensor) -> Tensor:
    wrong = share + truth - 2 * share * truth  # 1 - p of the true class
    entropy = F.binary_cross_entropy_with_logits(logits, truth.expand_as(logits), reduction="none")
    return (wrong**_GAMMA * entropy).mean((2, 3))
