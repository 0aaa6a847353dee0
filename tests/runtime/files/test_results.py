from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.results import (
    cut_out,
    png_names,
    write_frames_png,
    write_json,
    write_masks_json,
    write_masks_png,
)
from amodal.runtime.files.rle import decode_rle, encode_rle


def clip() -> tuple[Any, Any]:
    modal = np.zeros((3, 12, 16), np.bool_)
    modal[:2, 2:6, 3:8] = True
    amodal = modal.copy()
    amodal[:2, 2:9, 3:11] = True
    return modal, amodal


def test_mask_pngs_are_numbered_black_and_white_and_read_back(tmp_path: Path) -> None:
    modal, _ = clip()
    paths = write_masks_png(tmp_path / "masks", modal)
    assert [path.name for path in paths] == ["0000.png", "0001.png", "0002.png"]
    first = Image.open(paths[0])
    assert first.mode == "L"
    assert set(np.unique(np.asarray(first))) == {0, 255}
    assert np.array_equal(read_masks(tmp_path / "masks"), modal)


def test_pngs_carry_the_names_of_the_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 3)).astype(np.uint8)
    paths = write_frames_png(tmp_path / "done", frames, ["frame_8.jpg", "frame_9.jpg", "frame_10.jpg"])
    assert [path.name for path in paths] == ["frame_8.png", "frame_9.png", "frame_10.png"]
    assert np.array_equal(read_frames(tmp_path / "done"), frames)


def test_names_never_collide_and_never_leave_the_folder() -> None:
    assert png_names(2, ["a.jpg", "a.png"]) == ["a.jpg.png", "a.png.png"]
    assert png_names(1, ["../../etc/x.png"]) == ["x.png"]
    assert png_names(2) == ["0000.png", "0001.png"]
    with pytest.raises(ValueError, match="1 names for 2 pictures"):
        png_names(2, ["a"])


def test_masks_json_is_read_back_as_modal_and_as_amodal(tmp_path: Path) -> None:
    modal, amodal = clip()
    write_masks_json(tmp_path / "masks.json", modal, amodal, ["a", "b", "c"])
    assert np.array_equal(read_masks(tmp_path / "masks.json"), modal)
    assert np.array_equal(read_masks(tmp_path / "masks.json", key="amodal"), amodal)


def test_masks_json_says_size_area_and_box(tmp_path: Path) -> None:
    from pycocotools import mask as coco

    modal, amodal = clip()
    write_masks_json(tmp_path / "masks.json", modal, amodal, ["a", "b", "c"])
    document = json.loads((tmp_path / "masks.json").read_text())
    assert list(document) == ["format", "version", "frames"]
    assert [frame["name"] for frame in document["frames"]] == ["a", "b", "c"]
    first = document["frames"][0]["amodal"]
    assert first["size"] == [12, 16]
    assert first["area"] == 7 * 8
    assert first["bbox"] == [3, 2, 8, 7] == coco.toBbox(first).tolist()
    assert np.array_equal(decode_rle(first), amodal[0])
    assert document["frames"][2]["modal"]["bbox"] == [0, 0, 0, 0]


def test_masks_json_may_hold_one_kind_only(tmp_path: Path) -> None:
    _, amodal = clip()
    frames = [{"index": i, "amodal": encode_rle(mask)} for i, mask in enumerate(amodal)]
    write_json(tmp_path / "masks.json", {"frames": frames})
    assert np.array_equal(read_masks(tmp_path / "masks.json", key="amodal"), amodal)
    with pytest.raises(ValueError, match=r"masks\.json has frames without modal masks, only index, amodal"):
        read_masks(tmp_path / "masks.json")


def test_masks_of_different_lengths_are_not_written(tmp_path: Path) -> None:
    _, amodal = clip()
    for arguments in ((amodal[:2], amodal), (amodal, amodal[:2]), (amodal, amodal, ["a", "b"])):
        with pytest.raises(ValueError, match="argument"):
            write_masks_json(tmp_path / "x.json", *arguments)
    assert not (tmp_path / "x.json").exists()


def test_json_keeps_the_order_of_keys_takes_numpy_and_ends_with_a_newline(tmp_path: Path) -> None:
    value = {"b": np.float32(0.5), "a": np.arange(2), "p": tmp_path, "ü": (np.bool_(True), None)}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "ü" in text
    assert list(json.loads(text).items()) == [
        ("b", 0.5),
        ("a", [0, 1]),
        ("p", str(tmp_path)),
        ("ü", [True, None]),
    ]


@pytest.mark.parametrize(("value", "error"), [(np.nan, ValueError), (np.float32(np.inf), ValueError), ({1}, TypeError)])
def test_what_json_has_no_form_for_is_refused(tmp_path: Path, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        write_json(tmp_path / "x.json", {"a": value})
    assert not (tmp_path / "x.json").exists()


def test_names_that_are_no_utf_8_are_shown_in_json_and_kept_on_disk(tmp_path: Path) -> None:
    modal, amodal = clip()
    names = ["caf\udce9_0.jpg", "é\\xe9.jpg", "\ud800.jpg"]
    write_masks_json(tmp_path / "masks.json", modal, amodal, names)
    document = json.loads((tmp_path / "masks.json").read_bytes().decode("utf-8", "strict"))
    assert [frame["name"] for frame in document["frames"]] == ["caf\\xe9_0.jpg", "é\\xe9.jpg", "\\x00.jpg"]
    paths = write_masks_png(tmp_path / "masks", modal[:1], names[:1])
    assert os.listdir(os.fsencode(tmp_path / "masks")) == [b"caf\xe9_0.png"]
    assert paths[0].exists()


def test_a_cut_out_has_the_object_and_nothing_else(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(1, 256, (3, 12, 16, 3)).astype(np.uint8)
    modal, _ = clip()
    (path, *_) = write_frames_png(tmp_path / "visible", cut_out(frames, modal))
    picture = Image.open(path)
    assert picture.mode == "RGBA"
    seen = np.asarray(picture)
    assert np.array_equal(seen[..., 3], modal[0] * 255)
    assert np.array_equal(seen[modal[0]][:, :3], frames[0][modal[0]])
    assert not seen[~modal[0]].any()
