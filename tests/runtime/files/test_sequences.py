"""Frames from whatever holds pictures in order: nothing is decoded early, and nothing is read in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from amodal.runtime.errors import InputError
from amodal.runtime.files import pictures
from amodal.runtime.files.frames import open_frames, read_frames
from amodal.runtime.files.pictures import open_picture
from amodal.runtime.paths import sort_names, stem_of

COUNT, HEIGHT, WIDTH = 4, 20, 32


@pytest.fixture
def rgb() -> Any:
    """Smooth frames with a corner that tells which way is up, each of another colour."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    base = np.stack([60 + 4 * x, 40 + 6 * y, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    clip = np.stack([base + np.uint8(10 * i) for i in range(COUNT)])
    clip[:, :4, :6] = 250
    return clip


def save_all(folder: Path, arrays: Any, name: str, **options: Any) -> Path:
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
        Image.fromarray(np.asarray(array)).save(folder / name.format(i), **options)
    return folder


def save_stack(file: Path, arrays: Any, **options: Any) -> Path:
    images = [Image.fromarray(array) for array in arrays]
    images[0].save(file, save_all=True, append_images=images[1:], **options)
    return file


@pytest.mark.parametrize(("suffix", "off"), [("gif", 1), ("tif", 0), ("webp", 0), ("png", 0), ("avif", 6)])
def test_a_moving_picture_or_stack_is_read_frame_by_frame(tmp_path: Path, rgb: Any, suffix: str, off: int) -> None:
    options = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
    frames = open_frames(save_stack(tmp_path / f"clip.{suffix}", rgb, **options))
    assert (frames.count, frames.names, frames.size()) == (COUNT, None, (HEIGHT, WIDTH))
    assert np.abs(frames.read([1, 3]).astype(int) - rgb[[1, 3]]).mean() <= off


def test_a_gif_says_its_frame_rate(tmp_path: Path, rgb: Any) -> None:
    assert open_frames(save_stack(tmp_path / "clip.gif", rgb, duration=200)).fps == 5


@pytest.mark.parametrize("suffix", ["gif", "avif", "jfif", "jp2", "ppm", "tga"])
def test_pictures_that_pillow_opens_are_read(tmp_path: Path, rgb: Any, suffix: str) -> None:
    options = {"format": "JPEG", "quality": 95} if suffix == "jfif" else {}
    folder = save_all(tmp_path / "frames", rgb, "{}." + suffix, **options)
    assert np.abs(read_frames(folder).astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, rgb: Any, orientation: int) -> None:
    turned = {
        1: rgb, 2: rgb[:, :, ::-1], 3: rgb[:, ::-1, ::-1], 4: rgb[:, ::-1],
        5: rgb.transpose(0, 2, 1, 3), 6: np.rot90(rgb, 1, (1, 2)), 7: rgb[:, ::-1, ::-1].transpose(0, 2, 1, 3),
        8: np.rot90(rgb, -1, (1, 2)),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    frames = open_frames(save_all(tmp_path / "f", map(np.ascontiguousarray, turned), "{}.jpg", quality=95, exif=exif))
    assert frames.size() == (HEIGHT, WIDTH)
    assert np.abs(frames.read().astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_pictures_are_scaled_by_the_bits_they_use(tmp_path: Path, rgb: Any, bits: int) -> None:
    grey = rgb[..., 0]
    full = 2**bits - 1
    frames = open_frames(save_all(tmp_path / "f", np.rint(grey / 255.0 * full).astype(np.uint16), "{}.png"))
    assert np.abs(frames.read()[..., 0].astype(int) - grey).max() <= (1 if bits < 10 else 0)
    assert [f"{full} is taken as white" in note for note in frames.notes] == ([True] if bits < 16 else [])


def test_one_bright_frame_sets_the_scale_of_all(tmp_path: Path) -> None:
    clip = np.full((3, 5, 6), 1000, np.uint16)
    clip[2] = 60000
    assert read_frames(save_all(tmp_path / "f", clip, "{}.png"))[:, 0, 0, 0].tolist() == [4, 4, 233]


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_their_range(tmp_path: Path, rgb: Any, scale: float) -> None:
    grey = rgb[..., 0]
    folder = save_all(tmp_path / "f", (grey / 255 * scale).astype(np.float32), "{}.tif")
    assert np.abs(read_frames(folder)[..., 0].astype(int) - grey).max() <= 1
    np.savez(tmp_path / "clip.npz", frames=(rgb / 255 * scale).astype(np.float32))
    assert np.abs(read_frames(tmp_path / "clip.npz").astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 1e6])
def test_floats_that_are_no_brightness_are_refused(tmp_path: Path, value: float) -> None:
    folder = save_all(tmp_path / "f", np.full((2, 4, 5), value, np.float32), "{}.tif")
    with pytest.raises(InputError, match="values"):
        read_frames(folder)


def test_colours_deeper_than_pillow_knows_are_read_in_their_order(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "0.tif"), np.full((4, 5, 3), (0.1, 0.5, 1.0), np.float32))  # OpenCV's order is BGR
    assert read_frames(tmp_path)[0, 0, 0].tolist() == [255, 128, 26]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_of_sixteen_bits_keep_their_bits(tmp_path: Path, rgb: Any, suffix: str) -> None:
    import cv2

    for i, frame in enumerate(rgb):
        cv2.imwrite(str(tmp_path / f"{i}.{suffix}"), frame[..., ::-1].astype(np.uint16) * 16)
    frames = open_frames(tmp_path)
    assert np.abs(frames.read().astype(int) - rgb).max() <= 1
    assert "4095 is taken as white" in frames.notes[0]


def test_greys_stored_as_colours_of_sixteen_bits_are_grey(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "0.png"), np.full((4, 5, 3), 300, np.uint16))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "0.png")), np.full((4, 5), 300))


def test_the_preview_in_a_cameras_jpeg_is_no_second_frame(tmp_path: Path, rgb: Any) -> None:
    images = [Image.fromarray(frame) for frame in rgb[:2]]
    images[0].save(tmp_path / "0.jpg", format="MPO", save_all=True, append_images=images[1:], quality=95)
    assert np.abs(read_frames(tmp_path)[0].astype(int) - rgb[0]).mean() < 3


def test_what_is_passed_over_in_a_folder_is_said_once(tmp_path: Path, rgb: Any) -> None:
    folder = save_all(tmp_path / "f", rgb, "{}.png")
    for name in ("a.txt", "b.txt", "c.mp4", ".hidden", "Thumbs.db"):
        (folder / name).touch()
    (folder / "more").mkdir()
    frames = open_frames(folder)
    assert frames.count == COUNT
    assert frames.notes == [f"{folder}: passed over files that are no images: 1 of .mp4, 2 of .txt, 1 folder."]


def test_a_link_to_nothing_among_frames_is_refused(tmp_path: Path, rgb: Any) -> None:
    folder = save_all(tmp_path / "f", rgb, "{}.png")
    (folder / "9.png").symlink_to(folder / "gone.png")
    with pytest.raises(InputError, match=r"9\.png is a link to a file that is not there"):
        open_frames(folder)


def test_deep_frames_without_contrast_are_pointed_out(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(29000, 31000, (2, 5, 6)).astype(np.uint16)
    frames = open_frames(save_all(tmp_path / "f", clip, "{}.png"))
    frames.read()
    assert "hardly have contrast" in frames.notes[0]


def test_two_files_of_one_frame_are_refused(tmp_path: Path, rgb: Any) -> None:
    folder = save_all(tmp_path / "f", rgb, "{}.png")
    Image.fromarray(rgb[0]).save(folder / "1.jpg")
    with pytest.raises(InputError, match=r"both 1\.\w+ and 1\.\w+, which name the same frame"):
        open_frames(folder)


def test_a_moving_picture_among_single_ones_is_refused(tmp_path: Path, rgb: Any) -> None:
    folder = save_all(tmp_path / "f", rgb, "{}.gif")
    save_stack(folder / "2.gif", rgb)
    with pytest.raises(InputError, match=r"2\.gif holds 4 pictures, but in a folder each file is one frame"):
        read_frames(folder)


def test_only_the_pictures_that_are_asked_for_are_decoded(
    tmp_path: Path, rgb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    load = ImageFile.ImageFile.load
    folder = save_all(tmp_path / "f", rgb, "{}.bmp")
    frames = open_frames(folder)
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: (decoded.append(Path(image.filename).name), load(image))[1]
    )
    assert frames.size() == (HEIGHT, WIDTH)
    assert decoded == []
    frames.read([2])
    assert set(decoded) == {"2.bmp"}


def test_heic_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    (tmp_path / "0.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(InputError, match="pip install pillow-heif"):
        read_frames(tmp_path)


def write_video(path: Path, clip: Any) -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, clip.shape[2:0:-1])
    for frame in clip:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def test_a_part_of_a_video_is_read(tmp_path: Path, rgb: Any) -> None:
    frames = open_frames(write_video(tmp_path / "v.avi", rgb))
    assert (frames.count, frames.stated, frames.fps, frames.size()) == (COUNT, COUNT, 10, (HEIGHT, WIDTH))
    assert np.abs(frames.read([1, 3]).astype(int) - rgb[[1, 3]]).mean() < 6
    assert frames.notes == []


def test_no_more_of_a_video_is_counted_than_is_wanted(tmp_path: Path, rgb: Any) -> None:
    rates: list[float | None] = []

    def most(fps: float | None) -> int:
        rates.append(fps)
        return 2

    frames = open_frames(write_video(tmp_path / "v.avi", rgb), most)
    assert (frames.count, frames.notes, rates) == (2, [], [10])


def test_a_video_that_ends_early_says_both_counts(tmp_path: Path, rgb: Any) -> None:
    file = write_video(tmp_path / "v.avi", np.tile(rgb, (5, 1, 1, 1)))
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"idx1") * 6 // 10])
    frames = open_frames(file)
    assert 0 < frames.count < frames.stated == 5 * COUNT
    assert f"ends after {frames.count} of the {frames.stated} frames" in frames.notes[0]
    assert len(frames.read()) == frames.count


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f_10.png", "f_2.png"], ["f_2.png", "f_10.png"]),
        (["0.5.png", "0.25.png", "1.0.png"], ["0.25.png", "0.5.png", "1.0.png"]),
        (["1.10.png", "1.9.png", "1.1.png"], ["1.1.png", "1.9.png", "1.10.png"]),
        (["b/1.png", "a/2.png"], ["a/2.png", "b/1.png"]),
    ],
)
def test_names_are_sorted_as_people_count(names: list[str], expected: list[str]) -> None:
    assert sort_names(names) == expected


def test_a_number_is_no_suffix() -> None:
    stems = {"a/0.25": "0.25", "0.25.png": "0.25", "clip.0001.exr": "clip.0001", "x": "x"}
    assert {name: stem_of(name) for name in stems} == stems
