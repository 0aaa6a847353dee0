from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.frames import open_frames, read_frames
from amodal.runtime.files.listing import join_ranges, list_images

from ...places import SHARED


def picture(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def folder_of(root: Path, arrays: Any, name: str = "{}.png") -> Path:
    for i, array in enumerate(arrays):
        picture(root / name.format(i), array)
    return root


def noise(*shape: int, dtype: Any = np.uint8, high: int = 256) -> Any:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def write_video(path: Path, frames: Any, codec: str) -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 8, frames.shape[2:0:-1])
    if not writer.isOpened():
        pytest.skip(f"this OpenCV does not write {codec}")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_folder_of_pngs_is_read_as_it_was_written(tmp_path: Path) -> None:
    frames = noise(3, 6, 9, 3)
    read = read_frames(folder_of(tmp_path / "f", frames))
    assert read.dtype == np.uint8
    assert np.array_equal(read, frames)


def test_frame_2_comes_before_frame_10_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for i in (10, 2, 1, 100):
        picture(tmp_path / f"frame_{i}.png", np.full((2, 2, 3), i, np.uint8))
    picture(tmp_path / ".hidden.png", noise(5, 5, 3))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "more.png").mkdir()
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 10, 100]
    assert open_frames(tmp_path).names == ["frame_1.png", "frame_2.png", "frame_10.png", "frame_100.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".bmp", ".tif", ".webp"])
def test_every_kind_of_image_is_read(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"a{suffix}", np.full((16, 16, 3), 200, np.uint8))
    assert abs(int(read_frames(tmp_path).mean()) - 200) <= 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_frames_of_any_mode_become_rgb_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(noise(6, 8, 3)).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert np.array_equal(read_frames(tmp_path)[0], np.asarray(Image.open(path).convert("RGB")))


def test_a_video_is_read_as_rgb_in_its_order(tmp_path: Path) -> None:
    frames = np.zeros((5, 48, 64, 3), np.uint8)
    frames[..., 0] = 220
    frames[..., 2] = np.arange(5)[:, None, None] * 40
    read = read_frames(write_video(tmp_path / "clip_01.avi", frames, "MJPG"))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max() <= 12
    assert open_frames(tmp_path / "clip_01.avi").names is None


def test_a_video_of_another_codec_is_read(tmp_path: Path) -> None:
    assert read_frames(write_video(tmp_path / "clip.mp4", noise(3, 48, 64, 3), "mp4v")).shape == (
        3,
        48,
        64,
        3,
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; expected a folder of images or a video "):
        read_frames(tmp_path / "nowhere")


def test_a_path_too_long_for_the_system_is_an_input_error() -> None:
    with pytest.raises(InputError, match="File name too long"):
        read_frames("x" * 5000)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is an empty folder; expected images \(png, "):
        read_frames(tmp_path)


@pytest.mark.parametrize(("count", "what"), [(1, "a folder"), (3, "3 folders")])
def test_a_folder_of_folders_is_named(tmp_path: Path, count: int, what: str) -> None:
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".cache").mkdir()
    for i in range(count):
        folder_of(tmp_path / f"clip{i}", noise(1, 2, 2, 3))
    with pytest.raises(InputError, match=f"holds {what} and no images; give the one with the images"):
        list_images(tmp_path)


def test_an_archive_of_pictures_is_no_numpy_file(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", noise(2, 2))
    with zipfile.ZipFile(tmp_path / "depth.npz", "w") as archive:
        archive.write(tmp_path / "0.png", "0.png")
    with pytest.raises(InputError, match=r"depth\.npz cannot be read as a numpy file \(0\.png in it is no array\)"):
        read_frames(tmp_path / "depth.npz")


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.mp4").touch()
    with pytest.raises(InputError, match=r"holds 2 files, none of them an image; expected images"):
        read_frames(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str, keep: float) -> None:
    folder = folder_of(tmp_path, noise(2, 40, 40, 3), "{}" + suffix)
    victim = folder / f"1{suffix}"
    data = victim.read_bytes()
    victim.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=rf"1\{suffix} cannot be read as an image, "):
        read_frames(folder)


def test_a_file_that_only_calls_itself_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"GIF89a but not really")
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
        read_frames(tmp_path)


def test_a_flipped_byte_in_a_png_is_noticed(tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png", noise(40, 40, 3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
        read_frames(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "x.png", noise(4, 4, 3)).chmod(0)
    with pytest.raises(InputError, match=r"x\.png may not be read \(permission denied\)"):
        read_frames(tmp_path)


def test_images_of_different_sizes_name_both_sizes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", noise(4, 6, 3))
    picture(tmp_path / "b.png", noise(4, 5, 3))
    with pytest.raises(InputError, match=r"b\.png is 5 wide and 4 high but a\.png is 6 wide and 4 high; "):
        read_frames(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"hello"])
def test_a_file_that_is_no_video_is_named_and_nothing_else_is_printed(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)  # a video read before has set it
    path = tmp_path / "clip_01.mp4"
    path.write_bytes(content)
    code = (
        "import sys; from amodal.runtime.files.frames import read_frames\n"
        "try: read_frames(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path} cannot be decoded as a video")
    assert done.stdout.endswith("images.\n")
    assert done.stderr == ""


def test_a_single_image_is_not_taken_for_a_video(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"frame_{i}.png", noise(8, 8, 3))
    with pytest.raises(InputError, match=r"frame_0\.png is a single image; give its folder"):
        read_frames(tmp_path / "frame_0.png")


def test_a_file_where_a_folder_of_images_was_expected(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a\.txt cannot be opened as a folder"):
        list_images(tmp_path / "a.txt")


def test_frame_numbers_are_written_as_people_write_them() -> None:
    assert join_ranges([]) == ""
    assert join_ranges([4, 0, 1, 2, 7, 8]) == "0-2, 4, 7, 8"
    assert join_ranges(range(0, 40, 2), most=3) == "0, 2, 4, ..."


@pytest.mark.parametrize("clip", ["birdcage", "soccer"])
def test_the_authors_demo_frames_are_read_as_their_code_reads_them(clip: str) -> None:
    folder = SHARED / "samples" / clip / "rgbs"
    if not folder.is_dir():
        pytest.skip("the shared samples are not here")
    frames = read_frames(folder)
    for i in (0, 9, 10, 24):
        expected = np.asarray(Image.open(folder / f"frame_{i:03d}.png").convert("RGB"))
        assert np.array_equal(frames[i], expected)
