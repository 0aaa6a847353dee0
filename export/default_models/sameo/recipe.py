"""The default SAMEO network and its training recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from amodal.runtime.errors import InputError

from ...families.sameo.network import Sameo
from ...families.sameo.sizes import NetworkConfig

FIRST_SEED = 1_000_000  # of training scenes, as for the other default model
NETWORK = NetworkConfig(
    height=64,
    width=128,
    patch=8,
    dim=160,
    depth=5,
    heads=5,
    embed=128,
    decoder_mlp=512,
    upscaling=(64, 32),
    iou_hidden=128,
    pretrained_grid=(8, 16),
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1], as in EfficientSAM


@dataclass(frozen=True)
class Recipe:
    """All parameters of the training.

    Attributes:
        scenes: drawn once, of `frames` frames.
        minutes: how long to train, by the clock; the learning rate follows it.
        pictures: per step.
        prompts: per picture, each for one thing.
        lr: learning rate of AdamW, after a warm-up.
        lr_matrices: learning rate of Muon, which trains the matrices of the transformers.
        cooldown: share of the time at the end over which the rates fall to zero.
        fine: share of the time at the end in which the loss is taken at the size of the picture, not of the low-res
            masks, and the weight of the IoU is `iou_fine`.
        hidden_share: how much more often a thing is prompted for that is partly hidden.
        whole_share: of the prompts with the box of the whole thing; the others have that of its visible part.
        point_share: of the prompts with up to four points on the visible part beside the box.
        jitter: standard deviation of a corner, in sides of the box, for `jitter_share` of the boxes.
        hidden: weight of the Dice loss outside the visible part, an addition to the paper's loss.
        least: share of the loss that is the least of the three masks'; the rest is their mean.
        single: weight of mask 0.
        seed: of weights and data.
    """

    scenes: int = 4000
    frames: int = 8
    minutes: float = 31.0
    pictures: int = 10
    prompts: int = 4
    lr: float = 1e-3
    lr_matrices: float = 2e-3
    ema: float = 0.995
    warm_up: float = 0.03
    cooldown: float = 0.6
    fine: float = 0.3
    hidden_share: float = 5.0
    whole_share: float = 0.5
    point_share: float = 0.1
    jitter: float = 0.03
    jitter_share: float = 0.3
    hidden: float = 0.5
    iou: float = 0.05
    iou_fine: float = 0.2
    least: float = 0.2
    single: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("scenes", "frames", "minutes", "pictures", "prompts", "lr")
        for name, value in asdict(self).items():
            if value < 0 or (name in counts and value == 0):
                raise InputError(f"recipe: {name} is {value}; expected a number above 0.")


def make_network(recipe: Recipe) -> Sameo:
    """Returns the network with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Sameo(NETWORK)
        torch.nn.init.trunc_normal_(network.image_encoder.pos_embed, std=0.02)
    return network
