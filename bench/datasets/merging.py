"""Makes tables and results files of the folders of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError

from .catalogue import Entry, entry
from .published import IMAGES, published
from .rules.rules import Measured, Rules, Scores
from .tables import as_csv, as_json, as_markdown
from .units import HEAD, MODAL, Store, read_head, require_mergeable, write_whole

TABLE = "table.json"
_SHOWN = 3  # gaps that an error names
_SAME = 5e-5  # a published value is printed with two digits of percent


def merge(folders: Sequence[Path], out: Path, visibility: tuple[float, float] | None = None) -> dict[str, Any]:
    """Merges the parts of an evaluation and writes table.md, table.csv, table.json and results files to `out`.

    Args:
        folders: of `evaluate_clips`; a clip may be in several.
        visibility: keep clips whose mean visibility is in this range, both ends included.

    Returns:
        The content of table.json.

    Raises:
        InputError: a folder is no evaluation, they are of different things, or clips are missing, which are named.
    """
    stores = _open(folders)
    _require_room(out, folders)
    _require_whole(stores)
    first = stores[0]
    known = entry(first.head["dataset"])
    report: dict[str, Any] = {"format": "amodal-eval-table", **_about(first, visibility), "protocols": {}}
    for rules in known.rules:
        clips = [clip for clip in _measured(stores, rules.name) if _kept(clip, visibility)]
        if not clips:
            raise InputError("no clip has a visibility in this range.", field="visibility")
        report["protocols"][rules.name] = _protocol(known, rules, clips, first.head["about"], visibility)
        report["clips_measured"] = len(clips)
    for name, text in _results(known, stores):
        write_whole(out / name, text)
    write_whole(out / "table.md", as_markdown(report))
    write_whole(out / "table.csv", as_csv(report))
    write_whole(out / TABLE, as_json(report))
    return report


def _open(folders: Sequence[Path]) -> list[Store]:
    if not folders:
        raise InputError("there is nothing to merge; give at least one folder of `amodal eval --dataset`.")
    stores: list[Store] = []
    for folder in folders:
        head = read_head(folder)
        if head is None:
            raise InputError(f"{folder} holds no {HEAD}; expected a folder of `amodal eval --dataset`.")
        if stores:
            require_mergeable(stores[0].folder, stores[0].head, folder, head)
        stores.append(Store(folder, head))
    return stores


def _require_room(out: Path, folders: Sequence[Path]) -> None:
    if out.is_file():
        raise InputError(f"{out} is a file, expected a folder to write to; give another for `out`.", field="out")
    ours = out in folders or (out / TABLE).is_file()
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise InputError(f"{out} is not empty and holds no {TABLE}; give another folder for `out`.", field="out")


def _require_whole(stores: Sequence[Store]) -> None:
    gaps = _gaps(stores)
    few = list(islice(gaps, _SHOWN))
    if few:
        count = len(few) + sum(1 for _ in gaps)
        named = ", ".join(f"{clip} ({'visible masks' if seed == MODAL else f'seed {seed}'})" for clip, seed in few)
        more = ", ..." if count > len(few) else ""
        raise InputError(
            f"{count} of {len(stores[0].clips) * len(stores[0].seeds)} parts are missing: {named}{more}; run the same "
            "`amodal eval` again, or merge with the folders of the other shards."
        )


def _gaps(stores: Sequence[Store]) -> Iterator[tuple[str, str]]:
    for clip in stores[0].clips:
        for seed in stores[0].seeds:
            if not any(store.has(clip, seed) for store in stores):
                yield clip, seed


def _unit(stores: Sequence[Store], clip: str, seed: str) -> dict[str, Any]:
    for store in stores:
        if (unit := store.read(clip, seed)) is not None:
            return unit
    raise InputError(f"{clip}, seed {seed}, was removed while it was read; run the same `amodal eval` again.")


def _measured(stores: Sequence[Store], rules: str) -> Iterator[Measured]:
    for clip in stores[0].clips:
        values = []
        for seed in stores[0].seeds:
            every = _unit(stores, clip, seed)["values"]
            own = every[rules]
            values.append(every[own] if isinstance(own, str) else own)
        yield Measured(clip, values[0], values[1:])


def _kept(clip: Measured, visibility: tuple[float, float] | None) -> bool:
    if visibility is None:
        return True
    if "visibility" not in clip.modal:
        raise InputError("clips have a visibility in sail-vos and tao-amodal only.", field="visibility")
    return visibility[0] <= float(clip.modal["visibility"]) <= visibility[1]


def _about(store: Store, visibility: tuple[float, float] | None) -> dict[str, Any]:
    kept = {name: store.head[name] for name in ("dataset", "annotations", "predictions", "settings", "seeds")}
    return {**kept, "clips": len(store.clips), "visibility": visibility}


def _protocol(
    known: Entry, rules: Rules, clips: list[Measured], about: Mapping[str, Any], visibility: Any
) -> dict[str, Any]:
    rows = rules.rows(clips, about)
    shown, why = _comparison(known.name, rules.name, rows, len(clips), visibility is None)
    return {
        "title": rules.title,
        "notes": rules.notes,
        "rows": rows,
        "published": shown,
        "comparison": why,
        "per_clip": {clip.id: _each(rules, clip, about) for clip in clips},
    }


def _each(rules: Rules, clip: Measured, about: Mapping[str, Any]) -> dict[str, Any]:
    if clip.seeds and "found" in clip.seeds[0]:
        return {}  # average precision of one image says little
    known = {"visibility": clip.modal["visibility"]} if "visibility" in clip.modal else {}
    return {**rules.rows([clip], about), **known}


def _comparison(
    name: str, rules: str, rows: Mapping[str, Scores], clips: int, whole: bool
) -> tuple[dict[str, dict[str, float]], str]:
    """The published rows if they may stand beside ours, and why, or why not."""
    known = published(name, rules)
    if not known:
        return {}, "No row is published under this protocol."
    if not whole:
        return {}, "Published rows are not shown: they are of all clips, these of a part."
    if "Modal" in known:
        ours = rows.get("Modal", {})
        wrong = [
            f"{name} {100 * (ours.get(name) or 0):.2f} for {100 * value:.2f}"
            for name, value in known["Modal"].items()
            if not _same(ours.get(name), value)
        ]
        if wrong:
            return {}, (
                "Published rows are not shown: the row Modal, which needs no model, is not the published one "
                f"({', '.join(wrong)}), so this is not the data they are of."
            )
        return known, "The row Modal, which needs no model, is the published one, so the data are the same."
    if clips != IMAGES.get(name):
        need = IMAGES.get(name)
        said = f"they are of {need} images, these of {clips}" if need else "nothing shows that these are the same data"
        return {}, f"Published rows are not shown: {said}."
    return known, f"The number of images, {clips}, is the published one; no row that needs no model is published."


def _same(ours: float | None, theirs: float) -> bool:
    return ours is not None and abs(ours - theirs) <= _SAME + 1e-9


def _results(known: Entry, stores: Sequence[Store]) -> Iterator[tuple[str, str]]:
    """Results files by name, per seed: the authors' or COCO's format, and the toolkit's boxes for TAO-Amodal."""
    first = stores[0]
    for place, seed in enumerate(first.seeds[1:]):
        suffix = "" if place == 0 else f"_seed{seed}"
        entries: dict[str, Any] = {}
        found: list[Any] = []
        for clip in first.clips:
            unit = _unit(stores, clip, seed)
            entries |= unit["results"]
            found += unit["values"][known.rules[0].name].get("found", [])
        for name, content in (("results", entries or found), ("toolkit", _boxes(known, entries, first.head["about"]))):
            if content:
                yield f"{name}{suffix}.json", json.dumps(content, separators=(",", ":")) + "\n"


def _boxes(known: Entry, entries: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The boxes as TAO-Amodal's toolkit reads them; the true tracks' categories, and scores of 1."""
    if known.name != "tao-amodal" or not about["images"]:
        return []
    return [
        {"bbox": [float(n) for n in entry["diffvas_res_bbox"]], "score": 1.0, **about["images"][key]}
        for key, entry in entries.items()
        if key in about["images"]
    ]
