from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from amodal.runtime.errors import MissingDependencyError
from amodal.runtime.files.overlay import write_overlay
from amodal.runtime.files.video_writing import require_video_encoder, write_video


@pytest.fixture
def av() -> Any:
    return pytest.importorskip("av")


def clip(count: int, height: int, width: int) -> Any:
    """Smooth pictures that differ, which H.264 keeps."""
    rows, columns = np.mgrid[:height, :width]
    shades = [np.stack([rows + 20 * i, columns, np.full_like(rows, 40 * i)], axis=-1) for i in range(count)]
    return np.clip(np.stack(shades), 0, 255).astype(np.uint8)


def decode(file: Path) -> tuple[Any, float]:
    video, frames = cv2.VideoCapture(str(file)), []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.stack(frames), video.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("size", [(48, 64), (45, 81), (1, 3)])
def test_a_video_is_decoded_to_its_pictures_with_odd_sides_padded(av: Any, tmp_path: Path, size: Any) -> None:
    pictures = clip(5, *size)
    write_video(tmp_path / "v.mp4", pictures, fps=12.5)
    frames, fps = decode(tmp_path / "v.mp4")
    height, width = (max(16, side + side % 2) for side in size)
    assert frames.shape == (5, height, width, 3)
    assert fps == 12.5
    seen = frames[:, : size[0], : size[1]].astype(int)
    assert np.abs(seen - pictures).mean() < 4
    with av.open(str(tmp_path / "v.mp4")) as video:
        context = video.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.usefixtures("av")
@pytest.mark.parametrize(("fps", "written"), [(29.97, 29.97), (1e-310, 1 / 600), (1e9, 1000)])
def test_frames_per_second_are_kept_as_far_as_players_go(tmp_path: Path, fps: float, written: float) -> None:
    write_video(tmp_path / "v.mp4", clip(3, 16, 16), fps)
    frames, found = decode(tmp_path / "v.mp4")
    assert len(frames) == 3
    assert found == pytest.approx(written, rel=1e-3)


@pytest.mark.usefixtures("av")
def test_the_name_need_not_be_utf_8(tmp_path: Path) -> None:
    write_video(tmp_path / "caf\udce9.mp4", clip(2, 16, 16), 8)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 0


def test_no_pictures_are_no_video(av: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        write_video(tmp_path / "v.mp4", [], 8)


@pytest.mark.usefixtures("av")
def test_the_overlay_as_mp4_shows_what_the_gif_shows(tmp_path: Path) -> None:
    frames = clip(3, 180, 320)
    modal = np.zeros(frames.shape[:3], bool)
    modal[:, 60:120, 80:160] = True
    amodal = modal.copy()
    amodal[:, 60:120, 160:240] = True
    for name in ("o.gif", "o.mp4"):
        write_overlay(tmp_path / name, frames, modal, amodal, fps=8)
    seen, _ = decode(tmp_path / "o.mp4")
    assert seen.shape == (3, 210, 320, 3)
    drawn, _ = decode(tmp_path / "o.gif")
    assert np.abs(seen.astype(int) - drawn).mean() < 8  # the GIF has 256 colours


def test_without_pyav_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r'`pip install "amodal\[video\]"`, or write `video="gif"`'):
        require_video_encoder()
    with pytest.raises(MissingDependencyError):
        write_video(tmp_path / "v.mp4", clip(1, 16, 16), 8)
    assert not (tmp_path / "v.mp4").exists()
