"""What `amodal run` does for SAMEO: reads a picture, predicts its masks, writes them, and goes on to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.cli.progress import ClipBars
from amodal.cli.viewing import check_views, views_of
from amodal.runtime.files.atomic import staged_folder
from amodal.runtime.files.trial import try_names
from amodal.runtime.loading import load
from amodal.runtime.model import Model

from .clock import Clock
from .overlays import open_overlays
from .products import BoxProducts, MaskProducts, Predicted, open_products
from .results import MARKER, write_result
from .showing import Showing
from .sources import Picture, open_source

Products = BoxProducts | MaskProducts | Showing
_LOAD = ("backend", "memory", "vram", "engine_dir", "device", "threads", "verify")


def run_job(options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a bundle on pictures with boxes or masks and writes OUT; returns the content of result.json."""
    clock = Clock()
    check_views(options)
    inputs = [options[name] for name in ("bundle", "images", "detections", "images_json", "masks") if options[name]]
    loading = {name: options[name] for name in _LOAD}
    with (
        staged_folder(options["out"], options["overwrite"], MARKER, inputs) as folder,
        ClipBars(options["quiet"]) as bars,
    ):
        bars.begin("predict")
        with clock.part("read"):
            source = open_source(options, bars.component)
        try_names(folder, source.names)
        with load(options["bundle"], progress=bars.component, **loading) as model, ExitStack() as undo:
            overlays = open_overlays(folder, source, options) if options["overlay"] else None
            if overlays is not None:
                undo.callback(overlays.close)
            products = open_products(folder, source, options["cutouts"], overlays)
            undo.callback(products.close)
            views = undo.enter_context(views_of(options, folder, options["images"]))
            written: list[Products] = [products, *([Showing(views, source)] if views else [])]
            bars.report("predict", "", 0, source.count)
            count = 0
            for picture in _timed(source.pictures(), clock):
                bars.report("predict", picture.name, picture.place + 1, source.count)
                count += _run(model, picture, written, options, clock)
            with clock.part("write"):
                files = products.finish() + (overlays.finish() if overlays else []) + views.names
                views.close()
                source.notes.extend(views.notes)
            return write_result(folder, files, options, model, source, count, clock)


def _timed(pictures: Iterator[Picture], clock: Clock) -> Iterator[Picture]:
    while True:
        with clock.part("read"):
            picture = next(pictures, None)
        if picture is None:
            return
        yield picture


def _run(model: Model, picture: Picture, products: Sequence[Products], options: Mapping[str, Any], clock: Clock) -> int:
    """Predicts the objects of a picture, at most so many at a time as the bundle takes, and writes and shows them."""
    asked = {"select": options["select"], "threshold": options["threshold"]}
    shown = np.arange(len(picture.objects))
    if picture.modal is not None:
        shown = np.flatnonzero(picture.modal.any(axis=(1, 2)))
    most = int(model.config.boxes_at_once)
    encoding: Any = None
    with clock.part("predict"):
        if len(shown):
            encoding = model.encode(picture.frame)
    for begin in range(0, len(shown), most):
        part: NDArray[np.int64] = shown[begin : begin + most]
        with clock.part("predict"):
            if picture.modal is None:
                assert picture.boxes is not None
                found = model.predict(encoding, boxes=picture.boxes[part], **asked)
            else:
                how = {"points": options["points"], "unite": options["unite"]}
                found = model.predict_from_masks(encoding, picture.modal[part], **how, **asked)
        with clock.part("write"):
            for product in products:
                product.add(picture, Predicted(part, found.masks, found.iou))
    with clock.part("write"):
        for product in products:
            product.end(picture)
    return len(shown)
