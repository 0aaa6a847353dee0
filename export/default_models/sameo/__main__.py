"""`python -m amodal.export.default_models.sameo DIR`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

_NEEDED = ("torch", "onnx", "onnx_ir", "onnxruntime", "matplotlib")


@click.command("amodal.export.default_models.sameo", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Where the bundle goes. Default: DIR/bundle.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="To train. Default: the recipe's.")
@click.option("--quick", is_flag=True, help="A few steps of everything, as a test run.")
def main(folder: Path, bundle: Path | None, threads: int, minutes: float | None, quick: bool) -> None:
    """Trains the default SAMEO model from random weights, and exports it.

    Writes into DIR: the drawn pictures (rgb.npy, things.npy), the state (sameo.pt) and the log (sameo.jsonl) of the
    training, losses.png, the checkpoint (checkpoint.pt and .json) and the bundle. If interrupted, run the same command
    again to continue. The learning rate follows the clock: on a faster machine more steps are taken.

    \b
    Examples:
      python -m amodal.export.default_models.sameo build
      python -m amodal.export.default_models.sameo build --threads 2 --minutes 60
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f'training needs {", ".join(missing)}, not installed here; `pip install "amodal[export]"` brings it.'
        )
    import torch

    from ..loop import plot_losses
    from .checkpoint import write_bundle
    from .recipe import Recipe
    from .training import train_network

    options: dict[str, Any] = {"scenes": 4, "minutes": 0.02, "pictures": 2} if quick else {}
    if minutes is not None:
        options["minutes"] = minutes
    recipe = Recipe(**options)
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    train_network(folder, recipe)
    plot_losses(folder)
    out = bundle or folder / "bundle"
    rows = write_bundle(folder, out, recipe, overwrite=True)
    parameters, size = (sum(getattr(row.entry, name) for row in rows) / 1e6 for name in ("parameters", "bytes"))
    click.echo(f"Wrote {out}: {parameters:.1f} M parameters, {size:.1f} MB.")


if __name__ == "__main__":
    main()
