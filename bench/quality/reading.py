"""Finds predictions on disk, in one of these layouts, and matches them with their truth.

- The output of `amodal run`: `amodal_masks/*.png`, `completed/*.png` if there, and the masks of further seeds in
  `samples/SEED/amodal_masks/*.png` (the seed of result.json, whose masks are the run's own, counts once).
- A folder of such folders, named like the scenes.
- The authors' results for SAIL-VOS: json keyed `"(image_id, obj_id)"`, with COCO RLE under `diffvas_res_rle` and, where
  boxes were predicted themselves, `diffvas_res_bbox`; or a folder of these, one file per seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.listing import list_images, require_path
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.objects import join_ids
from amodal.runtime.paths import PathLike, natural_key

from .clips import ClipPrediction, ClipTruth
from .truth import COMPLETED, MASKS, TruthSource, as_boxes, decode_masks, find_truth, folders_in, load_json

SAMPLES, PADDED = "samples", "amodal_masks_padded"
_EXPECTED = "the output of `amodal run`, a folder of such outputs, or a results json"
_Item = TypeVar("_Item")
Pair = tuple[ClipTruth, ClipPrediction]


def read_pairs(predictions: PathLike, truth: PathLike, top_k: int | None = None) -> Iterator[Pair]:
    """Reads predictions and their truth, clip by clip, for `evaluate`.

    Args:
        predictions: in one of the layouts at the top of this module.
        truth: in one of those at the top of `amodal.bench.quality.truth`.
        top_k: number of samples to use, Top-1 first; None for all.

    Raises:
        InputError: something is missing, damaged or does not match. Names are matched at once, files are read later,
            one clip at a time.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"`top_k` is {top_k}; expected 1 or more.", field="top_k")
    with argument("predictions"):
        root = require_path(predictions, _EXPECTED)
    sources = find_truth(truth)
    files = [root] if root.is_file() else sorted(root.glob("*.json"), key=lambda path: natural_key(path.name))
    if files and (root.is_file() or not ((root / MASKS).is_dir() or folders_in(root))):
        return _read_results(files, sources, top_k)
    return _read_folders(_match_folders(root, sources, truth), top_k)


def _match_folders(root: Path, sources: Sequence[TruthSource], truth: PathLike) -> list[tuple[TruthSource, Path]]:
    if (root / MASKS).is_dir():
        named = [source for source in sources if source.name == root.resolve().name]
        if len(sources) > 1 and not named:
            raise InputError(
                f"{root} is a single prediction, but {truth} holds {len(sources)} scenes, none of them named "
                f"{root.resolve().name}; give one scene folder.",
                field="truth",
            )
        return [((named or list(sources))[0], root)]
    runs = {folder.name: folder for folder in folders_in(root) if (folder / MASKS).is_dir()}
    if not runs:
        raise InputError(f"{root} holds no {MASKS} folder, nor folders that do; `predictions` is {_EXPECTED}.")
    missing = [source.name for source in sources if source.name not in runs]
    unknown = sorted(set(runs) - {source.name for source in sources}, key=natural_key)
    for names, what in ((missing, "no prediction for"), (unknown, "predictions without truth for")):
        if names:
            raise InputError(
                f"{root} has {what} {join_ids(names, most=5)} ({len(runs)} predictions, {len(sources)} scenes in "
                f"{truth}); give one per scene, with the scene's name."
            )
    return [(source, runs[source.name]) for source in sources]


def _read_folders(pairs: Sequence[tuple[TruthSource, Path]], top_k: int | None) -> Iterator[Pair]:
    for source, folder in pairs:
        with_rgb = (folder / COMPLETED).is_dir()
        truth = source.read(with_rgb)
        if source.masks is not None:
            _require_frames(folder / MASKS, source.masks)
        # Masks of the padded frame, which `amodal run --pad` writes, include those of the frame.
        places = [place / PADDED if (place / PADDED).is_dir() else place / MASKS for place in _seed_folders(folder)]
        with argument("predictions"):
            samples = [read_masks(place) for place in places]
            rgb = read_frames(folder / COMPLETED) if with_rgb and truth.whole_rgb is not None else None
        yield truth, _prediction(folder, _first(samples, top_k, folder), rgb)


def _seed_folders(folder: Path) -> list[Path]:
    """The run's own folder, and those of its samples without the run's own seed, which is in result.json."""
    if not (folder / SAMPLES).is_dir():
        return [folder]
    result = load_json(folder / "result.json", "predictions") if (folder / "result.json").is_file() else {}
    settings = result.get("settings") if isinstance(result, dict) else None
    own = str(settings.get("seed")) if isinstance(settings, dict) else None
    return [folder, *(seed for seed in folders_in(folder / SAMPLES) if seed.name != own)]


def _read_results(files: Sequence[Path], sources: Sequence[TruthSource], top_k: int | None) -> Iterator[Pair]:
    documents = {path: _read_document(path) for path in _first(files, top_k, files[0].parent)}
    for source in sources:
        keys = source.keys()
        samples, boxes = [], []
        for path, document in documents.items():
            missing = next((key for key in keys if key not in document), None)
            if missing is not None:
                count = f"it holds {len(document)} entries"
                raise InputError(f"{path} has no entry '{missing}', which {source.name} needs; {count}.")
            entries = [document[key] for key in keys]
            samples.append(decode_masks([entry.get("diffvas_res_rle") for entry in entries], f"{path}, {source.name}"))
            if all("diffvas_res_bbox" in entry for entry in entries):
                boxes.append(as_boxes([entry["diffvas_res_bbox"] for entry in entries], str(path)))
        truth, predicted = source.read(False), boxes if len(boxes) == len(samples) else None
        yield truth, _prediction(files[0].parent, samples, boxes=predicted, of_network=True)


def _read_document(path: Path) -> dict[str, Any]:
    document = load_json(path, "predictions")
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise InputError(f"{path} is no results json; `predictions` expects entries keyed '(image_id, obj_id)'.")
    return document


def _prediction(where: Path, *parts: Any, **more: Any) -> ClipPrediction:
    try:
        return ClipPrediction(*parts, **more)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _require_frames(predicted: Path, true: Path) -> None:
    """Reports fewer masks than frames, with the missing ones if file names show which."""
    stems = {path.stem for path in list_images(predicted)}
    wanted = [path.stem for path in list_images(true)]
    missing = [stem for stem in wanted if stem not in stems]
    if len(stems) < len(wanted):
        without = f", without {join_ids(missing, most=5)}" if len(missing) == len(wanted) - len(stems) else ""
        raise InputError(f"{predicted} holds {len(stems)} masks for {len(wanted)} frames{without}; give one per frame.")


def _first(items: Sequence[_Item], count: int | None, where: Path) -> Sequence[_Item]:
    if count is not None and count > len(items):
        have = "1 sample" if len(items) == 1 else f"{len(items)} samples"
        raise InputError(f"{where} holds {have}, but `top_k` asks for {count}; run more seeds or ask for fewer.")
    return items[:count]
