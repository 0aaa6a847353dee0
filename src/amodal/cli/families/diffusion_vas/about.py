"""What `amodal inspect` shows of a Diffusion-VAS bundle."""

from __future__ import annotations

from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import DepthEntry
from amodal.runtime.families.diffusion_vas.shape import RunShape


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Returns the `config` as rows of a name and a value."""
    config = bundle.config
    height, width = config.latent_size
    return [
        ("depth", _depth(config.depth) if config.depth else "none; give it with `amodal run --depth`"),
        ("clip", f"{config.frames} frames of {config.height}x{config.width}, latents {height}x{width}"),
        ("context layout", config.context_layout),
        ("decode chunk", f"{config.decode_chunk} frames"),
        ("hidden RGB", "copied from other frames, the rest drawn" if config.propagate else "drawn"),
        ("noise", config.noise_dtype),
        *([("trained on", f"{config.domain.about} alone")] if config.domain else []),
    ]


def _depth(entry: DepthEntry) -> str:
    order = {"demo": "as in the authors' demo", "rgb": "red first"}[entry.channels]
    return f"{entry.model}, channels {order}"


def run_to_plan(tasks: tuple[str, ...], size: tuple[int, int] | None) -> RunShape:
    """Returns a run of `tasks` with default settings, for frames of `size` (H, W), None for the bundle's."""
    return RunShape(tasks, size=size)
