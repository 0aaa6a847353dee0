"""`python -m amodal.export.default_models DIR`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from amodal.runtime.families.diffusion_vas.config import StageName

if TYPE_CHECKING:
    from .recipe import Recipe

STAGES = get_args(StageName)
_NEEDED = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxruntime", "matplotlib")


@click.command("amodal.export.default_models", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--stage", type=click.Choice(STAGES), help="Only this stage, and no bundle.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Where the bundle goes. Default: DIR/bundle.")
@click.option("--threads", type=int, default=1, show_default=True, help="Of each stage; stages run side by side.")
@click.option("--device", default="cpu", show_default=True, help="Of the trainings: cpu, or cuda for one GPU.")
@click.option("--quick", is_flag=True, help="A few steps of everything, to see that it runs.")
def main(folder: Path, stage: StageName | None, bundle: Path | None, threads: int, device: str, quick: bool) -> None:
    """Trains the default model from nothing, and exports it.

    Everything goes into DIR: per stage the VAE (vae_STAGE.pt), the encoded scenes (latents_STAGE/), the U-Net
    (STAGE.pt), for RGB what the U-Net draws (drawn_complete.npy) and the decoder that learnt from it
    (decoder_complete.pt), and for each training a log (.jsonl); then losses.png, checkpoints/, the bundle, and
    bundle_sequence, the same weights for the context layout `sequence`. Interrupted, the same command goes on where it
    was.

    \b
    Examples:
      python -m amodal.export.default_models build
      python -m amodal.export.default_models build --stage segment --threads 2
      python -m amodal.export.default_models build --device cuda --threads 8
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f'training needs {", ".join(missing)}, not installed here; `pip install "amodal[export]"` brings it.'
        )
    from .recipe import Recipe

    _check_device(device)
    recipe = _quick(Recipe()) if quick else Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    if stage is not None:
        _train(folder, stage, recipe, threads, device)
        return
    options = ["--threads", str(threads), "--device", device, *(["--quick"] if quick else [])]
    command = [sys.executable, "-m", "amodal.export.default_models", str(folder), *options, "--stage"]
    running = [subprocess.Popen([*command, name]) for name in STAGES]
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()
    if any(codes):
        sys.exit(next(code for code in codes if code))

    from .checkpoint import write_bundle
    from .losses import plot_losses

    plot_losses(folder)
    out = bundle or folder / "bundle"
    rows = write_bundle(folder, out, recipe, overwrite=True)
    write_bundle(folder, folder / "bundle_sequence", recipe, "sequence", overwrite=True)
    size = sum(row.entry.bytes for row in rows)
    click.echo(f"Wrote {out}: {sum(row.entry.parameters for row in rows) / 1e6:.1f} M parameters, {size / 1e6:.1f} MB.")


def _train(folder: Path, stage: StageName, recipe: Recipe, threads: int, device: str) -> None:
    import torch

    from .decoder import train_decoder
    from .latents import encode_scenes
    from .unet import train_unet
    from .vae import train_vae

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch.get_num_threads() == 1:
        import cv2

        cv2.setNumThreads(1)
    for part, work in (
        ("VAE", lambda: train_vae(folder, stage, recipe, device)),
        ("latents", lambda: encode_scenes(folder, stage, recipe, threads)),
        ("U-Net", lambda: train_unet(folder, stage, recipe, device)),
        ("decoder", lambda: train_decoder(folder, stage, recipe, device)),
    ):
        click.echo(f"{stage}: {part}", err=True)
        work()


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise click.ClickException(
            f"--device {device} cannot be used here ({reason}); expected cpu, or cuda."
        ) from error


def _quick(recipe: Recipe) -> Recipe:
    changes: dict[str, Any] = {"scenes": (4, 4), "vae_steps": (4, 4), "steps": (4, 4), "clips": 2}
    changes |= {"decoder_steps": (0, 4), "decoder_scenes": 4}
    return dataclasses.replace(recipe, **changes)


if __name__ == "__main__":
    main()
