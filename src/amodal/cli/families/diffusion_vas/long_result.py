"""result.json of a long clip, or of several objects."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal import __version__
from amodal.runtime.clips.gate import JUDGEMENTS
from amodal.runtime.clips.windows import Block
from amodal.runtime.files.results import write_json

from .long_layout import files_of
from .long_state import Job
from .results import MARKER, environment_json, inputs_json, settings_json

_WHY = {
    "open": "nothing nearer borders the object",
    "outside": "the object left over the frame's edge, or is not there yet",
}
_NOWHERE = "no window with this frame shows the object"


def write_long_result(job: Job, blocks: Sequence[Block], warnings: Sequence[str], start: float) -> dict[str, Any]:
    """Writes result.json and returns its content; `start` is when this part of the run began."""
    facts, options, state = job.facts, job.options, job.run.state
    stages = {stage: state[stage]["seconds"] for stage in facts.stages}
    result = {
        "schema_version": 1,
        "amodal_version": __version__,
        "files": [*files_of(facts, options), MARKER],
        "inputs": {
            **inputs_json(options),
            "objects": options["objects"],
            "count": facts.count,
            "height": facts.size[0],
            "width": facts.size[1],
        },
        "settings": {
            "stages": list(facts.stages),
            **settings_json(options, job.model),
            **({"propagate": facts.propagates} if "complete" in facts.stages else {}),
            "windows": options["windows"],
            "gate": {"tolerance": options["gate_tolerance"]} if options["gate"] == "auto" else "off",
            "objects_at_once": options["objects_at_once"] or "auto",
        },
        "windows": {"strategy": options["windows"], "frames": job.model.config.frames},
        "blocks": [{"start": block.start, "stop": block.stop} for block in blocks],
        "objects": _objects(job),
        "empty_objects": list(job.empty),
        "seconds": {"total": time.perf_counter() - start, **stages},
        **_shares(job),
        **environment_json(options, job.model),
        "warnings": list(dict.fromkeys(warnings)),
    }
    write_json(job.run.folder / MARKER, result)
    return result


def _objects(job: Job) -> list[dict[str, Any]]:
    """Returns for each object where its results are, in how many frames it is seen and was drawn, and what was not."""
    facts, notes = job.facts, job.writer.notes
    drawn, judged = notes.drawn.read(0, facts.count), notes.judged.read(0, facts.count)
    gated = job.options["gate"] == "auto" and "segment" in facts.stages
    found = []
    for index, object_id in enumerate(facts.objects):
        skipped = skipped_frames(drawn[:, index, 0], judged[:, index] if gated else None)
        found.append(
            {
                "id": object_id,
                "folder": facts.folders[object_id],
                "frames_seen": len(job.source.seen(object_id)),
                "frames_drawn": {
                    stage: int(drawn[:, index, place].sum())
                    for place, stage in enumerate(("segment", "complete"))
                    if stage in facts.stages
                },
                **({"skipped": skipped} if "segment" in facts.stages else {}),
            }
        )
    return found


def skipped_frames(drawn: NDArray[Any], judged: NDArray[np.uint8] | None) -> list[dict[str, Any]]:
    """Returns the stretches of frames that no network drew, and why; `judged` by the gate, None without."""
    words = [JUDGEMENTS[one] for one in judged] if judged is not None else [""] * len(drawn)
    why = ["" if done else _WHY.get(word, _NOWHERE) for done, word in zip(drawn, words, strict=True)]
    found, start = [], 0
    for reason, frames in groupby(why):
        stop = start + len(list(frames))
        found += [{"start": start, "stop": stop, "why": reason}] if reason else []
        start = stop
    return found


def _shares(job: Job) -> dict[str, Any]:
    """Returns what is said of each frame of one object; of several, masks.json says it."""
    facts = job.facts
    if facts.several:
        return {}
    hidden = [frame["objects"][0]["hidden_share"] for frame in job.writer.notes.lines]
    known = job.writer.notes.known.read(0, facts.count)[:, 0].tolist() if facts.propagates else []
    shares = {"known_share": [None if math.isnan(share) else share for share in known]} if known else {}
    return {"hidden_share": hidden, **shares}
