"""`amodal run` where all is well: every kind of input, every stage, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.runtime.files.depth import read_depth
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.rle import decode_rle
from amodal.runtime.pictures.padding import Padding

from .conftest import NAMES, QUICK, Clip, Outcome, issue, leftovers, make_clip


def read_pngs(folder: Path, names: tuple[str, ...] = NAMES) -> Any:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    return np.stack([np.asarray(Image.open(folder / name)) for name in names])


def test_both_stages_write_masks_frames_and_pictures(both: tuple[Path, Outcome], kept_clip: Clip) -> None:
    out, outcome = both
    assert sorted(path.name for path in out.iterdir()) == [
        *("amodal_masks", "completed", "masks.json", "overlay.gif", "result.json", "sheet.png")
    ]
    masks = read_pngs(out / "amodal_masks")
    assert masks.shape == kept_clip.modal.shape
    assert set(np.unique(masks)) <= {0, 255}
    assert masks.any()
    completed = read_pngs(out / "completed")
    assert completed.shape == kept_clip.rgb.shape
    assert completed.std() > 1
    with Image.open(out / "overlay.gif") as overlay:
        assert overlay.n_frames == len(NAMES)
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > kept_clip.rgb.shape[2] * len(NAMES)
    assert outcome.out.startswith(f"Wrote {out} in ")
    assert outcome.err == ""
    assert leftovers(out.parent) == []


def test_masks_json_holds_the_masks_of_the_folders(both: tuple[Path, Outcome], kept_clip: Clip) -> None:
    out, _ = both
    frames = json.loads((out / "masks.json").read_text())["frames"]
    assert [frame["name"] for frame in frames] == list(NAMES)
    whole = np.stack([decode_rle(frame["amodal"]) for frame in frames])
    np.testing.assert_array_equal(whole, read_pngs(out / "amodal_masks") == 255)
    np.testing.assert_array_equal(np.stack([decode_rle(frame["modal"]) for frame in frames]), kept_clip.modal)


def test_result_json_says_what_was_run_on_what(both: tuple[Path, Outcome], toy_bundle: Path, kept_clip: Clip) -> None:
    out, _ = both
    result = json.loads((out / "result.json").read_text())
    assert result["settings"] == {
        "stages": ["segment", "complete"],
        "seed": 23,
        "seeds": [23],
        "pad": False,
        "crop": "off",
        "propagate": False,
        "steps": 2,
        "guidance": [1.5, 1.5],
        "fps": 8.0,
        "context": "reference",
        "decode_chunk": 8,
        "cfg_rows": "auto",
        "churn": {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": None, "s_noise": 1.0},
        "memory": "resident",
    }
    for stage in ("segment", "complete"):
        seconds = result["seconds"][stage]
        components = {"image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder"}
        assert components < set(seconds)
        assert sum(seconds[name] for name in components) <= seconds["total"] <= result["seconds"]["total"]
    for path, digest in result["bundle"]["files"].items():
        assert digest == hashlib.sha256((toy_bundle / path).read_bytes()).hexdigest()
    assert (
        result["bundle"]["manifest_sha256"] == hashlib.sha256((toy_bundle / "manifest.json").read_bytes()).hexdigest()
    )
    assert set(result["versions"]) == {"python", "numpy", "pillow", "opencv", "platform"}
    assert result["backend"]["name"] == "onnxruntime"
    assert result["inputs"]["count"] == len(NAMES)
    assert [result["inputs"][name] for name in ("start", "stop", "stride", "pair")] == ["0", None, "1", "auto"]
    assert (result["inputs"]["height"], result["inputs"]["width"]) == kept_clip.modal.shape[1:]
    whole = read_pngs(out / "amodal_masks") == 255
    hidden = [(w & ~m).sum() / (w | m).sum() for w, m in zip(whole, kept_clip.modal, strict=True)]
    np.testing.assert_allclose(result["hidden_share"], hidden)
    assert all((out / name).exists() for name in result["files"])
    assert sorted(name.rstrip("/") for name in result["files"]) == sorted(path.name for path in out.iterdir())


def test_the_stages_one_after_the_other_take_over_from_each_other(
    both: tuple[Path, Outcome], toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    first = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "--stage", "segment", "-o", tmp_path / "seen", "-q")
    assert first == Outcome(0, "", "")
    assert not (tmp_path / "seen" / "completed").exists()
    np.testing.assert_array_equal(read_pngs(tmp_path / "seen" / "amodal_masks"), read_pngs(both[0] / "amodal_masks"))

    for name, given in (("folder", "amodal_masks"), ("json", "masks.json")):
        options = ("--stage", "complete", "--amodal", tmp_path / "seen" / given, "--json")
        second = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, *options, "-o", tmp_path / name)
        assert second.code == 0, second.err
        assert json.loads(second.out)["settings"]["stages"] == ["complete"]
        assert not (tmp_path / name / "amodal_masks").exists()
        assert read_pngs(tmp_path / name / "completed").shape == kept_clip.rgb.shape
    assert (tmp_path / "folder" / "masks.json").read_text() == (both[0] / "masks.json").read_text()
    np.testing.assert_array_equal(
        read_pngs(tmp_path / "folder" / "completed"), read_pngs(tmp_path / "json" / "completed")
    )


@pytest.mark.parametrize("way", ["both", "complete", "padded"])
def test_what_the_clip_shows_of_the_object_is_kept(way: str, toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    """`known_share` against the model's own masks, counted anew."""
    options = {"both": (), "complete": ("--stage", "complete", "--amodal", kept_clip.masks), "padded": ("--pad",)}[way]
    outcome = issue(
        "run", toy_bundle, *kept_clip.inputs, *QUICK, *options, "--propagate", "--json", "-o", tmp_path / "out"
    )
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["settings"]["propagate"] is True
    padding = Padding(*kept_clip.modal.shape[1:]) if way == "padded" else None
    with amodal.load(toy_bundle, threads=1) as model:
        seed: Any = 23
        amodal_masks = kept_clip.modal
        if way != "complete":
            seen = model.segment(kept_clip.modal, depth=read_depth(kept_clip.depth), steps=2, padding=padding)
            seed, amodal_masks = seen.noise, seen.masks
        whole = model.complete(
            kept_clip.rgb, kept_clip.modal, amodal_masks, seed=seed, steps=2, padding=padding, propagate=True
        )
        masks = np.stack(
            [m[np.arange(64) * m.shape[0] // 64][:, np.arange(64) * m.shape[1] // 64] for m in amodal_masks]
        )
    assert whole.known is not None
    shares = [k.sum() / (k | m).sum() for k, m in zip(whole.known, masks, strict=True)]
    assert result["known_share"] == pytest.approx(shares)
    assert all(0 < share <= 1 for share in shares)


def test_nothing_is_kept_unless_asked_for(both: tuple[Path, Outcome]) -> None:
    result = json.loads((both[0] / "result.json").read_text())
    assert result["settings"]["propagate"] is False
    assert "known_share" not in result


def test_a_bundle_says_whether_it_propagates(toy_bundle: Path) -> None:
    for bundle, said in ((toy_bundle, r"hidden RGB +drawn\n"), ("default", r"hidden RGB +copied from other frames")):
        assert re.search(said, issue("inspect", bundle, "--no-verify").out)


def test_object_picks_from_visible_masks_and_leaves_our_own_results_alone(
    both: tuple[Path, Outcome], toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    palette(kept_clip, tmp_path / "ids")
    masks = ("--frames", kept_clip.frames, "--masks", tmp_path / "ids", "--object", 3)
    options = ("--stage", "complete", "--amodal", both[0] / "amodal_masks", *QUICK, "--no-overlay")
    outcome = issue("run", toy_bundle, *masks, *options, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    np.testing.assert_array_equal(read_masks(tmp_path / "out" / "masks.json"), kept_clip.modal)


def palette(clip: Clip, folder: Path) -> tuple[str, ...]:
    """Object 3 is the clip's, object 2 lies elsewhere."""
    folder.mkdir()
    for name, mask in zip(NAMES, clip.modal, strict=True):
        ids = np.where(mask, 3, 0).astype(np.uint8)
        ids[-4:, -4:] = 2
        picture = Image.fromarray(ids)
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        picture.save(folder / name)
    return ("--masks", str(folder), "--object", "3")


def rle_json(clip: Clip, file: Path) -> tuple[str, ...]:
    from amodal.runtime.files.rle import encode_rle

    segments = {"segmentations": [encode_rle(mask) for mask in clip.modal]}
    file.write_text(json.dumps([{"id": 3, **segments}, {"id": 4, **segments}]))
    return ("--masks", str(file), "--object", "3")


def npz(clip: Clip, file: Path) -> tuple[str, ...]:
    np.savez(file, masks=clip.modal)
    return ("--masks", str(file))


@pytest.mark.parametrize(
    ("write", "name"), [(palette, "ids"), (rle_json, "tracks.json"), (npz, "masks.npz")], ids=["palette", "rle", "npz"]
)
def test_masks_of_every_kind_give_the_same_whole_masks(
    write: Any, name: str, both: tuple[Path, Outcome], toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    masks = write(kept_clip, tmp_path / name)
    inputs = ("--frames", kept_clip.frames, *masks, "--depth", kept_clip.depth)
    options = (*QUICK, "--stage", "segment", "--no-overlay", "-o", tmp_path / "out")
    outcome = issue("run", toy_bundle, *inputs, *options)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "masks.json").read_text() == (both[0] / "masks.json").read_text()
    assert not (tmp_path / "out" / "overlay.gif").exists()


def test_metric_depth_gives_nearly_the_masks_of_the_relative_depth_that_it_was_made_of(
    both: tuple[Path, Outcome], toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    near = read_depth(kept_clip.depth) / 65535
    np.savez(tmp_path / "metric.npz", depth=1 / (0.1 + near), conf=np.ones(3))
    inputs = ("--frames", kept_clip.frames, "--masks", kept_clip.masks, "--depth", tmp_path / "metric.npz")
    options = (*QUICK, "--stage", "segment", "--no-overlay", "-o", tmp_path / "out")
    outcome = issue("run", toy_bundle, *inputs, *options)
    assert outcome.code == 2
    assert "an array named 'conf'; say --depth-kind metric if it is, " in outcome.err
    outcome = issue("run", toy_bundle, *inputs, *options, "--depth-kind", "metric")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["inputs"]["depth_kind"] == "metric"
    found, expected = (read_pngs(root / "amodal_masks", NAMES) > 0 for root in (tmp_path / "out", both[0]))
    assert (found != expected).mean() < 1e-3


def test_holes_in_depth_are_a_warning(toy_bundle: Path, clip: Clip, tmp_path: Path) -> None:
    for name in NAMES:
        distances = 500 + np.asarray(Image.open(clip.depth / name)) // 8
        distances[:4] = 0
        Image.fromarray(distances.astype(np.uint16)).save(clip.depth / name)
    options = (*QUICK, "--stage", "segment", "--no-overlay", "--depth-kind", "metric")
    outcome = issue("run", toy_bundle, *clip.inputs, *options, "-o", tmp_path / "out")
    warning = "672 depth pixels without a measurement (10.0 %) were filled with the nearest measured depth."
    assert (outcome.code, outcome.err) == (0, f"Warning: {warning}\n")


@pytest.mark.parametrize("channels", ["demo", "rgb"])
def test_the_order_of_the_depth_networks_channels_is_recorded(
    channels: str, toy_with_depth: tuple[Path, Outcome], kept_clip: Clip, tmp_path: Path
) -> None:
    inputs = ("--frames", kept_clip.frames, "--masks", kept_clip.masks)
    options = (*QUICK, "--stage", "segment", "--no-overlay", "--json", "-o", tmp_path / "out")
    more = ("--depth-channels", "rgb") if channels == "rgb" else ()
    outcome = issue("run", toy_with_depth[0], *inputs, *options, *more)
    assert json.loads(outcome.out)["settings"]["depth_channels"] == channels


def test_options_about_depth_that_do_not_apply_are_refused(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    without = ("--frames", kept_clip.frames, "--masks", kept_clip.masks)
    outcome = issue("run", toy_bundle, *without, "--depth-kind", "metric", "-o", tmp_path / "out")
    assert "--depth-kind says what --depth holds" in outcome.err
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "--depth-channels", "rgb", "-o", tmp_path / "out")
    assert "--depth-channels is about the depth network" in outcome.err


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_a_video_needs_no_names_and_no_depth_where_the_bundle_finds_it(
    name: str, toy_with_depth: tuple[Path, Outcome], kept_clip: Clip, tmp_path: Path
) -> None:
    code = cv2.VideoWriter.fourcc(*("mp4v" if name.endswith("mp4") else "MJPG"))
    height, width = kept_clip.rgb.shape[1:3]
    writer = cv2.VideoWriter(str(tmp_path / name), code, 8, (width, height))
    for frame in kept_clip.rgb:
        writer.write(frame[..., ::-1])
    writer.release()
    inputs = ("--frames", tmp_path / name, "--masks", kept_clip.masks)
    options = (*QUICK, "--stage", "segment", "--no-overlay", "--json", "-o", tmp_path / "out")
    outcome = issue("run", toy_with_depth[0], *inputs, *options)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["seconds"]["segment"]["depth"] > 0
    read_pngs(tmp_path / "out" / "amodal_masks", ("0000.png", "0001.png", "0002.png"))


def test_an_object_out_of_sight_in_some_frames_is_a_warning(toy_bundle: Path, clip: Clip, tmp_path: Path) -> None:
    Image.fromarray(np.zeros_like(clip.modal[0])).save(clip.masks / NAMES[1])
    options = (*QUICK, "--stage", "segment", "--no-overlay", "--json")
    outcome = issue("run", toy_bundle, *clip.inputs, *options, "-o", tmp_path / "out")
    assert outcome.code == 0
    warning = "The masks show the object in 2 of 3 frames; not in frame 1."
    assert outcome.err == f"Warning: {warning}\n"
    assert json.loads(outcome.out) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert json.loads(outcome.out)["warnings"] == [warning]


def test_fewer_frames_than_the_bundle_has_give_as_many_results(toy_bundle: Path, clip: Clip, tmp_path: Path) -> None:
    for folder in (clip.frames, clip.masks, clip.depth):
        (folder / NAMES[2]).unlink()
    outcome = issue("run", toy_bundle, *clip.inputs, *QUICK, "--no-overlay", "-q", "-o", tmp_path / "out")
    assert outcome == Outcome(0, "", "")
    read_pngs(tmp_path / "out" / "amodal_masks", NAMES[:2])
    read_pngs(tmp_path / "out" / "completed", NAMES[:2])


def test_every_setting_reaches_the_run(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    options = (
        *("--seed", -5, "--samples", 2, "--pad", "--steps", 3),
        *("--guidance", "1:2.5", "--fps", 2, "--context", "aligned", "--decode-chunk", 2),
        *("--churn", 4, "--churn-sigmas", "0.1:50", "--churn-noise", 1.003, "--cfg-rows", "separate"),
        *("--memory", "sequential", "--backend", "auto", "--threads", 1, "--no-verify", "--stage", "segment"),
    )
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *options, "--no-overlay", "--json", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["settings"] == {
        "stages": ["segment"],
        "seed": -5,
        "seeds": [-5, -4],
        "pad": True,
        "crop": "off",
        "steps": 3,
        "guidance": [1.0, 2.5],
        "fps": 2.0,
        "context": "aligned",
        "decode_chunk": 2,
        "cfg_rows": "separate",
        "churn": {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 50.0, "s_noise": 1.003},
        "memory": "sequential",
    }


def test_overwrite_replaces_our_own_results_only(toy_bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text("old")
    (out / "of old").touch()
    options = (*QUICK, "--stage", "segment", "--no-overlay", "-q", "-o", out)
    assert issue("run", toy_bundle, *clip.inputs, *options).code == 2
    assert issue("run", toy_bundle, *clip.inputs, *options, "--overwrite").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["amodal_masks", "masks.json", "result.json"]


def test_an_empty_folder_is_written_into_and_the_marker_says_so(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    options = (*QUICK, "--stage", "segment", "--no-overlay", "-q", "-o", ".")
    assert issue("run", toy_bundle, *kept_clip.inputs, *options) == Outcome(0, "", "")
    assert sorted(os.listdir()) == ["amodal_masks", "masks.json", "result.json"]
    assert issue("run", toy_bundle, *kept_clip.inputs, *options, "--overwrite").code == 0
    assert sorted(os.listdir()) == ["amodal_masks", "masks.json", "result.json"]


def test_frame_names_that_are_no_utf_8_finish(toy_bundle: Path, clip: Clip, tmp_path: Path) -> None:
    for index, name in enumerate(NAMES):
        for folder in (clip.frames, clip.masks, clip.depth):
            os.rename(folder / name, os.fsencode(folder) + b"/caf\xe9_%d.png" % index)
    outcome = issue("run", toy_bundle, *clip.inputs, *QUICK, "--cutouts", "--json", "-o", tmp_path / "out\udce9")
    assert outcome.code == 0, outcome.err
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9"))
    assert json.loads(outcome.out) == json.loads((out / "result.json").read_text())
    assert sorted(os.listdir(os.fsencode(out / "rgba"))) == [b"caf\xe9_%d.png" % index for index in range(3)]
    named = json.loads((out / "masks.json").read_text())["frames"]
    assert [frame["name"] for frame in named] == [f"caf\\xe9_{index}.png" for index in range(3)]


@pytest.mark.parametrize("pad", [False, True])
def test_cutouts_are_the_completed_rgb_in_the_masks(
    pad: bool, toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", ("--cutouts", "--no-overlay", *(["--pad"] if pad else []), "--json")
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, *options, "-o", out)
    assert outcome.code == 0, outcome.err
    pairs = [("rgba", "completed", "amodal_masks"), ("rgba_padded", "completed_padded", "amodal_masks_padded")]
    for cut, rgb, masks in pairs[: 1 + pad]:
        seen, whole = read_pngs(out / cut), read_pngs(out / masks)
        np.testing.assert_array_equal(seen[..., 3], whole)
        np.testing.assert_array_equal(seen[..., :3], read_pngs(out / rgb) * (whole[..., None] > 0))
    visible = read_pngs(out / "visible")
    np.testing.assert_array_equal(visible[..., 3], kept_clip.modal * np.uint8(255))
    np.testing.assert_array_equal(visible[..., :3], kept_clip.rgb * kept_clip.modal[..., None])
    names = [name.rstrip("/") for name in json.loads(outcome.out)["files"]]
    assert sorted(names) == sorted(path.name for path in out.iterdir())


def test_a_video_of_the_overlay_is_gif_or_mp4_or_both(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("av")
    for video, written in (("mp4", ["overlay.mp4"]), ("both", ["overlay.gif", "overlay.mp4"])):
        options = (*QUICK, "--stage", "segment", "--video", video, "--json", "--fps", 4, "-o", tmp_path / video)
        outcome = issue("run", toy_bundle, *kept_clip.inputs, *options)
        assert outcome.code == 0, outcome.err
        assert sorted(path.name for path in (tmp_path / video).glob("overlay.*")) == written
        assert [name for name in json.loads(outcome.out)["files"] if "overlay" in name] == written
    shown = cv2.VideoCapture(str(tmp_path / "mp4" / "overlay.mp4"))
    assert (shown.get(cv2.CAP_PROP_FRAME_COUNT), shown.get(cv2.CAP_PROP_FPS)) == (len(NAMES), 4)
