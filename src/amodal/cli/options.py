"""Options that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .console import BYTES, MOMENT, NAMES, OBJECT, OBJECTS, Parsed

_F = TypeVar("_F", bound=Callable[..., Any])

COUNT = click.IntRange(min=1)
ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
FILE = click.Path(dir_okay=False, path_type=Path)
MEMORY_MODES = click.Choice(["auto", "resident", "sequential"])

bundle_argument = click.argument("bundle", type=click.Path())
stage_option = click.option(
    "--stage", type=click.Choice(["segment", "complete", "both"]), help="Stage to run. Default: all in the bundle."
)
noise_option = click.option(
    "--seed", type=int, default=23, help="Seed of the noise, which equals that of torch's CPU generator."
)
churn_option = click.option("--churn", type=float, default=0.0, help="EDM's S_churn: fresh noise while sampling.")
components_option = click.option(
    "--components", type=NAMES, help="Only these components, by key or kind: unet,vae_decoder. Default: all."
)
target_option = click.option(
    "--target",
    metavar="GPUS",
    default="portable",
    help="GPUs that the engines are for: compute capabilities such as sm86,sm89, all that the compiler knows "
    "(portable), or the GPU of this machine (this).",
)
engine_option = click.option(
    "--engine-dir",
    type=click.Path(path_type=Path),
    help="Folder of the engines. Default: engines/ in the bundle; for the default bundle, the user's cache.",
)


def combined(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Returns one decorator that adds all `options`, in this order."""

    def add(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def steps_option(kind: Any = COUNT) -> Callable[[_F], _F]:
    """--steps, as an integer of `kind`."""
    return click.option("--steps", type=kind, default=25, help="Sampler steps.")


def threads_option(kind: Any = COUNT) -> Callable[[_F], _F]:
    """--threads, as an integer of `kind`."""
    return click.option("--threads", type=kind, metavar="N", help="CPU threads. Default: all cores.")


def execution_options(backend: bool = True, threads: Any = COUNT) -> Callable[[_F], _F]:
    """How a bundle is run: --backend unless it is False, --device, --threads, --memory, --vram, --engine-dir."""
    which = click.option(
        "--backend",
        metavar="NAME",
        default="onnxruntime",
        help="Backend that runs the networks; auto for the best usable one. `amodal doctor` lists them.",
    )
    return combined(
        *([which] if backend else []),
        click.option("--device", metavar="NAME", help="Device: cpu, cuda, cuda:1. Default: what the backend can use."),
        threads_option(threads),
        click.option(
            "--memory",
            type=MEMORY_MODES,
            default="resident",
            help="Keep all components loaded, or load one at a time; auto for the fastest that fits.",
        ),
        click.option(
            "--vram",
            type=BYTES,
            help="Limit of GPU memory (6GB, 800MB): a run that needs more is refused before anything is loaded. "
            "`amodal inspect --memory` shows what is needed.",
        ),
        engine_option,
    )


depth_options = combined(
    click.option(
        "--depth-kind",
        type=click.Choice(["relative", "inverse", "metric"]),
        help="What the numbers of --depth mean: relative (larger is nearer: disparity, 1/z), inverse (smaller is "
        "nearer, no unit) or metric (distances, any unit; 0 and NaN are holes, and filled). Default: relative, unless "
        "it looks like distances, which is refused.",
    ),
    click.option(
        "--depth-channels",
        type=click.Choice(["demo", "rgb"]),
        help="Order of the channels that the depth network is given: blue first, as in the authors' demo, or red "
        "first, as in their evaluation. Default: the bundle's.",
    ),
)
"""What depth is: --depth-kind, --depth-channels."""


def folder_options(metavar: str, **settings: Any) -> Callable[[_F], _F]:
    """--out for a folder named `metavar` in --help, and --overwrite."""
    settings = settings or {"required": True}
    return combined(
        click.option("-o", "--out", metavar=metavar, help="Folder to write; created only on success.", **settings),
        click.option("--overwrite", is_flag=True, help=f"Replace {metavar} if amodal wrote it."),
    )


def _only_object(context: click.Context, option: click.Parameter, given: tuple[Any, ...]) -> Any:
    """Returns the id that was given, if any; refuses several."""
    if len(given) > 1:
        several = any(param.name == "objects" for param in context.command.params)
        other = f"; give several as --objects {','.join(map(str, given))}" if several else ""
        raise click.BadParameter(
            f"--object names one object, and was given {len(given)} times{other}.", context, option
        )
    return given[0] if given else None


trim_options = combined(
    click.option("--start", type=MOMENT, metavar="N|Ns", default="0", help="First frame, or second (2.5s)."),
    click.option("--stop", type=MOMENT, metavar="N|Ns", help="Frame or second to stop before. Default: the end."),
    click.option("--stride", type=MOMENT, metavar="N|Ns", default="1", help="Use every N-th frame, or one in N s."),
)
"""Which frames of a clip are used: what `amodal.runtime.files.trimming.Trim` takes."""

clip_files_options = combined(
    click.option(
        "--frames",
        required=True,
        metavar="DIR|FILE",
        help="RGB frames: a folder of images, a video, a GIF or TIFF stack.",
    ),
    click.option(
        "--masks",
        required=True,
        metavar="DIR|FILE",
        help="Visible masks: a folder of pictures or npy, a video, GIF or TIFF stack, json (COCO, YouTube-VIS, SAM 2, "
        "LabelMe and others), or npz. docs/inputs.md lists all.",
    ),
    click.option(
        "--object",
        "object_id",
        type=OBJECT,
        multiple=True,
        callback=_only_object,
        metavar="ID",
        help="The object in masks of several: a number, a name, or a colour such as #ff0000 or 255,0,0.",
    ),
    click.option(
        "--mask-kind",
        type=click.Choice(["auto", "binary", "matte", "ids", "alpha"]),
        default="auto",
        help="What the values of masks mean, where that can be read in two ways.",
    ),
    click.option(
        "--missing-masks",
        type=click.Choice(["error", "empty"]),
        default="error",
        help="Frames without a mask: refuse them, or take the object as unseen there, as SAM 2 means it.",
    ),
    click.option(
        "--pair",
        type=click.Choice(["auto", "name", "order"]),
        default="auto",
        help="Pair masks and depth with frames by their names or numbers, or by order. auto: by name where names "
        "overlap, by order where they say nothing.",
    ),
    trim_options,
)
"""Which frames and masks are read, and how: what `amodal.runtime.files.clip.ClipFiles` takes."""


def json_option(what: str) -> Callable[[_F], _F]:
    """--json, which prints `what`."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} to standard output.")


def quiet_option(text: str = "Print neither progress nor a summary.") -> Callable[[_F], _F]:
    """--quiet."""
    return click.option("-q", "--quiet", is_flag=True, help=text)


result_options = combined(
    click.option("--overlay/--no-overlay", default=True, help="Write the overlay, a video for people, and sheet.png."),
    click.option(
        "--video",
        type=click.Choice(["gif", "mp4", "both"]),
        help='Format of the overlay: overlay.gif, overlay.mp4 (H.264; needs pip install "amodal[video]"), or both. '
        "Default: gif; for more than 100 frames mp4, if it can be written. A GIF has at most 100 frames.",
    ),
    click.option(
        "--cutouts",
        is_flag=True,
        help="Also write the whole object to rgba/ and its visible part to visible/, as PNGs with alpha.",
    ),
)
"""Which further results `amodal run` writes: --overlay, --video, --cutouts."""


def _writable(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """Refuses a file that cannot be written, before anything is measured."""
    existing = next((folder for folder in file.absolute().parents if folder.exists()), None) if file else None
    if existing is None or (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return file
    why = "cannot be written to" if existing.is_dir() else "is a file"
    raise click.BadParameter(f"{file} cannot be written: {existing} {why}; choose another place.", context, option)


def _crop(text: str) -> str | float:
    if text in ("auto", "off"):
        return text
    if not 1 <= (scale := float(text)) < math.inf:
        raise ValueError
    return scale


crop_option = click.option(
    "--crop",
    type=Parsed(
        "CROP",
        _crop,
        "is not auto, off or a number of 1 or more, how many times the object's box.",
    ),
    metavar="auto|N|off",
    default="off",
    help="Run on a window around an object that is small in the frame, and put the results back. N: the window's sides "
    "relative to those of the box around all visible parts. auto: 2, as published for MOVi, if that box covers less "
    "than a quarter of the frame, and else off.",
)
"""For small objects: --crop."""

long_options = combined(
    click.option(
        "--objects",
        type=OBJECTS,
        metavar="all|ID,ID",
        help="Several objects in one run: all in --masks, or those listed. Writes objects/ID/ for each.",
    ),
    click.option(
        "--windows",
        type=click.Choice(["shifted", "blended", "joint", "dilated", "chunks"]),
        default="shifted",
        help="How clips longer than the bundle's are cut into its windows; docs/video.md compares them.",
    ),
    click.option(
        "--block-frames",
        type=int,
        metavar="N",
        help="Frames that are denoised together: more take more memory, and more is lost when a run is stopped. "
        "Default: about 128.",
    ),
    click.option(
        "--gate",
        type=click.Choice(["auto", "off"]),
        default="off",
        help="auto: no network for frames in which nothing nearer borders the object; the whole is then what is seen.",
    ),
    click.option(
        "--gate-tolerance",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="Share of the depth range by which something must be nearer to count for --gate.",
    ),
    click.option(
        "--objects-at-once",
        type=Parsed(
            "N|auto",
            lambda text: None if text == "auto" else int(text),
            "is neither a number nor auto.",
        ),
        metavar="N|auto",
        help="Objects that are denoised together. auto: as many as fit into memory, at most 8.",
    ),
    click.option(
        "--preset",
        type=click.Choice(["exact", "balanced", "fast"]),
        help="Sampler steps by name: 25, 10 or 6; instead of --steps.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on after the last finished block of a run that was stopped, with the same files as without the stop; "
        "begin anew if there is none. For clips longer than the bundle's.",
    ),
)
"""Clips of any length and several objects."""

work_options = combined(
    stage_option,
    steps_option(),
    click.option("--guidance", type=float, default=1.5, help="Classifier-free guidance; 1 turns it off."),
    churn_option,
    noise_option,
)
"""What a clip computes: --stage, --steps, --guidance, --churn, --seed."""

output_options = combined(
    click.option("-o", "--out", type=FILE, callback=_writable, help="Also write a results file."),
    json_option("the results file"),
)
"""What is done with the results: -o, --json."""

clip_options = combined(work_options, execution_options(), output_options)
"""What a clip computes, how it is run, and what is done with the results."""


def checkpoint_options(purpose: str = "Checkpoint of the segment stage") -> Callable[[_F], _F]:
    """Where torch finds the weights: --segment and --complete."""
    text = f"{purpose}. Default: the bundle's source, if it is an absolute path or random."
    return combined(
        click.option("--segment", metavar="CKPT", help=text),
        click.option("--complete", metavar="CKPT", help="The same for the complete stage."),
    )
