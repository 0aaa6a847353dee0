"""Files of every layout, damaged at random: what comes out is masks or an InputError, nothing else."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.tracks import read_tracks

from .layouts import LAYOUTS, example

QUICK, THOROUGH = 15, 60  # damages of each layout
JUNK: list[Any] = [
    None, True, False, 0, -1, 7, 2**31, 10**30, -(10**30), 0.5, float("nan"), float("inf"), 1e308, "", "x", "0", "-1",
    "\ud800", "b'0", [], {}, [[]], [None], {"": None}, {"size": [7, 9], "counts": "0"}, {"size": [7, 9], "counts": []},
    {"size": [0, -9], "counts": [63]}, [[1, 2, 3, 4, 5, 6]], [[1, 1]] * 3, "data:,", "99999999999999999999",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


def mutate_json(document: Any, chance: random.Random) -> Any:
    document = copy.deepcopy(document)
    *path, last = chance.choice(places(document)[1:])
    held = document
    for key in path:
        held = held[key]
    action = chance.randrange(4)
    if action == 0:
        del held[last]
    elif action == 1 and isinstance(held, list):
        held.insert(chance.randrange(len(held) + 1), copy.deepcopy(held[last]))
    elif action == 2 and isinstance(held, dict):
        held[chance.choice(["", "x", "3", last, "size", "counts"])] = held.pop(last)
    else:
        held[last] = copy.deepcopy(chance.choice(JUNK))
    return document


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.choice([1, 1, 2, 5, 200]))
    new = chance.choice(
        [b"", bytes([chance.randrange(256)]), b"9" * chance.choice([1, 5, 30]), b"-", b"nan", b"\xff", b'"']
    )
    return data[:start] + new + data[stop:]


def read_everything(path: Path) -> None:
    for key in ("modal", "amodal"):
        tracks = read_tracks(path, key)
        for name in [None, *tracks.ids]:
            try:
                track = tracks.object(name)
                track.seen((7, 9))
                for mask in track.masks([*range(min(track.count, 20)), None], (7, 9)):
                    assert mask.ndim == 2
            except InputError as error:
                assert str(error).endswith(".")  # noqa: PT017


@pytest.mark.parametrize("count", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_files_give_masks_or_an_error_that_says_what_is_wrong(tmp_path: Path, name: str, count: int) -> None:
    chance = random.Random(f"{name} 1")
    source = LAYOUTS[name].write(tmp_path, example())
    file = chance.choice(sorted(source.iterdir())) if source.is_dir() else source
    data = file.read_bytes()
    refused = 0
    for i in range(count):
        if i % 2 and file.suffix == ".json":
            file.write_text(json.dumps(mutate_json(json.loads(data), chance)))
        else:
            file.write_bytes(mutate_bytes(data, chance))
        try:
            read_everything(source)
        except InputError as error:
            refused += 1
            assert str(tmp_path) in str(error)  # noqa: PT017
    assert refused > 0


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"annotations":['])
def test_json_nested_without_end_is_refused(tmp_path: Path, opening: str) -> None:
    (tmp_path / "m.json").write_text(opening * 100_000)
    with pytest.raises(InputError, match=r"cannot be read as json"):
        read_tracks(tmp_path / "m.json")
