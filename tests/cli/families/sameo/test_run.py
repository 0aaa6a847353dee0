"""`amodal run` with a bundle of SAMEO: boxes or visible masks in, masks and pictures out, and what is refused."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

import amodal
from amodal.cli.families.sameo import job
from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.video_writing import write_video
from amodal.runtime.scenes import make_things

from ...conftest import Outcome, issue, leftovers

SIZES = ((40, 60), (50, 44), (40, 60), (40, 60))
MODES = ("RGB", "RGB", "L", "RGBA")


class Folder(NamedTuple):
    """Four pictures of several sizes and modes, five boxes on three of them, and what a detector says of these."""

    images: Path
    boxes: Path
    rows: list[dict[str, Any]]

    @property
    def options(self) -> tuple[object, ...]:
        return ("--images", self.images, "--detections", self.boxes, "--threads", "1")


def make_folder(root: Path) -> Folder:
    rng = np.random.default_rng(4)
    (root / "images").mkdir(parents=True)
    for index, (size, mode) in enumerate(zip(SIZES, MODES, strict=True)):
        picture = Image.fromarray(rng.integers(0, 256, (*size, 4), np.uint8)).convert(mode)
        picture.save(root / "images" / f"shot_{index:05d}.png")
    boxes = {0: [[5, 6, 20, 15], [30, 2, 25, 30]], 2: [[1, 1, 10, 10]], 3: [[-4, 10, 30, 40], [20, 20, 12, 9]]}
    rows = [
        {"image_id": image, "bbox": box, "category_id": 1 + index % 2, "score": 0.9 - 0.1 * image}
        for image, listed in boxes.items()
        for index, box in enumerate(listed)
    ]
    rows = rows[::-1]  # in no order of pictures
    (root / "boxes.json").write_text(json.dumps(rows))
    return Folder(root / "images", root / "boxes.json", rows)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "onnx_ir", "safetensors"):
        pytest.importorskip(module)
    out = tmp_path_factory.mktemp("sameo") / "bundle"
    options = ("--random", "tiny", "--precision", "fp32", "--check", "none", "-q")
    outcome = issue("export", "--family", "sameo", *options, "-o", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Not to be changed."""
    return make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def boxed(bundle: Path, kept: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """What a run on boxes wrote, and said; not to be changed."""
    out = tmp_path_factory.mktemp("boxed") / "out"
    outcome = issue("run", bundle, *kept.options, "--cutouts", "-o", out)
    assert outcome.code == 0, outcome.err
    return out, outcome


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, NDArray[np.uint8], NDArray[np.bool_]]:
    """Three frames and the visible masks of two objects, as folders and as arrays; the second is hidden in frame 1."""
    root = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 256, (3, 40, 60, 3), np.uint8)
    modal = np.zeros((2, 3, 40, 60), bool)
    modal[0, :, 5:20, 5:25] = True
    modal[1, ::2, 22:35, 30:50] = True
    for index in range(3):
        for folder, picture in (
            ("frames", frames[index]),
            ("masks", (modal[0] + 2 * modal[1]).astype(np.uint8)[index]),
        ):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(root / folder / f"{index:04d}.png")
    return root / "frames", root / "masks", frames, modal


def test_rows_are_the_models_masks_with_both_scores_multiplied(
    bundle: Path, kept: Folder, boxed: tuple[Path, Outcome]
) -> None:
    rows = json.loads((boxed[0] / "coco_results.json").read_text())
    assert sorted(row["detection"] for row in rows) == list(range(len(kept.rows)))
    with amodal.load(bundle, threads=1) as model:
        for row in rows:
            asked = kept.rows[row["detection"]]
            x, y, width, height = asked["bbox"]
            picture = Image.open(kept.images / f"shot_{asked['image_id']:05d}.png").convert("RGB")
            found = model.predict(np.asarray(picture), boxes=[[x, y, x + width, y + height]])
            assert (row["image_id"], row["category_id"]) == (asked["image_id"], asked["category_id"])
            # Boxes of a picture are decoded together, so a pixel may fall on the other side.
            assert (coco.decode(row["segmentation"]) != found.masks[0]).mean() < 2e-3
            assert row["predicted_iou"] == pytest.approx(float(found.iou[0]), abs=1e-4)
            assert row["score"] == pytest.approx(asked["score"] * row["predicted_iou"])


def test_the_result_lists_what_is_there_and_how_fast_it_was(kept: Folder, boxed: tuple[Path, Outcome]) -> None:
    out, outcome = boxed
    result = json.loads((out / "result.json").read_text())
    assert {path.name for path in out.iterdir()} == {name.rstrip("/") for name in result["files"]}
    assert result["inputs"]["count"] == 3
    assert result["throughput"]["masks"] == len(kept.rows)
    assert result["throughput"]["images_per_second"] > 0
    assert result["settings"]["select"] == "best"
    assert "1 of 4 pictures have no boxes" in outcome.err
    assert leftovers(out.parent) == []


def test_pictures_and_cutouts_are_named_after_their_files(kept: Folder, boxed: tuple[Path, Outcome]) -> None:
    out = boxed[0]
    assert sorted(path.name for path in (out / "overlay").iterdir()) == [f"shot_{i:05d}.png" for i in (0, 2, 3)]
    rows = json.loads((out / "coco_results.json").read_text())
    for row in rows:
        with Image.open(out / "rgba" / f"shot_{row['image_id']:05d}-{row['detection']}.png") as cut:
            alpha = np.asarray(cut)[..., 3]
        np.testing.assert_array_equal(alpha > 0, coco.decode(row["segmentation"]) > 0)


def test_masks_give_masks_per_object_as_the_other_family_writes_them(
    bundle: Path, objects: tuple[Path, Path, Any, Any], tmp_path: Path
) -> None:
    frames, masks, rgb, modal = objects
    outcome = issue(
        *("run", bundle, "--images", frames, "--masks", masks, "--threads", "1", "--points", "1"),
        *("--video", "gif", "--json", "-q", "-o", tmp_path / "out"),
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["inputs"]["objects"] == [1, 2]
    with amodal.load(bundle, threads=1) as model:
        expected = np.stack([model.predict_from_masks(rgb[t], modal[:, t], points=1).masks for t in range(3)], axis=1)
    for index in range(2):
        written = read_masks(tmp_path / "out" / "objects" / str(index + 1) / "amodal_masks")
        np.testing.assert_array_equal(written, expected[index])
    document = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert [(one["image_id"], one["track_id"]) for one in document["annotations"]] == [
        *((1, 1), (1, 2), (2, 1), (3, 1), (3, 2))
    ]
    with Image.open(tmp_path / "out" / "overlay.gif") as gif:
        assert gif.n_frames == 3


def test_one_object_alone_has_no_folder_of_its_own(
    bundle: Path, objects: tuple[Path, Path, Any, Any], tmp_path: Path
) -> None:
    frames, masks, rgb, modal = objects
    where = ("--images", frames, "--masks", masks, "--objects", "1", "--threads", "1")
    outcome = issue("run", bundle, *where, "--no-unite", "--no-overlay", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with amodal.load(bundle, threads=1) as model:
        expected = [model.predict_from_masks(rgb[t], modal[:1, t], unite=False).masks[0] for t in range(3)]
    np.testing.assert_array_equal(read_masks(tmp_path / "out" / "amodal_masks"), expected)
    np.testing.assert_array_equal(read_masks(tmp_path / "out" / "masks.json"), modal[0])


def test_a_video_is_run_frame_by_frame(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    things = make_things(3, 5, (32, 64))
    write_video(tmp_path / "clip.mp4", list((things.modal[0, ..., None] * np.uint8(200)).repeat(3, -1)), 10)
    rows = [{"image_id": t, "bbox": [5, 5, 20, 20], "category_id": 1, "score": 1.0} for t in (1, 4, 5)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    where = ("--images", tmp_path / "clip.mp4", "--detections", tmp_path / "boxes.json", "--threads", "1")
    outcome = issue("run", bundle, *where, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    written = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [row["image_id"] for row in written] == [1, 4, 5]
    assert len(read_frames(tmp_path / "out" / "overlay.mp4")) == 5  # those without boxes too
    with amodal.load(bundle, threads=1) as model:
        last = model.predict(read_frames(tmp_path / "clip.mp4")[4], boxes=[[5, 5, 25, 25]])
    np.testing.assert_array_equal(coco.decode(written[2]["segmentation"]), last.masks[0])


def test_a_part_of_a_video_gives_what_the_whole_gives_there(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = np.random.default_rng(2).integers(0, 256, (9, 32, 64, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", list(frames), 10)
    rows = [{"image_id": t, "bbox": [5 + t, 5, 20, 20], "category_id": 1, "score": 1 - t / 10} for t in range(9)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows[::-1]))
    where = ("--images", tmp_path / "clip.mp4", "--detections", tmp_path / "boxes.json", "--threads", "1")
    for name, options in (("whole", ()), ("part", ("--start", "0.2s", "--stop", "8", "--stride", "3"))):
        outcome = issue("run", bundle, *where, *options, "--cutouts", "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
    whole, part = (json.loads((tmp_path / name / "coco_results.json").read_text()) for name in ("whole", "part"))
    assert part == [row for row in whole if row["image_id"] in (2, 5)]
    assert [row["detection"] for row in part] == [6, 3]  # as they stand in the file
    assert len(read_frames(tmp_path / "part" / "overlay.mp4")) == 2
    said = json.loads((tmp_path / "part" / "result.json").read_text())["inputs"]
    assert (said["start"], said["stop"], said["stride"], said["count"]) == ("0.2s", "8", "3", 2)


def test_a_part_of_a_folder_with_masks_gives_what_the_whole_gives_there(
    bundle: Path, objects: tuple[Path, Path, Any, Any], tmp_path: Path
) -> None:
    where = ("--images", objects[0], "--masks", objects[1], "--objects", "1", "--threads", "1", "--no-overlay")
    for name, options in (("whole", ()), ("part", ("--start", "1"))):
        outcome = issue("run", bundle, *where, *options, "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
    whole, part = (read_masks(tmp_path / name / "amodal_masks") for name in ("whole", "part"))
    np.testing.assert_array_equal(part, whole[1:])


def test_places_in_the_file_are_told_also_when_boxes_of_low_scores_are_left_out(
    bundle: Path, kept: Folder, tmp_path: Path
) -> None:
    outcome = issue("run", bundle, *kept.options, "--min-score", "0.8", "--no-overlay", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    wanted = [index for index, row in enumerate(kept.rows) if row["score"] >= 0.8]
    assert sorted(row["detection"] for row in rows) == wanted
    assert wanted[0] > 0


def test_one_picture_is_enough(bundle: Path, kept: Folder, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(kept.rows[-2:]))
    where = ("--images", kept.images / "shot_00000.png", "--detections", tmp_path / "one.json", "--threads", "1")
    outcome = issue("run", bundle, *where, "--no-overlay", "-q", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert len(json.loads((tmp_path / "out" / "coco_results.json").read_text())) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--detections (boxes) or by --masks (visible masks), and neither"),
        (("--detections", "BOXES", "--masks", "IMAGES"), "and both were given"),
        (("--detections", "BOXES", "--points", "2"), "--points is for --masks"),
        (("--detections", "BOXES", "--no-unite"), "--no-unite is for --masks"),
        (("--masks", "IMAGES", "--min-score", "0.5"), "--min-score is for --detections"),
        (("--detections", "BOXES", "--first-id", "0"), "--first-id is for a video"),
        (("--detections", "BOXES", "--min-score", "2"), "no box with a score of 2 or more, of 5"),
        (("--detections", "BOXES", "--threshold", "nan"), "--threshold is nan"),
        (("--detections", "BOXES", "--box-format", "xyxy"), "has no area"),
        (("--detections", "MISSING"), "does not exist"),
        (("--detections", "IMAGES"), "is a folder; expected one json file"),
        (("--detections", "BOXES", "--start", "1", "--stop", "2"), "none of the 5 boxes is of the 1 pictures"),
        (("--detections", "BOXES", "--start", "9"), "none of them from 9 up to the end"),
        (("--detections", "BOXES", "--steps", "5"), "--steps is an option for bundles of the family diffusion-vas"),
        (("--detections", "BOXES", "--overlay", "--video", "webm"), "webm"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(
    bundle: Path, kept: Folder, refused: Callable[..., str], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    places = {"BOXES": kept.boxes, "IMAGES": kept.images, "MISSING": tmp_path / "none.json"}
    assert said in refused("run", bundle, "--images", kept.images, *(places.get(one, one) for one in options))


def test_a_bundle_that_is_not_there_is_told_as_that(kept: Folder, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "none is not a bundle" in refused("run", tmp_path / "none", *kept.options)


def test_options_of_sameo_are_refused_by_the_other_family(kept: Folder, refused: Callable[..., str]) -> None:
    said = refused("run", "default", *kept.options)
    assert "--images is an option for bundles of the family sameo, and this one is of diffusion-vas" in said


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"", "cannot be read as an image"),
        (b"not a picture", "cannot be read as an image"),
        (None, "a picture whose name ends with the number 2, which is not in --images"),
    ],
)
def test_pictures_that_cannot_be_read_leave_nothing(
    bundle: Path, kept: Folder, refused: Callable[..., str], tmp_path: Path, damage: bytes | None, said: str
) -> None:
    shutil.copytree(kept.images, tmp_path / "images")
    file = tmp_path / "images" / "shot_00002.png"
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    assert said in refused("run", bundle, "--images", tmp_path / "images", "--detections", kept.boxes)


class _Stub:
    """A model that answers with the boxes themselves."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(boxes_at_once=16, size=(64, 128), frames=1)
        self.memory = "resident"

    def __enter__(self) -> _Stub:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def encode(self, image: NDArray[np.uint8]) -> Any:
        return image

    def predict(self, image: NDArray[np.uint8], boxes: NDArray[np.float64], **_: Any) -> Any:
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return SimpleNamespace(masks=masks, iou=np.full(len(boxes), 0.5, np.float32))


@pytest.mark.slow
def test_a_thousand_pictures_take_no_more_memory_than_a_hundred(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "load", lambda *_, **__: _Stub())
    monkeypatch.setattr("amodal.cli.families.sameo.results.environment_of", lambda *_: {})
    (tmp_path / "images").mkdir()
    blank = Image.new("RGB", (320, 240), (80, 90, 100))
    for index in range(1000):
        blank.save(tmp_path / "images" / f"{index}.jpg")
    box = [10, 10, 100, 50]
    peaks = []
    for count in (100, 1000):
        rows = [{"image_id": i, "bbox": box, "category_id": 1, "score": 1.0} for i in range(count) for _ in range(5)]
        (tmp_path / "boxes.json").write_text(json.dumps(rows))
        where = ("--images", tmp_path / "images", "--detections", tmp_path / "boxes.json")
        tracemalloc.start()
        outcome = issue("run", bundle, *where, "--no-overlay", "--json", "-q", "-o", tmp_path / f"out-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert outcome.code == 0, outcome.err
    written = json.loads((tmp_path / "out-1000" / "coco_results.json").read_text())
    assert len(written) == 5000
    assert coco.area(written[-1]["segmentation"]) == 100 * 50
    assert json.loads(outcome.out)["throughput"]["masks"] == 5000
    # What the file of boxes takes is read at once: a kilobyte a box while its json is parsed.
    assert peaks[1] - peaks[0] < 1024 * 4500
