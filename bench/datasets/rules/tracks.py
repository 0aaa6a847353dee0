"""Average precision of tracks (Track-AP) as TAO-Amodal's toolkit defines it; the toolkit fails on numpy >= 1.24.

Definition, after TAO (Dave et al., ECCV 2020) and TAO-Amodal (Hsieh et al.): the IoU of two tracks is the sum of their
boxes' intersections over all frames by the sum of unions. Per video and category, tracks in order of falling scores
take the best free true track with an IoU of at least the threshold, ignored ones last. Federated as LVIS: predicted
tracks of categories that are neither present in the video nor known to be absent do not count; unmatched ones are
ignored where a category is not annotated exhaustively.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_OCCLUDED, _FRAMES = 0.8, 5  # a track with more such frames of less visibility counts for HP


@dataclass
class Track:
    """Boxes x, y, width, height by image, of one object; `score` of predictions, `hidden` frames of the truth."""

    boxes: dict[Any, Sequence[float]]
    score: float = 0.0
    hidden: int = 0


@dataclass
class _Matches:
    """Of the tracks of a video and category: scores [D], and hits and ignored, bool [10, D]; true tracks counted."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    true: int


def track_ap(videos: Sequence[Mapping[str, Any]], most: int = 300) -> dict[str, float]:
    """Track-AP of videos, shares in [0, 1], -1 where no true track counts.

    Args:
        videos: each with `truth` and `found`, annotations with `image_id`, `track_id`, `category_id`, `bbox` and
            `visibility` or `score`, and `video`, with `neg_category_ids` and `not_exhaustive_category_ids`.
        most: tracks per video that count, those with the highest scores.

    Raises:
        InputError: the boxes of a predicted track have different scores or categories.
    """
    every: dict[int, list[_Matches]] = defaultdict(list)
    hidden: dict[int, list[_Matches]] = defaultdict(list)
    for video in videos:
        true = _tracks(video["truth"], video["video"]["id"])
        found = _tracks(video["found"], video["video"]["id"], scored=True)
        present = set(true) | set(video["video"]["neg_category_ids"])
        ranked = sorted((t.score for tracks in found.values() for t in tracks), reverse=True)
        least = ranked[most - 1] if len(ranked) > most else -np.inf
        for category in sorted(set(true) | (set(found) & present)):
            mine = [track for track in found.get(category, []) if track.score >= least]
            open_ended = category in video["video"]["not_exhaustive_category_ids"]
            theirs = true.get(category, [])
            every[category].append(_match(theirs, mine, [False] * len(theirs), open_ended))
            few = [track.hidden <= _FRAMES for track in theirs]
            hidden[category].append(_match(theirs, mine, few, open_ended))
    scores = {}
    for tail, groups in (("", every), ("-HP", hidden)):
        curves = [_curve(group) for group in groups.values()]
        known = [curve for curve in curves if curve is not None]
        precision = np.asarray([curve[0] for curve in known])
        for name, rows in (("AP", slice(None)), ("AP50", slice(0, 1)), ("AP75", slice(5, 6))):
            scores[f"{name}{tail}"] = float(precision[:, rows].mean()) if known else -1.0
        if not tail:
            scores[f"AR@{most}"] = float(np.mean([curve[1] for curve in known])) if known else -1.0
    return scores


def track_iou(a: Track, b: Track) -> float:
    """The sum of intersections over the sum of unions of two tracks, over all images, in [0, 1]."""
    shared = union = 0.0
    for image in a.boxes.keys() | b.boxes.keys():
        first, second = a.boxes.get(image), b.boxes.get(image)
        if first is not None and second is not None:
            width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
            height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
            shared += (common := max(width, 0) * max(height, 0))
            union -= common
        union += sum(box[2] * box[3] for box in (first, second) if box is not None)
    return shared / union if union > 0 else 0.0


def _tracks(entries: Sequence[Mapping[str, Any]], video: Any, scored: bool = False) -> dict[int, list[Track]]:
    tracks: dict[tuple[int, Any], Track] = {}
    owner: dict[Any, tuple[int, float]] = {}
    for entry in entries:
        key = entry["category_id"], entry["track_id"]
        score = float(entry["score"]) if scored else 0.0
        if owner.setdefault(entry["track_id"], (key[0], score)) != (key[0], score):
            raise InputError(
                f"track {entry['track_id']} of video {video} has boxes of different scores or categories; expected one "
                "score and one category per track."
            )
        track = tracks.setdefault(key, Track({}, score))
        track.boxes[entry["image_id"]] = entry["bbox"]
        track.hidden += entry.get("visibility", 1.0) < _OCCLUDED
    groups: dict[int, list[Track]] = defaultdict(list)
    for (category, _), track in tracks.items():
        groups[category].append(track)
    return groups


def _match(true: list[Track], found: list[Track], ignored: list[bool], open_ended: bool) -> _Matches:
    order = sorted(range(len(true)), key=lambda place: ignored[place])
    true, flags = [true[place] for place in order], [ignored[place] for place in order]
    found = sorted(found, key=lambda track: -track.score)
    ious = [[track_iou(mine, theirs) for theirs in true] for mine in found]
    hits = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    left_out = np.full(hits.shape, open_ended)
    for level, threshold in enumerate(THRESHOLDS):
        free = set(range(len(true)))
        for place, row in enumerate(ious):
            candidates = [t for t in free if row[t] >= min(threshold, 1 - 1e-10)]
            if not candidates:
                continue
            # Tracks that count come before ignored ones; of equal IoUs the last is taken, as in COCO's code.
            taken = max(candidates, key=lambda t: (not flags[t], row[t], t))
            free.remove(taken)
            hits[level, place] = True
            left_out[level, place] = flags[taken]
    return _Matches(np.asarray([track.score for track in found]), hits, left_out, flags.count(False))


def _curve(group: Sequence[_Matches]) -> tuple[NDArray[np.float64], float] | None:
    """Precision [10, 101] at each recall, and the mean recall; None if no true track counts."""
    total = sum(matches.true for matches in group)
    if not total:
        return None
    order = np.argsort(-np.concatenate([matches.scores for matches in group]), kind="mergesort")
    hits = np.concatenate([matches.hits for matches in group], axis=1)[:, order]
    counted = ~np.concatenate([matches.ignored for matches in group], axis=1)[:, order]
    precision = np.zeros((len(THRESHOLDS), len(_RECALLS)))
    recalls = np.zeros(len(THRESHOLDS))
    for level in range(len(THRESHOLDS)):
        right = np.cumsum(hits[level] & counted[level])
        wrong = np.cumsum(~hits[level] & counted[level])
        recall, exact = right / total, right / (right + wrong + np.spacing(1))
        recalls[level] = recall[-1] if len(recall) else 0.0
        highest = np.maximum.accumulate(exact[::-1])[::-1]
        places = np.searchsorted(recall, _RECALLS, side="left")
        reached = places < len(highest)
        precision[level, reached] = highest[places[reached]]
    return precision, float(recalls.mean())
