"""Depth as people store it: every form of the same clip is read the same, and what is none is named."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError, MissingDependencyError
from amodal.runtime.files.depth import open_depth, read_depth

from .test_frames import folder_of, noise, picture, write_video


def ramp(count: int = 3, height: int = 12, width: int = 16) -> Any:
    """Relative depth from 0 to 9, another in each frame."""
    return np.linspace(0, 9, count * height * width, dtype=np.float32).reshape(count, height, width)


DEPTH = ramp()


def write_npy_files(path: Path) -> None:
    for i, one in enumerate(DEPTH):
        np.save(path / f"{i + 8}.npy", one if i else one[None])


def write_npz_files(path: Path) -> None:
    for i, one in enumerate(DEPTH):
        np.savez(path / f"{i + 8}.npz", depth=one[..., None], other=np.zeros(3))


def write_tiffs(path: Path) -> None:
    for i, one in enumerate(DEPTH):
        Image.fromarray(one).save(path / f"{i + 8}.tif")


def write_pfms(path: Path) -> None:
    for i, one in enumerate(DEPTH):
        assert cv2.imwrite(str(path / f"{i + 8}.pfm"), one)


@pytest.mark.parametrize("write", [write_npy_files, write_npz_files, write_tiffs, write_pfms])
def test_a_file_per_frame_is_read_in_natural_order(write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes.txt").write_text("no depth")
    (tmp_path / ".hidden.png").touch()
    source = open_depth(tmp_path)
    assert source.count == 3
    assert source.names is not None
    assert [Path(name).stem for name in source.names] == ["8", "9", "10"]
    np.testing.assert_array_equal(source.read(), DEPTH)
    np.testing.assert_array_equal(source.read([2, 0]), DEPTH[[2, 0]])
    np.testing.assert_array_equal(read_depth(tmp_path), DEPTH)
    assert "1 of .txt" in source.notes[0]


@pytest.mark.parametrize("name", ["depth.npy", "depth.npz", "clip_depths.npz", "stack.tiff"])
def test_a_file_of_all_frames_is_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name == "depth.npy":
        np.save(file, DEPTH[:, None])
    elif name == "depth.npz":
        np.savez_compressed(file, other=np.zeros(3), depth=DEPTH[..., None])
    elif name == "clip_depths.npz":  # as Video Depth Anything writes it
        np.savez_compressed(file, depths=DEPTH)
    else:
        first, *others = (Image.fromarray(one) for one in DEPTH)
        first.save(file, save_all=True, append_images=others)
    source = open_depth(file)
    assert (source.names, source.count) == (None, 3)
    np.testing.assert_array_equal(source.read(), DEPTH)
    np.testing.assert_array_equal(source.read([1]), DEPTH[1:2])


def test_a_tiff_stack_of_sixteen_bits_is_read(tmp_path: Path) -> None:
    depth = noise(3, 5, 7, dtype=np.uint16, high=65536)
    first, *others = (Image.fromarray(one) for one in depth)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_depth(tmp_path / "stack.tif"), depth.astype(np.float32))


def test_a_grey_video_is_relative_depth_and_one_in_colour_is_refused(tmp_path: Path) -> None:
    grey = np.stack([np.linspace(t, 200 + t, 64 * 48).reshape(48, 64) for t in range(3)]).astype(np.uint8)
    file = write_video(tmp_path / "depth.avi", np.repeat(grey[..., None], 3, axis=-1), "MJPG")
    read = read_depth(file)
    assert read.shape == grey.shape
    assert np.abs(read - grey).mean() < 3
    coloured = np.stack([cv2.applyColorMap(one, cv2.COLORMAP_INFERNO)[..., ::-1] for one in grey])
    with pytest.raises(InputError, match=r"is a video in colour .* colour maps cannot be undone") as refusal:
        read_depth(write_video(tmp_path / "inferno.avi", coloured, "MJPG"))
    assert refusal.value.field == "depth"


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 256), (np.uint16, 65536)])
def test_depth_pngs_are_read_as_stored(tmp_path: Path, dtype: Any, high: int) -> None:
    depth = noise(3, 5, 7, dtype=dtype, high=high)
    source = open_depth(folder_of(tmp_path / "d", depth))
    read = source.read()
    assert read.dtype == np.float32
    assert np.array_equal(read, depth.astype(np.float32))


def test_a_turned_picture_is_put_upright(tmp_path: Path) -> None:
    depth = noise(5, 7)
    image, exif = Image.fromarray(depth), Image.Exif()
    exif[0x0112] = 6  # shot with the camera turned
    image.save(tmp_path / "0.png", exif=exif)
    np.testing.assert_array_equal(read_depth(tmp_path)[0], np.rot90(depth, -1))


def test_grey_depth_saved_as_rgb_or_palette_is_read(tmp_path: Path) -> None:
    grey = noise(5, 7)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "0.png")
    Image.fromarray(grey).quantize(256).save(tmp_path / "1.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "2.png")
    assert np.array_equal(read_depth(tmp_path), np.stack([grey] * 3).astype(np.float32))


def test_coloured_depth_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", noise(5, 7, 3))
    with pytest.raises(InputError, match=r"0\.png is a colour picture, .*expected 8- or 16-bit grey"):
        read_depth(tmp_path)


def test_depth_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, [noise(5, 7), noise(7, 5)])
    with pytest.raises(InputError, match=r"1\.png is 5 wide and 7 high but 0\.png is 7 wide "):
        read_depth(tmp_path)


def test_a_folder_of_two_kinds_of_files_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, noise(2, 5, 7))
    np.save(tmp_path / "0.npy", DEPTH[0])
    with pytest.raises(InputError, match="holds 2 images and 1 numpy files; give a folder with one kind alone"):
        read_depth(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; expected a folder with a grey image"):
        read_depth(tmp_path / "nowhere")


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("beside", ["conf", "extrinsics", "intrinsics"])
def test_metric_archives_are_refused_until_their_kind_is_said(beside: str, tmp_path: Path) -> None:
    metres = (1 / (0.1 + DEPTH / 9)).astype(np.float16)
    file = save(tmp_path / "result.npz", depth=metres, **{beside: np.zeros(3)})
    with pytest.raises(InputError, match=rf'result\.npz looks like .* named {beside!r}; say `depth_kind="metric"`'):
        read_depth(file)
    np.testing.assert_allclose(read_depth(file, "metric"), 0.1 + DEPTH / 9, rtol=2e-3)


def test_millimetres_with_holes_are_refused_until_their_kind_is_said(tmp_path: Path) -> None:
    distances = (1000 / (0.1 + DEPTH / 9)).astype(np.uint16)
    distances[:, :2] = 0
    folder_of(tmp_path / "depth", distances)
    with pytest.raises(InputError, match=r"depth looks like distances .*16\.7 % of its pixels are 0") as refusal:
        read_depth(tmp_path / "depth")
    assert refusal.value.field == "depth_kind"
    relative, notes = open_depth(tmp_path / "depth").relative("metric")
    np.testing.assert_allclose(relative[:, 2:], 1 / distances[:, 2:], rtol=1e-6)
    np.testing.assert_allclose(relative[:, 0], relative[:, 2], rtol=1e-6)
    assert notes == ["96 depth pixels without a measurement (16.7 %) were filled with the nearest measured depth."]
    folder_of(tmp_path / "mm", (DEPTH * 20).astype(np.uint8))
    with pytest.raises(InputError, match="its name is 'mm'"):
        read_depth(tmp_path / "mm")


def test_nan_is_refused_until_the_kind_is_said(tmp_path: Path) -> None:
    depth = DEPTH.copy()
    depth[2, 0, :4] = np.nan
    np.save(tmp_path / "a.npy", depth)
    with pytest.raises(InputError, match=r"a\.npy looks like .* 0\.7 % of its pixels are NaN or infinite"):
        read_depth(tmp_path / "a.npy")
    assert np.isfinite(read_depth(tmp_path / "a.npy", "relative")).all()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"a": np.zeros((2, 3)), "b": np.zeros(1)},
            r"holds the arrays a, b; expected a single one, or one named",
        ),
        ({"a": np.zeros((2, 3))}, r"array of shape \[2, 3\]; expected \[T, H, W\]"),
        ({"a": np.zeros((0, 3, 3))}, r"array of shape \[0, 3, 3\]"),
        ({"a": np.array([None])}, r"cannot be read as a numpy file "),
        ({"a": np.zeros((2, 3, 3), complex)}, r"holds complex128 values; expected floats"),
        ({}, r"holds the arrays none"),
    ],
)
def test_wrong_depth_archives_say_what_they_hold(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=r"x\.npz .*" + sentence):
        read_depth(save(tmp_path / "x.npz", **arrays))


def test_damaged_and_foreign_depth_files_are_named(tmp_path: Path) -> None:
    data = save(tmp_path / "x.npz", a=np.random.default_rng(0).random((20, 30, 30))).read_bytes()
    (tmp_path / "x.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "y.npy").write_bytes(b"")
    for name in ("x.npz", "y.npy"):
        with pytest.raises(InputError, match=rf"{name} cannot be read as a numpy file "):
            read_depth(tmp_path / name)
    folder_of(tmp_path, noise(1, 5, 7))
    with pytest.raises(InputError, match=r"0\.png is a single image; give its folder"):
        read_depth(tmp_path / "0.png")
    (tmp_path / "z.txt").write_text("no video")
    with pytest.raises(InputError, match=r"z\.txt is not a supported kind of file; give a folder with") as refusal:
        read_depth(tmp_path / "z.txt")
    assert refusal.value.field == "depth"
    (tmp_path / "flat").mkdir()
    np.save(tmp_path / "flat" / "0.npy", np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match=r"0\.npy holds an array of shape \[2, 3, 4\]; expected one frame \[h, w\]"):
        read_depth(tmp_path / "flat")
    first, *others = (Image.fromarray(one) for one in DEPTH)
    first.save(tmp_path / "cut.tif", save_all=True, append_images=others)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-300])
    with pytest.raises(InputError, match=r"cut\.tif"):
        read_depth(tmp_path / "cut.tif")


def exr_of(channels: dict[str, Any]) -> bytes:
    """An uncompressed EXR of float32 channels, after the specification."""
    names = sorted(channels)
    height, width = next(iter(channels.values())).shape

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    listed = b"".join(name.encode() + b"\0" + struct.pack("<iBxxxii", 2, 0, 1, 1) for name in names) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"".join(
        [
            struct.pack("<ii", 20000630, 2),
            attribute("channels", "chlist", listed),
            attribute("compression", "compression", b"\0"),
            attribute("dataWindow", "box2i", window),
            attribute("displayWindow", "box2i", window),
            attribute("lineOrder", "lineOrder", b"\0"),
            attribute("pixelAspectRatio", "float", struct.pack("<f", 1)),
            attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            attribute("screenWindowWidth", "float", struct.pack("<f", 1)),
            b"\0",
        ]
    )
    rows = [b"".join(channels[name][y].astype("<f4").tobytes() for name in names) for y in range(height)]
    start = len(header) + 8 * height
    places = struct.pack(f"<{height}Q", *(start + y * (8 + len(rows[0])) for y in range(height)))
    return header + places + b"".join(struct.pack("<ii", y, len(row)) + row for y, row in enumerate(rows))


def test_exr_is_read_where_a_library_can_and_otherwise_named(tmp_path: Path) -> None:
    for i, one in enumerate(DEPTH):
        (tmp_path / f"{i}.exr").write_bytes(exr_of({"Y": one}))
    if find_spec("OpenEXR") is None and "OpenEXR:                     NO" in cv2.getBuildInformation():
        with pytest.raises(MissingDependencyError, match=r"0\.exr is EXR, which this OpenCV cannot read; run `pip in"):
            read_depth(tmp_path)
    else:
        np.testing.assert_array_equal(read_depth(tmp_path), DEPTH)


def test_the_channel_of_an_exr_is_the_one_called_depth(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    other = np.ones_like(DEPTH[0])
    file = tmp_path / "0.exr"
    file.write_bytes(exr_of({"ViewLayer.Combined.R": other, "ViewLayer.Depth.Z": DEPTH[0]}))
    np.testing.assert_array_equal(open_depth(tmp_path).read()[0], DEPTH[0])
    with pytest.raises(InputError, match=r"an array named 'ViewLayer\.Depth\.Z'"):
        read_depth(tmp_path)  # by the specification, Z is a distance
    file.write_bytes(exr_of({"R": DEPTH[0], "G": DEPTH[0], "B": DEPTH[0]}))
    np.testing.assert_array_equal(read_depth(tmp_path)[0], DEPTH[0])
    file.write_bytes(exr_of({"R": DEPTH[0], "G": other, "B": other}))
    with pytest.raises(InputError, match="holds the channels B, G, R, none of them depth"):
        read_depth(tmp_path)
    file.write_bytes(b"v/1\x01")
    with pytest.raises(InputError, match=r"0\.exr cannot be read as EXR"):
        read_depth(tmp_path)
