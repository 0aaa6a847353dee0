"""Clips as people bring them: read as they are meant, or refused in a sentence that says what decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.clip import Clip, ClipFiles, read_clip
from amodal.runtime.files.trimming import Moment, Trim

COUNT, HEIGHT, WIDTH = 6, 45, 80
y, x = np.mgrid[:HEIGHT, :WIDTH]
DISC = np.stack([(x - 16 - 9 * i) ** 2 + (y - 20) ** 2 < 64 for i in range(COUNT)])
OTHER = np.broadcast_to((y >= 34) & (y < 42) & (x >= 50) & (x < 74), DISC.shape)
RGB = np.stack([np.dstack([60 + x, 40 + 3 * y, np.full_like(x, 20 * i)]) for i in range(COUNT)]).astype(np.uint8)


def save(folder: Path, pictures: Any, name: str = "{:05d}.png", start: int = 0, **options: Any) -> Path:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
        image.save(folder / name.format(start + i), **options)
    return folder


def grey(masks: Any) -> Any:
    return masks.astype(np.uint8) * np.uint8(255)


def rle(mask: Any) -> dict[str, Any]:
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts if sum(counts) == mask.size else counts[:-1]}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return save(tmp_path / "frames", RGB)


def read(frames: Path, masks: Path, **more: Any) -> Clip:
    return read_clip(ClipFiles(frames, masks, **more))


def refusal(frames: Path, masks: Path, **more: Any) -> str:
    with pytest.raises(InputError) as refused:
        read(frames, masks, **more)
    return str(refused.value)


def test_masks_of_other_frames_are_refused(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", grey(DISC), start=4)
    text = refusal(frames, masks)
    assert "00000.png and 00004.png" in text
    assert "`pair=" in text
    assert np.array_equal(read(frames, masks, pair="order").modal, DISC)
    assert np.array_equal(read(frames, masks, missing_masks="empty").modal[4:], DISC[:2])


def test_frames_without_a_mask_are_named(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", grey(DISC[2:]), start=2)
    assert "2 of 6 frames have no mask (00000.png, 00001.png)" in refusal(frames, masks)
    clip = read(frames, masks, missing_masks="empty")
    assert np.array_equal(clip.modal[2:], DISC[2:])
    assert not clip.modal[:2].any()
    assert "2 frames have no mask" in clip.warnings[0]


@pytest.mark.parametrize("colour", ["white", "the frame", "black"])
def test_the_object_is_in_the_alpha_channel_where_that_varies(frames: Path, tmp_path: Path, colour: str) -> None:
    rgb = {"white": np.full_like(RGB, 255), "the frame": RGB, "black": np.zeros_like(RGB)}[colour]
    masks = save(tmp_path / "masks", np.concatenate([rgb, grey(DISC)[..., None]], axis=-1))
    assert np.array_equal(read(frames, masks).modal, DISC)


@pytest.mark.parametrize(("disc", "other", "dtype"), [(20, 160, np.uint8), (2002, 1001, np.uint16), (7, 300, np.int32)])
def test_several_levels_are_ids(frames: Path, tmp_path: Path, disc: int, other: int, dtype: Any) -> None:
    ids = np.where(DISC, disc, np.where(OTHER, other, 0)).astype(dtype)
    masks = save(tmp_path / "masks", ids, "{:05d}.tif" if dtype == np.int32 else "{:05d}.png")
    text = refusal(frames, masks)
    assert all(str(level) in text for level in (disc, other))
    assert "`object_id`" in text
    assert np.array_equal(read(frames, masks, object_id=str(disc)).modal, DISC)
    assert np.array_equal(read(frames, masks, object_id=other).modal, OTHER & ~DISC)


@pytest.mark.parametrize(
    ("disc", "other"), [((255, 0, 0), (255, 255, 0)), ((128, 0, 0), (0, 128, 0)), ((0, 0, 90), (90, 0, 90))]
)
@pytest.mark.parametrize("form", ["{:05d}.png", "{:05d}.jpg"])
def test_colours_are_ids_and_what_is_listed_can_be_typed(
    frames: Path, tmp_path: Path, disc: tuple[int, ...], other: tuple[int, ...], form: str
) -> None:
    colours = np.where(DISC[..., None], disc, np.where(OTHER[..., None], other, 0)).astype(np.uint8)
    options = {"quality": 95, "subsampling": 0} if form.endswith("jpg") else {}
    masks = save(tmp_path / "masks", colours, form, **options)
    text = refusal(frames, masks)
    if form.endswith("jpg") and "blend into one another, as after JPEG" in text:
        return  # said, and told apart from other reasons
    listed = [word.strip("(),;") for word in text.split() if word.strip("(),;").startswith("#")]
    assert len(listed) == 2
    near = min(listed, key=lambda text: sum(abs(int(text[1 + 2 * k : 3 + 2 * k], 16) - disc[k]) for k in range(3)))
    wrong = (read(frames, masks, object_id=near).modal != DISC).mean()
    assert wrong == 0 if form.endswith("png") else wrong < 0.01
    if form.endswith("png"):
        assert np.array_equal(read(frames, masks, object_id=",".join(map(str, disc))).modal, DISC)


@pytest.mark.parametrize("orientation", [3, 6])
def test_frames_and_masks_are_upright(tmp_path: Path, orientation: int) -> None:
    turned = RGB[:, ::-1, ::-1] if orientation == 3 else np.rot90(RGB, 1, (1, 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    frames = save(tmp_path / "frames", np.ascontiguousarray(turned), "{:05d}.jpg", quality=95, exif=exif)
    clip = read(frames, save(tmp_path / "masks", grey(DISC)))
    assert np.abs(clip.frames.astype(int) - RGB).mean() < 3


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_masks_as_a_moving_picture(frames: Path, tmp_path: Path, suffix: str) -> None:
    images = [Image.fromarray(mask) for mask in grey(DISC)]
    file = tmp_path / f"masks.{suffix}"
    images[0].save(file, save_all=True, append_images=images[1:])
    assert np.array_equal(read(frames, file).modal, DISC)


def test_ids_as_a_gif_keep_their_palette(frames: Path, tmp_path: Path) -> None:
    images = [Image.fromarray(ids) for ids in np.where(DISC, 1, np.where(OTHER, 2, 0)).astype(np.uint8)]
    for image in images:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    images[0].save(tmp_path / "ids.gif", save_all=True, append_images=images[1:])
    with pytest.raises(InputError, match="`object_id`"):
        read(frames, tmp_path / "ids.gif")


def write_video(file: Path, pictures: Any, codec: str) -> Path:
    import cv2

    size = pictures.shape[2:0:-1]
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 10, size)
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return file


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "FFV1")])
def test_masks_as_a_video_are_read_through_its_compression(tmp_path: Path, suffix: str, codec: str) -> None:
    disc, rgb = np.kron(DISC, np.ones((1, 4, 4), bool)), np.kron(RGB, np.ones((1, 4, 4, 1), np.uint8))
    frames = save(tmp_path / "big", rgb)
    file = write_video(tmp_path / f"masks.{suffix}", np.repeat(grey(disc)[..., None], 3, axis=-1), codec)
    assert (read(frames, file).modal != disc).mean() < 0.002


def test_json_layouts_of_sam_2_are_read(frames: Path, tmp_path: Path) -> None:
    documents = {
        "demo": [
            {"frameIndex": i, "rleMaskList": [{"objectId": 0, "rleMask": rle(m)}, {"objectId": 1, "rleMask": rle(o)}]}
            for i, (m, o) in enumerate(zip(DISC, OTHER, strict=True))
        ],
        "segments": {str(i): {"0": rle(m), "1": rle(o)} for i, (m, o) in enumerate(zip(DISC, OTHER, strict=True))},
    }
    for name, document in documents.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(document))
        assert "`object_id`" in refusal(frames, file)
        assert np.array_equal(read(frames, file, object_id="0").modal, DISC)


def coco(names: list[str], key: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    masks = {0: DISC, 1: OTHER}
    annotations = [
        {"id": 2 * i + t, "image_id": i, "category_id": 1, "segmentation": rle(masks[t][i]), **key[t]}
        for i in range(len(names))
        for t in masks
    ]
    return {"images": images, "annotations": annotations}


@pytest.mark.parametrize(
    ("key", "object_id"),
    [
        ({0: {"track_id": "car_1"}, 1: {"track_id": "car_2"}}, "car_1"),
        ({0: {"attributes": {"track_id": 0}}, 1: {"attributes": {"track_id": 1}}}, "0"),
    ],
)
def test_tracks_are_told_apart_by_any_id(frames: Path, tmp_path: Path, key: dict[str, Any], object_id: str) -> None:
    file = tmp_path / "masks.json"
    file.write_text(json.dumps(coco([f"{i:05d}.jpg" for i in range(COUNT)], key)))
    assert "`object_id`" in refusal(frames, file)
    assert np.array_equal(read(frames, file, object_id=object_id).modal, DISC)


def test_a_json_of_the_whole_video_serves_a_part_of_its_frames(tmp_path: Path) -> None:
    file = tmp_path / "masks.json"
    key = {0: {"track_id": 1}, 1: {"track_id": 2}}
    file.write_text(json.dumps(coco([f"video/{i:05d}.jpg" for i in range(COUNT)], key)))
    part = save(tmp_path / "part", RGB[2:5], start=2)
    assert np.array_equal(read(part, file, object_id=1).modal, DISC[2:5])


def test_the_json_of_labelme_lies_beside_the_frames(frames: Path) -> None:
    square = [[10, 10], [30, 10], [30, 20], [10, 20]]
    for i in range(COUNT):
        shape = {"label": "a", "points": square, "shape_type": "polygon", "group_id": None, "flags": {}}
        document = {"shapes": [shape], "imageHeight": HEIGHT, "imageWidth": WIDTH, "imagePath": f"{i:05d}.png"}
        (frames / f"{i:05d}.json").write_text(json.dumps({**document, "version": "5.4", "imageData": None}))
    clip = read(frames, frames)
    assert clip.modal[:, 12:18, 12:28].all()
    assert not clip.modal[:, 24:].any()
    assert np.array_equal(read(save(frames.parent / "copy", RGB), frames).modal, clip.modal)


def test_a_file_of_ids_per_frame_as_grounded_sam_2_writes_it(frames: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mask_data"
    folder.mkdir()
    for i, (disc, other) in enumerate(zip(DISC, OTHER, strict=True)):
        np.save(folder / f"mask_{i:05d}.npy", (disc * 1 + (other & ~disc) * 2).astype(np.uint16))
    assert np.array_equal(read(frames, folder, object_id=1).modal, DISC)


def test_a_folder_per_object_is_picked_by_its_name(frames: Path, tmp_path: Path) -> None:
    root = tmp_path / "objects"
    root.mkdir()
    save(root / "cup", grey(DISC))
    save(root / "001", grey(OTHER))
    text = refusal(frames, root)
    assert "1, cup" in text
    assert np.array_equal(read(frames, root, object_id="cup").modal, DISC)
    assert np.array_equal(read(frames, root, object_id=1).modal, OTHER)


def test_masks_of_another_size_and_the_same_shape_are_resized_and_that_is_said(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "big", np.kron(grey(DISC), np.ones((1, 3, 3), np.uint8)))
    clip = read(frames, masks)
    assert np.array_equal(clip.modal, DISC)
    assert any("resized" in warning for warning in clip.warnings)
    flat = save(tmp_path / "flat", grey(DISC)[:, :22])
    assert "another shape of picture" in refusal(frames, flat)


def test_nothing_is_decoded_before_names_and_counts_are_settled(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", grey(DISC[:4]))
    for file in (*frames.iterdir(), *masks.iterdir()):
        file.write_bytes(b"no picture")
    assert "2 of 6 frames have no mask" in refusal(frames, masks)
    with pytest.raises(InputError, match="holds 6 frames where the bundle takes at most 5"):
        read_clip(ClipFiles(frames, masks), limit=5)


def test_a_clip_is_trimmed_with_all_that_belongs_to_it(frames: Path, tmp_path: Path) -> None:
    depth = save(tmp_path / "depth", [np.full((HEIGHT, WIDTH), 40 * i, np.uint8) for i in range(COUNT)])
    masks = save(tmp_path / "masks", grey(DISC))
    files = ClipFiles(frames, masks, depth, trim=Trim(Moment(1), Moment(6), Moment(2)))
    clip = read_clip(files, limit=3)
    assert np.array_equal(clip.frames, RGB[[1, 3, 5]])
    assert np.array_equal(clip.modal, DISC[[1, 3, 5]])
    assert clip.names == ["00001.png", "00003.png", "00005.png"]
    assert clip.depth is not None
    assert np.array_equal(np.argsort(clip.depth[:, 0, 0]), [0, 1, 2])
    part = save(tmp_path / "part", grey(DISC[[1, 3, 5]]), "one {}.png")
    assert np.array_equal(read_clip(replace(files, masks=part, pair="order")).modal, DISC[[1, 3, 5]])


def test_the_frame_rate_of_a_video_counts_only_the_frames_used(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", np.kron(RGB, np.ones((1, 4, 4, 1), np.uint8)), "MJPG")
    masks = save(tmp_path / "masks", np.kron(grey(DISC), np.ones((1, 4, 4), np.uint8)))
    trim = Trim(Moment(0.1, seconds=True), None, Moment(2))
    clip = read(video, masks, trim=trim)
    assert (len(clip.frames), clip.fps, clip.names) == (3, 5, None)


def test_a_video_cut_off_keeps_its_masks_and_says_so(tmp_path: Path) -> None:
    rgb, disc = np.kron(RGB, np.ones((1, 4, 4, 1), np.uint8)), np.kron(grey(DISC), np.ones((1, 4, 4), np.uint8))
    video = write_video(tmp_path / "v.avi", rgb, "MJPG")
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 6 // 10])
    clip = read(video, save(tmp_path / "masks", disc))
    assert 0 < len(clip.frames) < COUNT
    assert np.array_equal(grey(clip.modal), disc[: len(clip.frames)])
    assert f"ends after {len(clip.frames)} of the 6 frames" in clip.warnings[0]


def test_depth_of_another_shape_is_stretched_and_that_is_said(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", grey(DISC))
    depth = save(tmp_path / "depth", [np.arange(HEIGHT * 50, dtype=np.uint16).reshape(HEIGHT, 50)] * COUNT)
    clip = read(frames, masks, depth=depth)
    assert any("another shape of picture" in warning for warning in clip.warnings)


def test_turned_frames_and_depth_that_was_not_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.ascontiguousarray(np.rot90(RGB, 1, (1, 2)))
    frames = save(tmp_path / "frames", turned, "{:05d}.jpg", exif=exif)
    masks = save(tmp_path / "masks", grey(DISC))
    assert any("EXIF orientation" in warning for warning in read(frames, masks).warnings)
    depth = save(tmp_path / "depth", [np.full((WIDTH, HEIGHT), 10 * i, np.uint8) for i in range(COUNT)])
    with pytest.raises(InputError, match="not turned upright"):
        read(frames, masks, depth=depth)


def test_masks_of_the_background_are_pointed_out(frames: Path, tmp_path: Path) -> None:
    clip = read(frames, save(tmp_path / "masks", grey(~DISC)))
    assert any("if that is the background, invert them" in warning for warning in clip.warnings)


def test_a_mask_of_one_bit_among_others_has_their_range(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", grey(DISC))
    Image.fromarray(DISC[2]).save(masks / "00002.png")
    assert np.array_equal(read(frames, masks).modal, DISC)
    Image.fromarray(DISC[2].astype(np.uint16) * 65535).save(masks / "00002.png")
    assert "whose ranges differ" in refusal(frames, masks)


def test_whole_masks_of_several_objects_are_picked_like_visible_ones(frames: Path, tmp_path: Path) -> None:
    masks = save(tmp_path / "masks", np.where(DISC, 1, np.where(OTHER, 2, 0)).astype(np.uint8))
    whole = save(tmp_path / "whole", np.where(OTHER, 2, DISC).astype(np.uint8))
    alone = save(tmp_path / "alone", grey(OTHER))
    for amodal in (whole, alone):
        clip = read(frames, masks, object_id=2, amodal=amodal)
        assert clip.amodal is not None
        assert np.array_equal(clip.amodal, OTHER)
