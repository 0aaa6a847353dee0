"""Clips of any length and several objects, read a part at a time: the same as when they are read at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.clip import ClipFiles, read_clip
from amodal.runtime.files.clip_source import FileSource, Objects, open_clip
from amodal.runtime.files.recent import Recent
from amodal.runtime.files.video import Video

from . import layouts

COUNT, HEIGHT, WIDTH = 120, 24, 40
y, x = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([np.dstack([60 + x, 40 + 3 * y, np.full_like(x, i)]) for i in range(COUNT)]).astype(np.uint8)
FIRST = np.stack([(abs(x - 5 - i % 20) < 3) & (y > 4) & (y < 12) for i in range(COUNT)])
SECOND = np.stack([(x > 30) & (y > 14) & (77 <= i < 79) for i in range(COUNT)])  # in no picture of a sparse sample
IDS = (3 * FIRST + 7 * SECOND).astype(np.uint8)


def save(folder: Path, pictures: Any, start: int = 0) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(np.asarray(picture)).save(folder / f"{start + i:05d}.png")
    return folder


def save_video(path: Path, frames: Any) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return save(tmp_path / "frames", RGB)


def refusal(files: ClipFiles, objects: Objects = "all") -> str:
    with pytest.raises(InputError) as refused:
        open_clip(files, objects)
    return str(refused.value)


def in_parts(source: FileSource, name: Any, step: int = 13) -> Any:
    return np.concatenate([source.modal(name, range(i, min(i + step, source.count))) for i in range(0, COUNT, step)])


def test_all_objects_are_found_though_one_is_seen_in_two_frames(frames: Path, tmp_path: Path) -> None:
    source = open_clip(ClipFiles(frames, save(tmp_path / "masks", IDS)), "all")
    assert source.objects == (3, 7)
    assert np.array_equal(in_parts(source, 3), FIRST)
    assert np.array_equal(in_parts(source, 7), SECOND)
    assert source.seen(7) == [77, 78]
    assert np.array_equal(source.frames(range(50, 70)), RGB[50:70])


def test_a_single_object_seen_in_two_frames_is_found(frames: Path, tmp_path: Path) -> None:
    source = open_clip(ClipFiles(frames, save(tmp_path / "masks", SECOND * np.uint8(255))), "all")
    assert source.objects == (1,)
    assert np.array_equal(in_parts(source, 1), SECOND)


def colours(mask: Any, other: Any) -> Any:
    return np.where(mask[..., None], [255, 255, 255], np.where(other[..., None], [0, 200, 0], 0)).astype(np.uint8)


def test_a_white_object_is_the_same_where_no_other_colour_is_seen(frames: Path, tmp_path: Path) -> None:
    source = open_clip(ClipFiles(frames, save(tmp_path / "masks", colours(FIRST, SECOND))), "all")
    assert source.objects == ("#00c800", "#ffffff")
    assert np.array_equal(in_parts(source, "#ffffff"), FIRST)
    assert np.array_equal(in_parts(source, "#00c800"), SECOND & ~FIRST)


def test_alpha_is_read_alike_where_the_object_is_gone(frames: Path, tmp_path: Path) -> None:
    pictures = [np.dstack([frame, np.uint8(255) * mask]) for frame, mask in zip(RGB, SECOND, strict=True)]
    source = open_clip(ClipFiles(frames, save(tmp_path / "masks", pictures), mask_kind="alpha"), None)
    assert np.array_equal(in_parts(source, 1), SECOND)


def test_soft_masks_are_cut_at_half_in_every_part(frames: Path, tmp_path: Path) -> None:
    soft = np.stack([cv2.GaussianBlur(mask * np.uint8(255), (5, 5), 0) for mask in FIRST])
    soft[60:75] //= 3  # fades away
    files = ClipFiles(frames, save(tmp_path / "masks", soft))
    assert np.array_equal(in_parts(open_clip(files), 1), soft > 128)


def test_folders_of_objects_are_read_and_an_empty_one_is_named(frames: Path, tmp_path: Path) -> None:
    for name, masks in (("001", FIRST), ("002", np.zeros_like(FIRST)), ("010", SECOND)):
        save(tmp_path / "masks" / name, masks * np.uint8(255))
    source = open_clip(ClipFiles(frames, tmp_path / "masks"), "all")
    assert source.objects == (1, 2, 10)
    assert source.empty == (2,)
    assert any("object 2 in none of the 120 frames" in note for note in source.notes)
    assert np.array_equal(in_parts(source, 10), SECOND)


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (["3", 3], "named twice"),
        ([3, 9], "no object 9 in the 120 frames that are used, but 3, 7"),
        (None, "2 objects (3, 7)"),
    ],
)
def test_ids_that_do_not_fit_are_refused(frames: Path, tmp_path: Path, objects: Objects, said: str) -> None:
    assert said in refusal(ClipFiles(frames, save(tmp_path / "masks", IDS)), objects)


@pytest.mark.parametrize("kind", ["relative", "inverse", "metric", None])
def test_depth_in_parts_is_that_of_the_clip_read_at_once(frames: Path, tmp_path: Path, kind: Any) -> None:
    depth = np.random.default_rng(1).uniform(0.5, 4, (40, HEIGHT, WIDTH)).astype(np.float32)
    if kind is None:
        depth -= 0.5
    if kind == "metric":
        depth[:, 3:5, 3:9] = 0
        depth[10:13] = 0
    np.save(tmp_path / "d.npy", depth)
    masks = save(tmp_path / "masks", FIRST[:40] * np.uint8(255))
    files = ClipFiles(save(tmp_path / "short", RGB[:40]), masks, tmp_path / "d.npy", depth_kind=kind)
    whole, source = read_clip(files), open_clip(files)
    for step in (1, 7, 40):
        parts = [source.depth(range(i, min(i + step, 40))) for i in range(0, 40, step)]
        assert np.array_equal(np.concatenate(parts), whole.depth)
    assert source.notes == whole.warnings


def test_depth_that_stops_early_is_refused_with_both_counts(frames: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones((90, HEIGHT, WIDTH), np.float32))
    text = refusal(ClipFiles(frames, save(tmp_path / "masks", IDS), tmp_path / "d.npy"))
    assert "120 frames but 90 depth maps" in text


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames", RGB[:60])
    for i in range(60, COUNT):
        Image.fromarray(RGB[i, :-2]).save(folder / f"{i:05d}.png")
    source = open_clip(ClipFiles(folder, save(tmp_path / "masks", IDS)), "all")
    with pytest.raises(InputError, match=r"one size|must have one size"):
        [source.frames(range(i, i + 4)) for i in range(0, COUNT, 4)]


def test_masks_that_change_size_are_refused(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", IDS)
    Image.fromarray(IDS[77, :-2]).save(masks / "00077.png")
    assert "one size" in refusal(ClipFiles(frames, masks))


def test_a_video_is_opened_once_though_blocks_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = save_video(tmp_path / "v.avi", RGB)
    source = open_clip(ClipFiles(video, save(tmp_path / "masks", IDS)), "all")
    import amodal.runtime.files.video as module

    opened: list[Path] = []
    before = module._open
    monkeypatch.setattr(module, "_open", lambda path: (opened.append(path), before(path))[1])
    parts = {i: source.frames(range(i, min(i + 20, COUNT))) for i in range(0, COUNT, 12)}
    assert len(opened) == 1
    whole = np.stack(list(Video(video).read(range(COUNT))))
    assert all(np.array_equal(part, whole[i : i + 20]) for i, part in parts.items())
    other = source.again()
    opened.clear()
    other.frames(range(4))
    source.frames(range(112, 120))
    assert len(opened) == 1, "a second reader does not move the first one, nor is the video counted again"


def test_the_last_pictures_are_kept_up_to_a_number_of_bytes() -> None:
    asked: list[int] = []

    def read(numbers: list[int]) -> Any:
        asked.extend(numbers)
        return np.array(numbers, np.int64)[:, None]

    recent = Recent(read, most=32)
    assert recent.get(range(10))[:, 0].tolist() == list(range(10))
    assert recent.get(range(6, 12))[:, 0].tolist() == list(range(6, 12))
    assert asked == list(range(12))
    recent.get(range(3, 5))
    assert asked[12:] == [3, 4]


def test_all_tracks_of_a_file_are_read_as_each_alone(tmp_path: Path) -> None:
    masks = layouts.example()
    rgb = np.zeros((layouts.FRAMES, layouts.HEIGHT, layouts.WIDTH, 3), np.uint8)
    frames, path = save(tmp_path / "f", rgb, start=1), layouts.coco(tmp_path, masks)
    source = open_clip(ClipFiles(frames, path), "all")
    assert [str(one) for one in source.objects] == ["3", "12"]
    for one in source.objects:
        alone = read_clip(ClipFiles(frames, path, object_id=one)).modal
        assert np.array_equal(alone, masks[str(one)])
        assert np.array_equal(source.modal(one, range(1, 4)), alone[1:4])
    assert source.seen(source.objects[1]) == [0, 3, 4]
    assert open_clip(ClipFiles(frames, path), ["12"]).objects == (source.objects[1],)


def test_a_video_that_ends_early_is_noted_with_both_counts(tmp_path: Path) -> None:
    video = save_video(tmp_path / "v.avi", RGB)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    source = open_clip(ClipFiles(video, save(tmp_path / "masks", IDS)), "all")
    assert 60 < source.count < COUNT
    assert any(f"ends after {source.count} of the 120 frames" in note for note in source.notes)
    assert len(source.frames(range(source.count - 3, source.count))) == 3


def test_depth_without_a_kind_that_has_holes_later_is_refused_there(tmp_path: Path) -> None:
    depth = np.random.default_rng(2).uniform(0, 1, (COUNT, HEIGHT, WIDTH)).astype(np.float32)
    depth[100, 2, 2] = np.nan
    frames, masks = save(tmp_path / "frames", RGB), save(tmp_path / "masks", IDS)
    for at in (99, 100, 101):  # in the sample or not
        np.save(tmp_path / "d.npy", np.roll(depth, at - 100, axis=0))
        with pytest.raises(InputError, match="NaN or infinite"):
            open_clip(ClipFiles(frames, masks, tmp_path / "d.npy"), "all").depth(range(96, 104))
