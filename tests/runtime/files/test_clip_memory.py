"""Memory does not grow with the clip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

COUNT, HEIGHT, WIDTH = 3000, 180, 320
CHECK = """
import sys
from pathlib import Path
import numpy as np
from amodal.runtime.files.clip import ClipFiles
from amodal.runtime.files.clip_source import open_clip
def peak():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
def go(source, numbers):
    return [source.frames(numbers).mean(), source.depth(numbers).mean()] + [
        source.modal(o, numbers).sum() for o in source.objects]
folder = Path(sys.argv[1])
source = open_clip(ClipFiles(folder / "frames.avi", folder / "masks", folder / "depth.avi"), "all")
assert source.count == 3000 and source.objects == (1, 2, 3)
opened = peak()
seen = 0
for begin in range(0, 600, 60):
    go(source, range(begin, begin + 64))
early = peak()
for begin in range(600, 3000, 60):
    seen += go(source, range(begin, min(begin + 64, 3000)))[2]
assert seen
print(opened, early, peak())
"""


def write_video(path: Path, grey: bool) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for i in range(COUNT):
        ramp = ((x + i) // 2 % 256).astype(np.uint8)
        writer.write(np.dstack([ramp, ramp, ramp] if grey else [ramp, (y % 256).astype(np.uint8), 255 - ramp]))
    writer.release()


@pytest.mark.slow
def test_3000_frames_with_three_objects_take_no_more_memory_at_the_end(tmp_path: Path) -> None:
    write_video(tmp_path / "frames.avi", grey=False)
    write_video(tmp_path / "depth.avi", grey=True)
    (tmp_path / "masks").mkdir()
    for i in range(COUNT):
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        for one in (1, 2, 3):
            left = (i * one) % (WIDTH - 40)
            ids[50 * one - 40 : 50 * one, left : left + 40] = one
        Image.fromarray(ids).save(tmp_path / "masks" / f"{i:05d}.png", compress_level=1)
    command = [sys.executable, "-c", CHECK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    opened, early, late = map(int, done.stdout.split())
    whole = COUNT * HEIGHT * WIDTH * 3
    assert early - opened < 250e6, f"grown by {(early - opened) / 1e6:.0f} MB from opening"
    assert late - early < 50e6 < whole, f"grown by {(late - early) / 1e6:.0f} MB after 600 frames"
    print(f"opened {opened / 1e6:.0f} MB, 600 frames {early / 1e6:.0f} MB, 3000 frames {late / 1e6:.0f} MB")
