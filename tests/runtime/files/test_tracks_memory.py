"""How much memory a large file takes until its masks are known to be right."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEIGHT, WIDTH, COUNT = 1080, 1920, 800
CHECK = """
import sys, numpy, json, pycocotools.mask
from pathlib import Path
from amodal.runtime.files.tracks import read_tracks
def peak():  # not ru_maxrss, which begins with that of the process that started this one
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
before = peak()
track = read_tracks(Path(sys.argv[1])).object()
seen = track.seen()
for mask in track.masks([0, 400, 799]):
    assert mask.shape == (1080, 1920) and mask.any()
print(len(seen), peak() - before)
"""


def runs(i: int) -> list[int]:
    """Two bands with wavy edges across the picture: 7,200 runs, all too long for the numbers that Python keeps."""
    edges: list[int] = []
    for x in range(60, 1860):
        for band in range(2):
            top = x * HEIGHT + 540 * band + (x * 7 + i * 13 + band) % 9
            edges += [top, top + 260 + (x * 11 + i) % 7]
    places = [0, *edges, HEIGHT * WIDTH]
    return [b - a for a, b in itertools.pairwise(places)]


def write(path: Path, compressed: bool) -> None:
    from pycocotools import mask as coco

    annotations: list[dict[str, Any]] = []
    for i in range(COUNT):
        rle: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": runs(i)}
        if compressed:
            rle["counts"] = coco.frPyObjects(rle, HEIGHT, WIDTH)["counts"].decode()
        annotations.append({"id": i, "image_id": i, "category_id": 1, "track_id": 1, "segmentation": rle})
    images = [{"id": i, "file_name": f"{i:05d}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(COUNT)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [True, False])
def test_800_masks_of_1080p_are_checked_in_300_mb(tmp_path: Path, compressed: bool) -> None:
    write(tmp_path / "m.json", compressed)
    command = [sys.executable, "-c", CHECK, str(tmp_path / "m.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    seen, grown = map(int, done.stdout.split())
    assert seen == COUNT
    assert 1e6 < grown <= 300e6, f"grown by {grown / 1e6:.0f} MB"
