"""Finds out what a file or folder of masks is, and has it read."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, first_line
from ...paths import natural_key
from ..listing import IMAGE_SUFFIXES
from ..rle import MAX_SIDE, as_runs
from .burst import read_burst
from .coco import read_coco
from .cvat import read_cvat
from .foreign import refuse_foreign_json, refuse_foreign_text, refuse_foreign_xml
from .label_studio import read_label_studio
from .labelme import is_labelme, read_labelme
from .mots import read_mots
from .pictures import read_grounded, read_rle_files
from .rles import read_rles
from .sam2 import read_demo, read_masklets
from .track import Tracks

SUFFIXES = (".json", ".xml", ".txt")
_LAYOUTS = (
    "one RLE per frame, COCO annotations, YouTube-VIS tracks, SA-V masklets, BURST, CVAT, LabelMe, Label Studio, MOTS "
    "or a masks.json of amodal"
)
_OF_A_PICTURE = (read_labelme, read_demo, read_grounded)
_OF_A_VIDEO = (read_masklets, read_burst, read_label_studio)
_PLAIN = (read_rles, read_coco)  # have no marks of their own, hence come after the formats that are not read


def read_tracks(path: Path, key: str = "modal", sequence: str | None = None) -> Tracks:
    """Reads what a file of masks says, without decoding any mask.

    Args:
        path: a .json, .xml or .txt file, or a folder with one .json per frame; the modules beside this one list the
            layouts.
        key: `modal` or `amodal`, for files that hold both masks of an object.
        sequence: the name of one video, for files of several (such as the name of the folder of frames). It is ignored
            if none is called that.

    Raises:
        InputError: damaged, of no known layout, of one that is recognised and not read, or without any object.
    """
    tracks = _read_folder(path, key) if path.is_dir() else _read_file(path, key)
    if not tracks.objects:
        raise InputError(f"{path} ({tracks.layout}) shows no object; expected at least one mask.")
    mine = [track for track in tracks.objects if sequence is not None and track.timeline.is_of(sequence)]
    return Tracks(path, tracks.layout, mine, tracks.notes) if mine else tracks


def holds_tracks(path: Path) -> bool:
    """Returns whether `read_tracks` is the reader of a path.

    It is for files with one of `SUFFIXES`, and for folders with .json or .xml and no pictures or arrays. Among folders
    with pictures, it is for LabelMe's, whose pictures are the frames; in others, they are the masks.
    """
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    files = _files(path)
    documents = [file for file in files if file.suffix.lower() in (".json", ".xml")]
    pictures = {file.stem for file in files if file.suffix.lower() in (*IMAGE_SUFFIXES, ".npy", ".npz")}
    if not documents or not pictures:
        return bool(documents)
    beside = next((file for file in documents if file.suffix.lower() == ".json" and file.stem in pictures), None)
    return beside is not None and is_labelme(_parse_json(beside))


def _files(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be opened as a folder ({error.strerror}); expected a folder.") from error
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _read_folder(folder: Path, key: str) -> Tracks:
    files = [file for file in _files(folder) if file.suffix.lower() in (".json", ".xml")]
    if not files:
        raise InputError(f"{folder} holds no .json file; expected one per frame.")
    if len(files) == 1:
        return _read_file(files[0], key)
    if any(file.suffix.lower() == ".xml" for file in files):
        refuse_foreign_xml(folder, _parse_xml(next(file for file in files if file.suffix.lower() == ".xml")))
        raise InputError(f"{folder} holds several .xml files; give the one of the video.")
    documents = [(file, _without_picture(_parse_json(file))) for file in files]
    for read in (*_OF_A_PICTURE, read_rle_files):
        tracks = read(folder, documents, key)
        if tracks is not None:
            return tracks
    refuse_foreign_json(folder, documents[0][1])
    raise InputError(
        f"{folder} holds {len(files)} .json files that are not all masks of one frame in one layout (LabelMe, SAM 2's "
        "web demo, Grounded-SAM-2, RLE); give one file of the whole video."
    )


def _read_file(path: Path, key: str) -> Tracks:
    suffix = path.suffix.lower()
    tracks = _read_xml(path) if suffix == ".xml" else _read_text(path) if suffix == ".txt" else _read_json(path, key)
    if tracks is None:
        raise InputError(f"{path} has none of the supported layouts: {_LAYOUTS}.")
    return tracks


def _read_json(path: Path, key: str) -> Tracks | None:
    document = _without_picture(_parse_json(path))
    for read in _OF_A_PICTURE:
        tracks = read(path, [(path, document)], key)
        if tracks is not None:
            return tracks
    tracks = _first(_OF_A_VIDEO, path, document, key)
    if tracks is None:
        refuse_foreign_json(path, document)
        tracks = _first(_PLAIN, path, document, key)
    return tracks


def _first(readers: Sequence[Any], path: Path, document: Any, key: str) -> Tracks | None:
    return next((tracks for read in readers if (tracks := read(path, document, key)) is not None), None)


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_read_object)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as json ({first_line(error)}); expected {_LAYOUTS}.") from error


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object of json, with the runs of an uncompressed RLE as an array: a list takes nine times the memory.

    Raises:
        ValueError: a key occurs twice, of which Python would keep the last.
    """
    held = dict(pairs)
    if len(held) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in one object")
    if isinstance(held.get("counts"), list):
        with suppress(ValueError):  # what is broken is said when the mask is asked for
            runs = as_runs(held["counts"])
            if (runs <= MAX_SIDE**2).all():
                held["counts"] = runs.astype(np.int32)
    return held


def _without_picture(document: Any) -> Any:
    """Drops the picture that LabelMe stores in its files."""
    if isinstance(document, dict):
        document.pop("imageData", None)
    return document


def _read_xml(path: Path) -> Tracks | None:
    root = _parse_xml(path)
    tracks = read_cvat(path, root)
    if tracks is None:
        refuse_foreign_xml(path, root)
    return tracks


class _Builder(ET.TreeBuilder):
    """Refuses document types: what they declare can grow without limit, and no annotation tool writes them."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


def _parse_xml(path: Path) -> ET.Element:
    try:
        return ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Builder()))
    except (OSError, ValueError, LookupError, ET.ParseError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as XML ({first_line(error)}); expected the XML of CVAT.") from error


def _read_text(path: Path) -> Tracks | None:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as text ({first_line(error)}); expected a text file of MOTS."
        ) from error
    tracks = read_mots(path, text)
    if tracks is None:
        refuse_foreign_text(path, text)
    return tracks
