"""`python -m amodal.export.default_models DIR`."""

from __future__ import annotations

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
@click.option("--threads", type=int, default=1, show_default=True, help="Per stage; stages run in parallel.")
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda for one GPU.")
@click.option("--quick", is_flag=True, help="A few steps of everything, as a test run.")
def main(folder: Path, stage: StageName | None, bundle: Path | None, threads: int, device: str, quick: bool) -> None:
    """Trains the default model from random weights, and exports it.

    Writes into DIR: per stage the VAE (vae_STAGE.pt), the encoded scenes (latents_STAGE/) and the U-Net (STAGE.pt), for
    RGB the U-Net's samples (drawn_complete.npy) and the decoder trained on them (decoder_complete.pt), for each
    training a log (.jsonl); then losses.png, checkpoints/, the bundle, and bundle_sequence, the same weights for the
    context layout `sequence`. If interrupted, run the same command again to continue.

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
    few: dict[str, Any] = dict.fromkeys(("scenes", "vae_steps", "steps"), (4, 4))
    few |= {"clips": 2, "decoder_steps": (0, 4), "decoder_scenes": 4}
    recipe = Recipe(**few) if quick else Recipe()
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
    if failed := [code for code in codes if code]:
        sys.exit(failed[0])

    from .checkpoint import write_bundle
    from .loop import plot_losses

    plot_losses(folder)
    out = bundle or folder / "bundle"
    rows = write_bundle(folder, out, recipe, overwrite=True)
    write_bundle(folder, folder / "bundle_sequence", recipe, "sequence", overwrite=True)
    parameters, size = (sum(getattr(row.entry, name) for row in rows) / 1e6 for name in ("parameters", "bytes"))
    click.echo(f"Wrote {out}: {parameters:.1f} M parameters, {size:.1f} MB.")


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


if __name__ == "__main__":
    main()
