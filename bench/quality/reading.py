"""Where the predictions are, and which truth is theirs.

- What `amodal run` wrote: `amodal_masks/*.png`, `completed/*.png` if there, and the masks of further seeds in
  `samples/SEED/amodal_masks/*.png` (the seed of result.json, whose masks are the run's own, counts once).
- A folder of such folders, named like the scenes.
- The authors' results for SAIL-VOS: json keyed `"(image_id, obj_id)"`, with COCO RLE under `diffvas_res_rle` and, where
  boxes were predicted as such, `diffvas_res_bbox`; or a folder of these, one file per seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.frames import list_images, require_path
from amodal.runtime.files.rle import join_ids
from amodal.runtime.paths import PathLike, natural_key

from .clips import ClipPrediction, ClipTruth
from .files import as_boxes, decode_masks, folders_in, load_json, masks_in, rgb_in
from .truth import COMPLETED, MASKS, SceneTruth, TruthSource, find_truth

SAMPLES, PADDED = "samples", "amodal_masks_padded"
_PREDICTIONS = "what `amodal run` wrote, a folder of that, or a results json"


def read_pairs(
    predictions: PathLike, truth: PathLike, top_k: int | None = None
) -> Iterator[tuple[ClipTruth, ClipPrediction]]:
    """Predictions and their truth, clip by clip, for `evaluate`.

    Args:
        predictions: in one of the layouts at the top of this module.
        truth: in one of those at the top of `amodal.bench.quality.truth`.
        top_k: how many samples to take, the Top-1 first; None for all there are.

    Raises:
        InputError: something is missing, damaged, or does not fit together; matching is checked at once, files when
            they are read.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"`top_k` is {top_k}; expected 1 or more.", field="top_k")
    with argument("predictions"):
        root = require_path(predictions, _PREDICTIONS)
    sources = find_truth(truth)
    files = _result_files(root)
    if files:
        return _read_results(files, sources, top_k)
    return _read_folders(_match_folders(root, sources, truth), top_k)


def _result_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if (root / MASKS).is_dir() or folders_in(root):
        return []
    return sorted(root.glob("*.json"), key=lambda path: natural_key(path.name))


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
        raise InputError(f"{root} holds no {MASKS} folder, nor folders that do; `predictions` is {_PREDICTIONS}.")
    missing = [source.name for source in sources if source.name not in runs]
    unknown = sorted(set(runs) - {source.name for source in sources}, key=natural_key)
    for names, what in ((missing, "no prediction for"), (unknown, "predictions without truth for")):
        if names:
            raise InputError(
                f"{root} has {what} {join_ids(names, most=5)} ({len(runs)} predictions, {len(sources)} scenes in "
                f"{truth}); give one per scene, with the scene's name."
            )
    return [(source, runs[source.name]) for source in sources]


def _read_folders(
    pairs: Sequence[tuple[TruthSource, Path]], top_k: int | None
) -> Iterator[tuple[ClipTruth, ClipPrediction]]:
    for source, folder in pairs:
        with_rgb = (folder / COMPLETED).is_dir()
        truth = source.read(with_rgb)
        if isinstance(source, SceneTruth):
            _require_frames(folder / MASKS, source.folder / "truth" / MASKS)
        samples = [masks_in(_widest(place), "predictions") for place in (folder, *_further_seeds(folder))]
        rgb = rgb_in(folder / COMPLETED, "predictions") if with_rgb and truth.whole_rgb is not None else None
        yield truth, _prediction(folder, _first(samples, top_k, folder), rgb)


def _widest(folder: Path) -> Path:
    """Masks of the padded frame, where `amodal run --pad` left them; those of the frame are cut out of them."""
    padded = folder / PADDED
    return padded if padded.is_dir() else folder / MASKS


def _further_seeds(folder: Path) -> list[Path]:
    """The samples beside the run's own masks; its own seed is in result.json, and counts once."""
    if not (folder / SAMPLES).is_dir():
        return []
    result = load_json(folder / "result.json", "predictions") if (folder / "result.json").is_file() else {}
    settings = result.get("settings") if isinstance(result, dict) else None
    own = str(settings.get("seed")) if isinstance(settings, dict) else None
    return [seed for seed in folders_in(folder / SAMPLES) if seed.name != own]


def _read_results(
    files: Sequence[Path], sources: Sequence[TruthSource], top_k: int | None
) -> Iterator[tuple[ClipTruth, ClipPrediction]]:
    files = _first(files, top_k, files[0].parent)
    documents = [(path, _results(path)) for path in files]
    for source in sources:
        keys = source.keys()
        samples, boxes = [], []
        for path, document in documents:
            entries = [_entry(path, document, key, source.name) for key in keys]
            samples.append(decode_masks([entry.get("diffvas_res_rle") for entry in entries], f"{path}, {source.name}"))
            if all("diffvas_res_bbox" in entry for entry in entries):
                boxes.append(as_boxes([entry["diffvas_res_bbox"] for entry in entries], str(path)))
        given = boxes if len(boxes) == len(samples) else None
        yield source.read(False), _prediction(files[0].parent, samples, boxes=given)


def _prediction(where: Path, *parts: Any, **more: Any) -> ClipPrediction:
    try:
        return ClipPrediction(*parts, **more)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _results(path: Path) -> dict[str, Any]:
    document = load_json(path, "predictions")
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise InputError(f"{path} is no results json; `predictions` expects entries keyed '(image_id, obj_id)'.")
    return document


def _entry(path: Path, document: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    if key not in document:
        raise InputError(f"{path} has no entry '{key}', which {name} needs; it holds {len(document)} entries.")
    entry: dict[str, Any] = document[key]
    return entry


def _require_frames(predicted: Path, true: Path) -> None:
    """Fewer masks than frames: says which are missing, where the names tell."""
    stems = {path.stem for path in list_images(predicted)}
    wanted = [path.stem for path in list_images(true)]
    missing = [stem for stem in wanted if stem not in stems]
    if len(stems) < len(wanted):
        without = f", without {join_ids(missing, most=5)}" if len(missing) == len(wanted) - len(stems) else ""
        raise InputError(f"{predicted} holds {len(stems)} masks for {len(wanted)} frames{without}; give one per frame.")


def _first(items: Sequence[Any], count: int | None, where: Path) -> list[Any]:
    if count is not None and count > len(items):
        have = "1 sample" if len(items) == 1 else f"{len(items)} samples"
        raise InputError(f"{where} holds {have}, but `top_k` asks for {count}; run more seeds or ask for fewer.")
    return list(items[:count])
