from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from amodal.runtime.files.overlay import HIDDEN, VISIBLE, draw_overlay, write_contact_sheet, write_overlay


def clip(count: int = 3, height: int = 180, width: int = 320) -> tuple[Any, Any, Any]:
    frames = np.full((count, height, width, 3), (20, 90, 40), np.uint8)
    frames[:, ::2] += 8
    modal = np.zeros((count, height, width), np.bool_)
    modal[:, height // 3 : height * 2 // 3, width // 4 : width // 2] = True
    amodal = modal.copy()
    amodal[:, height // 3 : height * 2 // 3, width // 2 : width * 3 // 4] = True
    return frames, modal, amodal


def distance(picture: Any, colour: tuple[int, int, int]) -> Any:
    return np.linalg.norm(picture.astype(float) - colour, axis=-1)


def test_visible_keeps_its_colours_hidden_is_tinted_and_the_rest_is_washed_out() -> None:
    frames, modal, amodal = clip()
    drawn = draw_overlay(frames[0], modal[0], amodal[0])
    middle = slice(75, 105)
    assert np.array_equal(drawn[middle, 90:150], frames[0, middle, 90:150])
    hidden, before = drawn[middle, 170:230], frames[0, middle, 170:230]
    assert distance(hidden, HIDDEN).max() < distance(before, HIDDEN).min()
    assert drawn[:50].mean() > frames[0, :50].mean() + 80
    assert (distance(drawn[:, 70:90], VISIBLE) < 60).any()
    assert not (distance(drawn[:, :70], VISIBLE) < 60).any()


def test_the_completed_object_shines_through_the_tint() -> None:
    frames, modal, amodal = clip()
    completed = np.full_like(frames[0], (10, 10, 200))
    drawn = draw_overlay(frames[0], modal[0], amodal[0], completed)
    assert np.array_equal(drawn[90, 100], (10, 10, 200))
    assert drawn[75:105, 170:230, 2].mean() > 100
    assert np.array_equal(drawn[:40], draw_overlay(frames[0], modal[0], amodal[0])[:40])


@pytest.mark.parametrize(("size", "expected"), [((720, 1280), 640), ((64, 128), 384), ((1, 1), 320), ((300, 500), 500)])
def test_the_gif_has_every_frame_at_a_sane_size(tmp_path: Path, size: tuple[int, int], expected: int) -> None:
    frames, modal, amodal = clip(3, *size)
    frames[:] += np.arange(3, dtype=np.uint8)[:, None, None, None] * 30
    write_overlay(tmp_path / "o.gif", frames, modal, amodal, frames, fps=8)
    with GifImageFile(tmp_path / "o.gif") as gif:
        assert gif.n_frames == 3
        assert max(gif.size) <= expected + 30
        assert gif.width == expected or size == (1, 1)
        assert gif.info["duration"] in (120, 130)
        assert gif.info["loop"] == 0


def test_an_object_that_is_hidden_or_absent_altogether_can_be_drawn(tmp_path: Path) -> None:
    frames, modal, amodal = clip()
    modal[1] = False
    modal[2] = amodal[2] = False
    write_overlay(tmp_path / "o.gif", frames, modal, amodal)
    with GifImageFile(tmp_path / "o.gif") as gif:
        gif.seek(2)
        last = np.asarray(gif.convert("RGB"))[:180]
    assert not (distance(last, HIDDEN) < 60).any()


@pytest.mark.parametrize("fps", [1 / 700, 1e-310])
def test_a_frame_stays_for_no_longer_than_a_gif_can_say(tmp_path: Path, fps: float) -> None:
    write_overlay(tmp_path / "o.gif", *clip(2), fps=fps)
    with GifImageFile(tmp_path / "o.gif") as gif:
        assert gif.info["duration"] == 655350


def test_equal_frames_stay_frames_of_the_gif(tmp_path: Path) -> None:
    frames, modal, amodal = clip(5)
    write_overlay(tmp_path / "o.gif", frames, modal, amodal)
    with GifImageFile(tmp_path / "o.gif") as gif:
        assert gif.n_frames == 5


@pytest.mark.parametrize("count", [1, 2, 25])
@pytest.mark.parametrize("completed", [True, False])
def test_the_contact_sheet_shows_a_few_frames(tmp_path: Path, count: int, completed: bool) -> None:
    frames, modal, amodal = clip(count)
    write_contact_sheet(tmp_path / "s.png", frames, modal, amodal, frames if completed else None)
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    assert sheet.shape == (24 + (4 if completed else 3) * (135 + 6), 96 + min(count, 5) * (240 + 6), 3)
    assert (distance(sheet, HIDDEN) == 0).any()
    assert (distance(sheet, VISIBLE) == 0).any()


def test_importing_these_modules_brings_in_no_heavy_library() -> None:
    modules = ("frames", "masks", "rle", "atomic", "results", "overlay")
    code = (
        "import sys\n"
        + "".join(f"import amodal.runtime.files.{name}\n" for name in modules)
        + "print([name for name in ('cv2', 'PIL', 'pycocotools', 'torch', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
