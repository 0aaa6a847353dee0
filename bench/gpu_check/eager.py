"""Diffusion-VAS's U-Net in diffusers, eager in half precision: the time to beat.

`python -m amodal.bench.gpu_check.eager` prints one JSON object. Weights are random and made on the device.
"""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import click

LATENT, FRAMES, ROWS = (32, 64), 25, 2


def time_unet(
    kind: Literal["diffusion-vas", "tiny"], device: str, latent: tuple[int, int], frames: int, calls: int
) -> dict[str, Any]:
    """Times the U-Net of the real architecture, or a toy's, with both CFG rows in one call.

    Returns:
        `seconds` of each call after the first, which is `first`; `peak_bytes`: most that torch had allocated, None on
        a CPU; `finite`: whether the result was.
    """
    import torch

    from amodal.export.checkpoints.checkpoint import random_checkpoint

    on_gpu = device.startswith("cuda")
    dtype = torch.float16 if on_gpu else torch.float32
    unet: Any = random_checkpoint(kind, "segment").unet.build()
    config = unet.config
    unet = unet.to_empty(device=device).to(dtype).eval()
    generator = torch.Generator(device).manual_seed(0)
    with torch.inference_mode():
        for parameter in unet.parameters():
            parameter.normal_(0, 0.02, generator=generator)
        drawn = [
            torch.randn(shape, generator=generator, device=device).to(dtype)
            for shape in ((ROWS, frames, config.in_channels, *latent), (ROWS, 1, config.cross_attention_dim), (ROWS, 3))
        ]
        seconds = []
        for _ in range(calls + 1):
            begin = time.perf_counter()
            result = unet(drawn[0], torch.tensor(1.0, device=device), drawn[1], drawn[2]).sample
            finite = bool(result.isfinite().all())  # waits for the device
            seconds.append(time.perf_counter() - begin)
    peak = int(torch.cuda.max_memory_allocated()) if on_gpu else None
    return {"first": seconds[0], "seconds": seconds[1:], "peak_bytes": peak, "finite": finite}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(min=1), default=10, show_default=True)
def main(calls: int) -> None:
    """Diffusion-VAS's U-Net in diffusers, eager in half precision on the GPU, as JSON."""
    click.echo(json.dumps(time_unet("diffusion-vas", "cuda", LATENT, FRAMES, calls)))


if __name__ == "__main__":
    main()
