"""The page: what it holds against what it was shown, and what a browser draws of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from amodal.runtime.files.object_overlay import colour_of
from amodal.viewing.html_view import HtmlView
from amodal.viewing.view import Moment, Shown

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def moments(count=5, size=(48, 64)):
    """A square of 20 pixels whose right half is hidden goes to the right."""
    for t in range(count):
        frame = np.full((*size, 3), (40, 60, 80), np.uint8)
        whole = np.zeros(size, bool)
        whole[10:30, 5 + t : 25 + t] = True
        visible = whole.copy()
        visible[:, 15 + t :] = False
        drawn = np.full((*size, 3), (250, 240, 20), np.uint8)
        depth = np.linspace(0, 1, 64, dtype=np.float32) * np.ones((48, 1), np.float32)
        cup = Shown("cup</script><b>", visible, whole, drawn, "fresh")
        yield Moment(t, t / 10, frame, [cup, Shown("box", None, ~whole)], depth, {"age (s)": 0.125, "lost": np.nan})


def page_of(tmp_path, shown, **limits):
    view = HtmlView(tmp_path / "view.html", "amodal: a <clip>", **limits)
    for moment in shown:
        view.add(moment)
    notes = view.close()
    assert [path.name for path in tmp_path.iterdir()] == ["view.html"]
    return (tmp_path / "view.html").read_text(), notes


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def picture_of(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_page_holds_pictures_masks_and_figures_of_every_frame(tmp_path: Path) -> None:
    given = list(moments())
    page, notes = page_of(tmp_path, given)
    data = data_of(page)
    assert not notes
    assert [one["name"] for one in data["clip"]["objects"]] == ["cup</script><b>", "box"]
    for moment, frame in zip(given, data["frames"], strict=True):
        assert (frame["n"], frame["t"], frame["size"]) == (moment.number, moment.stamp, [64, 48])
        assert np.abs(np.asarray(picture_of(frame["picture"]), int) - moment.frame).max() < 4
        cup, box = frame["objects"]["0"], frame["objects"]["1"]
        for key, mask in (("whole", moment.objects[0].whole), ("visible", moment.objects[0].visible)):
            np.testing.assert_array_equal(coco.decode({"size": [48, 64], "counts": cup[key].encode()}), mask)
        assert "visible" not in box
        assert "completed" not in box
        x, y, address = cup["completed"]
        cut = np.asarray(picture_of(address).convert("RGBA"))
        assert (x, y, cut.shape) == (5 + moment.number, 10, (20, 20, 4))
        assert (cut[..., 3] == 255).all()
        assert np.abs(cut[..., :3].astype(int) - (250, 240, 20)).max() < 12
        assert (cup["note"], frame["figures"]) == ("fresh", {"age (s)": 0.125, "lost": None})
        grey = np.asarray(picture_of(frame["depth"]), int)
        assert grey[24, 2] < 20 < 235 < grey[24, 61]


def test_the_page_needs_no_network_and_no_name_ends_its_script(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, moments(2))
    assert "default-src 'none'" in page
    assert not re.findall(r"https?://|src=|href=|@import|url\(", page)
    assert page.count("</script>") == 2
    assert "a &lt;clip&gt;" in page


def test_large_frames_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    frame, whole = np.zeros((1000, 2000, 3), np.uint8), np.zeros((1000, 2000), bool)
    whole[500:, 1000:] = True
    page, _ = page_of(tmp_path, [Moment(0, 0.0, frame, [Shown("a", None, whole, frame)])])
    (shown,) = data_of(page)["frames"]
    assert shown["size"] == [640, 320]
    mask = coco.decode({"size": [320, 640], "counts": shown["objects"]["0"]["whole"].encode()})
    assert mask[160:, 320:].all()
    assert mask.sum() == 160 * 320
    assert shown["objects"]["0"]["completed"][:2] == [320, 160]


@pytest.mark.parametrize("limits", [{"most_frames": 5}, {"most_bytes": 12_000}])
def test_a_long_clip_is_thinned_evenly_and_said(tmp_path: Path, limits: dict[str, int]) -> None:
    page, (note,) = page_of(tmp_path, moments(30), **limits)
    data = data_of(page)
    numbers = [frame["n"] for frame in data["frames"]]
    step = int(re.fullmatch(r"view.html shows one frame in (\d+) of 30.", note)[1])
    assert data["clip"]["note"] == note
    assert numbers == list(range(0, 30, step))
    assert len(numbers) <= limits.get("most_frames", 30)
    assert len(page) < limits.get("most_bytes", 10**9) + 16_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_draws_the_frame_that_the_address_names(tmp_path: Path) -> None:
    page_of(tmp_path, (Moment(m.number, m.stamp, m.frame, m.objects[:1]) for m in moments()))
    shot = tmp_path / "shot.png"
    address = f"{(tmp_path / 'view.html').as_uri()}#3"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--window-size=1200,800", "--force-device-scale-factor=1"]
    dom = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    assert 'data-drawn="3"' in dom.stdout
    assert "frame 3, 0.30 s" in dom.stdout
    subprocess.run([*command, f"--screenshot={shot}", address], capture_output=True, timeout=120, check=True)
    with Image.open(shot) as picture:
        seen = np.asarray(picture.convert("RGB"), int)
    # The canvas is as wide as the column: find it by the colour of the frame, and look at it in its own pixels.
    inside = np.abs(seen - (40, 60, 80)).max(axis=-1) < 6
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left, scale = rows[0], columns[0], (columns[-1] + 1 - columns[0]) / 64

    def at(row: int, column: int) -> np.ndarray:
        return seen[int(top + (row + 0.5) * scale), int(left + (column + 0.5) * scale)]

    blue = np.array(colour_of(0))
    tinted = 0.55 * np.array((40, 60, 80)) + 0.45 * blue
    assert np.abs(at(20, 12) - tinted).max() < 10, "the visible part is tinted"
    assert np.abs(at(10, 20) - blue).max() < 12, "the whole object is outlined"
    assert np.abs(at(40, 50) - (40, 60, 80)).max() < 6, "nothing is drawn outside"
    hidden = np.array([at(20, column)[2] for column in range(19, 26)])
    assert hidden.max() - hidden.min() > 15, "the hidden part is hatched"
