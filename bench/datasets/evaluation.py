"""Fills the folder of an evaluation: predicts or reads, measures, and writes a file per clip and seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError

from .catalogue import Entry, open_results, result_files
from .clip import Clip, Dataset, Prediction
from .reading import digest, refuse_twice
from .units import MODAL, Store, open_store, read_head

Predict = Callable[[Clip], Prediction]
Report = Callable[[str, int, int], None]
"""Called with a clip's id, the number of clips done and that of all."""


@dataclass(frozen=True)
class Request:
    """What is evaluated.

    Attributes:
        entry: the data set.
        root: its folder.
        out: folder of the evaluation.
        results: results files, see `catalogue.result_files`; None to run `bundle`.
        bundle: folder of a bundle.
        samples: seeds per clip; None for all in the results, and 1 of a bundle.
        seed: the first, of a bundle.
        shard: (i, n), from 1: every n-th clip, from the i-th.
        settings: keyword arguments for the model, of values that json holds.
        model: how the bundle is loaded: backend and device; not part of what decides the results.
    """

    entry: Entry
    root: Path
    out: Path
    results: Path | None = None
    bundle: Path | None = None
    samples: int | None = None
    seed: int = 23
    shard: tuple[int, int] = (1, 1)
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


def evaluate_clips(request: Request, report: Report = lambda *_: None) -> Store:
    """Measures the clips of a shard and writes what is missing in `out`; run it again to go on after a stop.

    Raises:
        InputError: the data set is incomplete or of another release, predictions do not match it, or `out` holds an
            evaluation of something else.
    """
    if (request.results is None) == (request.bundle is None):
        raise InputError("give `bundle` to run a model, or `results` to score results files, and not both.")
    if not 1 <= request.shard[0] <= request.shard[1]:
        raise InputError(f"the shard {request.shard} is not i/n with 1 <= i <= n.", field="shard")
    dataset = request.entry.open(request.root)
    seeds, hashed, predict = _predictor(request)
    head = _head(request, dataset, seeds, hashed)
    store = open_store(request.out, head)
    if request.bundle is not None:
        _require_images(dataset, request)
    total = len(store.clips[request.shard[0] - 1 :: request.shard[1]])
    for done, clip in enumerate(_of_shard(dataset, request.shard), 1):
        for seed in store.seeds:
            if not store.has(clip.id, seed):
                prediction = None if seed == MODAL else predict[seed](clip)
                store.write(clip.id, seed, measured(request.entry, clip, prediction))
        report(clip.id, done, total)
    return store


def measured(entry: Entry, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
    """What a unit holds: values by rules, and the results in the authors' format.

    Where two rules measure the same, the second has the name of the first.
    """
    values: dict[str, Any] = {}
    for rules in entry.rules:
        found = rules.measure(clip, prediction)
        same = next((name for name, other in values.items() if found and other == found), None)
        values[rules.name] = found if same is None else same
    return {"values": values, "results": {} if prediction is None else dict(prediction.results)}


def _predictor(request: Request) -> tuple[list[int], str, dict[str, Predict]]:
    """The seeds, a hash of what predicts, and a function per seed."""
    if request.results is not None:
        files = result_files(request.entry, request.results)
        readers = open_results(request.entry, files)
        count = len(readers) if request.samples is None else request.samples
        if not 1 <= count <= len(readers):
            raise InputError(f"`samples` is {count}, but there are results of {len(readers)}.", field="samples")
        hashed = digest([path for file in files for path in _below(file)])
        return list(range(count)), f"results {hashed}", {str(n): readers[n] for n in range(count)}
    from .running import bundle_hash, model_predictor

    assert request.bundle is not None
    count = request.samples or 1
    seeds = [request.seed + n for n in range(count)]
    run = model_predictor(request.entry, request.bundle, request.settings, request.model)
    hashed = bundle_hash(request.bundle)
    return seeds, f"bundle {hashed}", {str(seed): partial(_seeded, run, seed) for seed in seeds}


def _seeded(run: Callable[[Clip, int], Prediction], seed: int, clip: Clip) -> Prediction:
    return run(clip, seed)


def _below(path: Path) -> Sequence[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _head(request: Request, dataset: Dataset, seeds: list[int], hashed: str) -> dict[str, Any]:
    annotations = digest(dataset.annotations())
    known = read_head(request.out)
    if known is not None and (known["dataset"], known["annotations"]) == (request.entry.name, annotations):
        clips, about = known["clips"], known["about"]  # a large file of annotations is not read once more
    else:
        clips = [clip.id for clip in refuse_twice(dataset.clips())]
        about = dataset.about()
    if not clips:
        raise InputError(f"{request.root} holds no clip of {request.entry.name}.", field="root")
    head = {
        "dataset": request.entry.name,
        "annotations": annotations,
        "predictions": hashed,
        "settings": dict(request.settings),
        "seeds": seeds,
        "clips": clips,
        "about": about,
    }
    return dict(json.loads(json.dumps(head)))


def _of_shard(dataset: Dataset, shard: tuple[int, int]) -> Iterator[Clip]:
    return islice(dataset.clips(), shard[0] - 1, None, shard[1])


def _require_images(dataset: Dataset, request: Request) -> None:
    """Looks for every image of the shard before any network runs."""
    lost: list[Path] = []
    clips = 0
    for clip in _of_shard(dataset, request.shard):
        absent = [file for file in clip.images if not file.is_file()]
        lost += absent
        clips += bool(absent)
    if lost:
        said = " ".join(str(missing) for missing in dataset.check())
        raise InputError(
            f"{len(lost)} images of {clips} clips are missing, {lost[0]} first; a model needs them all. {said}".strip(),
            field="root",
        )
